"""The numbers of a table, against a computation by hand and a slow bootstrap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audiorl.errors import UserError
from audiorl.score.metrics import Metric
from audiorl.score.significance import rate_interval
from audiorl.table.plan import Column
from audiorl.table.summary import estimate

WER = Column(("one",), Metric("WER %", ("sub", "del", "ins"), ("words",)), "one WER %")
BOTH = Column(("one", "two"), WER.metric, "pooled WER %")
LOOPS = Column(("one",), Metric("looping", ("looping",), factor=1.0), "one looping")
F1 = Column(("one",), Metric("F1 %", ("hit", "hit"), ("said", "heard")), "one F1 %")
RATE = Column(("one",), Metric("words/min", ("words",), ("duration",), 60.0), "words/min")
SAMPLES = 200

HEADER = "id source words sub del ins looping said heard hit duration"
# Two seeds of one row.
SEED_1 = ["a 4 1 0 0 0 1 1 1 2.0", "b 6 0 2 0 0 2 1 1 3.0", "c 10 3 0 3 1 0 0 0 5.0"]
SEED_2 = ["a 4 0 0 0 0 1 1 1 2.0", "b 6 1 0 0 0 2 3 2 3.0", "c 10 2 0 0 0 0 1 0 5.0"]
OTHER = ["a 4 2 0 0 0 1 1 1 2.0", "b 6 3 0 1 0 2 3 2 3.0", "c 10 9 0 0 1 0 1 0 5.0"]


@pytest.fixture
def folder(tmp_path: Path):
    """Writes per_utt.tsv of sets (name -> lines) and returns the folder of the decoding."""

    def write(name: str, **sets: list[str]) -> Path:
        for one, lines in sets.items():
            path = tmp_path / name / one / "per_utt.tsv"
            path.parent.mkdir(parents=True)
            cells = [line.split() for line in lines]
            rows = [HEADER.split(), *([row[0], f"{one}/{row[0]}", *row[1:]] for row in cells)]
            table = ["\t".join(row) + "\n" for row in rows]
            path.write_text("".join(table))
        return tmp_path / name

    return write


def test_means_by_hand(folder) -> None:
    seeds = [folder("1", one=SEED_1), folder("2", one=SEED_2)]
    found = {c.title: estimate(seeds, c, SAMPLES, 1) for c in (WER, LOOPS, F1, RATE)}
    assert found["one WER %"].seeds.tolist() == pytest.approx([100 * 9 / 20, 100 * 3 / 20])
    assert found["one WER %"].value == pytest.approx(30.0)
    assert found["one looping"].seeds.tolist() == [1, 0]
    assert found["one looping"].value == 0.5
    # F1 of seed 1: 2 * 2 / (3 + 2); of seed 2: 2 * 3 / (3 + 5). The mean, not F1 of the sums.
    assert found["one F1 %"].value == pytest.approx(100 * (0.8 + 0.75) / 2)
    assert found["words/min"].value == pytest.approx(60 * 20 / 10)


def test_sets_are_pooled_by_their_sums(folder) -> None:
    one = folder("1", one=SEED_1, two=["x 100 0 0 1 0 0 0 0 9.0"])
    assert estimate([one], BOTH, SAMPLES, 1).value == pytest.approx(100 * 10 / 120)


def test_a_recording_in_two_conditions_is_drawn_once(folder) -> None:
    twice = folder("1", one=SEED_1, two=SEED_1)
    for name in ("one", "two"):
        path = twice / name / "per_utt.tsv"
        path.write_text(path.read_text().replace(f"{name}/", "recording/"))
    both = estimate([twice], BOTH, SAMPLES, 1)
    assert len(both.ids) == 6
    np.testing.assert_allclose(both.draws, estimate([twice], WER, SAMPLES, 1).draws)
    alone = estimate([folder("2", one=SEED_1, two=SEED_1)], BOTH, SAMPLES, 1)
    assert np.std(alone.draws) < np.std(both.draws)


def slow_draws(seeds: list[list[str]], drawn: np.ndarray) -> list[float]:
    """The mean over seeds of the WER in each draw, one utterance at a time."""
    draws = []
    for places in drawn:
        rates = []
        for lines in seeds:
            rows = [[float(cell) for cell in lines[place].split()[1:]] for place in places]
            rates.append(100 * sum(r[1] + r[2] + r[3] for r in rows) / sum(r[0] for r in rows))
        draws.append(sum(rates) / len(rates))
    return draws


def test_intervals_against_a_slow_bootstrap(folder) -> None:
    row = [folder("1", one=SEED_1), folder("2", one=SEED_2)]
    base = estimate([folder("b", one=OTHER)], WER, SAMPLES, 7)
    found = estimate(row, WER, SAMPLES, 7)
    drawn = np.random.default_rng(7).integers(0, 3, size=(SAMPLES, 3))
    draws = np.array(slow_draws([SEED_1, SEED_2], drawn))
    assert found.interval == pytest.approx(np.percentile(draws, [2.5, 97.5]))
    # Paired: the same utterances in both.
    differences = draws - np.array(slow_draws([OTHER], drawn))
    c = found - base
    assert c.value == pytest.approx(30.0 - 75.0)
    assert c.interval == pytest.approx(np.percentile(differences, [2.5, 97.5]))
    assert c.significant
    assert not (found - found).significant


def test_a_seed_on_the_other_side_takes_the_star(folder) -> None:
    worse = [line.replace(" 1 0 0 0 1 1 1 2.0", " 4 0 0 0 1 1 1 2.0") for line in SEED_1]
    worse = [
        line.replace(" 0 3 0 3 1", " 10 0 3 1").replace(" 0 2 0 0 2", " 6 2 0 0 2")
        for line in worse
    ]
    row = estimate(
        [folder("1", one=worse), *(folder(f"{i}", one=SEED_2) for i in range(2, 7))],
        WER,
        SAMPLES,
        7,
    )
    base = estimate([folder("b", one=OTHER)], WER, SAMPLES, 7)
    c = row - base
    assert row.seeds[0] > base.value > row.seeds[1] and c.interval[1] < 0
    assert not c.significant


def test_one_seed_has_the_interval_of_scoring(folder) -> None:
    found = estimate([folder("1", one=SEED_1)], WER, SAMPLES, 3)
    errors, units = np.array([1, 2, 6]), np.array([4, 6, 10])
    expected = rate_interval(errors, units, SAMPLES, 3)
    assert found.interval == pytest.approx([100 * bound for bound in expected])


def test_nothing_to_divide_by_is_no_number(folder) -> None:
    silent = ["a 4 0 0 0 0 0 0 0 1.0", "b 5 0 0 0 0 0 0 0 1.0"]
    found = estimate([folder("1", one=silent)], F1, SAMPLES, 1)
    assert np.isnan(found.value) and np.isnan(found.interval).all()
    # In some draws only: those are left out, and the interval is of the others.
    spoken = [*silent[:1], "b 5 0 0 0 0 1 1 1 1.0"]
    some = estimate([folder("2", one=spoken)], F1, SAMPLES, 1)
    assert np.isnan(some.draws).any()
    assert (some.value, some.interval) == (100.0, (100.0, 100.0))


def test_other_utterances_are_refused(folder) -> None:
    whole, part = folder("1", one=SEED_1), folder("2", one=SEED_2[:2])
    with pytest.raises(UserError, match="has other utterances than other seeds; score again"):
        estimate([whole, part], WER, SAMPLES, 1)
    with pytest.raises(UserError, match="Rows were scored on different utterances"):
        estimate([whole], WER, SAMPLES, 1) - estimate([part], WER, SAMPLES, 1)
