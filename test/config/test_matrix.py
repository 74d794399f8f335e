"""Matrices of experiments: read as strictly as configs, every problem with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from audiorl.config import load_config
from audiorl.config.matrix import Experiments, load_matrix
from audiorl.errors import UserError

MATRIX = """\
config: conf/grpo.yaml
seeds: [1, 5]
columns: [one.wer, pooled.wer]
data:
  all: {}
  hard: {set: [rl_data.drop_flat=true]}
cells:
  grpo: {}
  warm: {data: hard, merge: [presets/warm.yaml, presets/more.yaml], set: [rl.beta=0.5]}
  other: {config: conf/other.yaml}
"""


@pytest.fixture
def load(write: Callable[..., str]) -> Callable[..., Experiments]:
    """Loads a matrix's text, in a folder with configs."""
    write("data: {test: [one]}\nrl: {temperature: 0.5, max_steps: 7}\n", "conf/grpo.yaml")
    write("extends: grpo.yaml\nrl: {algorithm: supervised}\n", "conf/other.yaml")
    write("rl: {temperature: 2.0, top_k: 3}\n", "presets/warm.yaml")
    write("rl: {top_k: 0}\n", "presets/more.yaml")
    return lambda text, *overrides: load_matrix(write(text, "table.yaml"), overrides)


@pytest.fixture
def problems(load: Callable[..., Experiments]) -> Callable[..., list[str]]:
    """The problems of a matrix's text, one a line."""

    def problems(text: str, *overrides: str) -> list[str]:
        with pytest.raises(UserError) as refusal:
            load(text, *overrides)
        lines = str(refusal.value).split("\n")
        return [line.strip() for line in lines if not line.endswith("problems:")]

    return problems


def test_a_row_is_a_config_in_three_steps(load) -> None:
    found = load(MATRIX, "rl.max_steps=3")
    assert found.matrix.seeds == [1, 5]
    assert found.matrix.baseline == "warm_start"
    assert list(found.cells) == ["grpo", "warm", "other"]
    assert {seed: config.seed for seed, config in found.cells["warm"].items()} == {1: 1, 5: 5}
    assert found.base == load_config("conf/grpo.yaml", ["rl.max_steps=3"])
    warm = found.cells["warm"][5].rl
    assert (warm.temperature, warm.top_k, warm.beta, warm.max_steps) == (2.0, 0, 0.5, 3)
    assert found.cells["other"][1].rl.algorithm == "supervised"
    assert found.cells["other"][1].rl.temperature == 0.5
    assert not found.data["all"].rl_data.drop_flat
    assert found.data["hard"].rl_data.drop_flat
    assert found.matrix.cells["warm"].data == "hard"
    assert found.where["cells.other"] == "table.yaml:10"


def test_defaults(load) -> None:
    found = load("config: conf/grpo.yaml\ncolumns: [one.wer]\ncells: {a: {}}\n")
    assert found.matrix.seeds == [1]
    assert list(found.data) == ["train"]


def test_a_matrix_extends_another(load, write) -> None:
    write(MATRIX, "base/table.yaml")
    write("data: {test: [one]}\n", "base/conf/grpo.yaml")
    for name in ("conf/other.yaml", "presets/warm.yaml", "presets/more.yaml"):
        write(Path(name).read_text(), f"base/{name}")
    write("rl: {beta: 0.25}\n", "mine.yaml")
    found = load("extends: base/table.yaml\nseeds: [9]\ncells:\n  new: {merge: [mine.yaml]}\n")
    assert list(found.cells) == ["grpo", "warm", "other", "new"]
    # Paths are seen from the file that names them.
    assert found.cells["new"][9].rl.beta == 0.25
    assert found.cells["warm"][9].rl.temperature == 2.0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: [1, 5]", "sedes: [1, 5]", "table.yaml:2: sedes: unknown key; did you mean seeds?"),
        ("warm: {data", "warm: {dta", "table.yaml:9: cells.warm.dta: unknown key; did you mean c"),
        ("grpo: {}", "grpo: {zzz: 1}", "cells.grpo.zzz: unknown key; here may stand config, merge"),
        ("grpo: {}", "grpo:", "table.yaml:8: cells.grpo: expected keys indented below it"),
        ("grpo: {}", "a.b: {}", 'table.yaml:8: cells: "a.b" cannot be a name; use letters, di'),
        ("grpo: {}", "grpo: {}\n  grpo: {}", "table.yaml:9: cells.grpo: set twice (first at"),
        ("grpo: {}", "data: {}", "table.yaml:8: cells.data: means something else here"),
        ("grpo: {}", "warm_start: {}", "table.yaml:8: cells.warm_start: means something else"),
        ("data:\n  all: {}\n  hard: {set: [rl_data.drop_flat=true]}", "data: [all]",
         "table.yaml:4: data: expected keys indented below it (got a list)"),
        ("[1, 5]", "[1, x]", "table.yaml:2: seeds[1]: expected a whole number >= 0 (got x)"),
        ("[1, 5]", "[]", "table.yaml:2: seeds: is missing or empty"),
        ("[1, 5]", "[5, 5]", "table.yaml:2: seeds: names 5 twice; keep one."),
        ("[1, 5]", "!!python/name:os.system [1]", "is refused, a config is plain data"),
        ("[one.wer, pooled.wer]", "[]", "table.yaml:3: columns: is missing or empty"),
        ("  hard: {", "  hart: {", "cells.warm.data: hard is not in `data`; did you mean hart?"),
        ("grpo: {}", "grpo: {after: othr}", "cells.grpo.after: othr is no row that begins with"),
        ("grpo: {}", "grpo: {after: x}\n  x: {after: other}", "x is no row that begins with the"),
        ("grpo: {}", "grpo: {after: grpo}", "table.yaml:8: cells.grpo.after: grpo is no row"),
        ("seeds:", "baseline: gpro\nseeds:", "baseline: gpro is no row; did you mean grpo?"),
        ("seeds:", "against: [gpro]\nseeds:", "against: gpro is no row; did you mean grpo?"),
        ("seeds:", "against: [warm_start]\nseeds:", "names the baseline, warm_start, again"),
        ("[rl.beta=0.5]", "[seed=3]", "cells.warm.set: the seed comes from `seeds`; remove"),
        ("[rl.beta=0.5]", "[rl.bta=1]", "cells.warm: --set rl.bta=1: unknown key; did you mean rl"),
        ("[rl.beta=0.5]", "[rl.beta=-1]", "table.yaml:9: cells.warm: --set rl.beta=-1: expected"),
        ("[rl.beta=0.5]", "[sft.schedule.max_steps=9]", "sft.schedule.max_steps: 1000 -> 9, but"),
        ("[rl.beta=0.5]", "['data.test=[two]']", "changes data.test: [one] -> [two], but rows"),
        ("more.yaml", "none.yaml", "table.yaml:9: cells.warm: presets/none.yaml: cannot be read"),
        ("conf/other.yaml", "conf/o.yaml", "table.yaml:10: cells.other: conf/o.yaml: cannot be r"),
        ("conf/grpo.yaml", "conf/none.yaml", "conf/none.yaml: cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(problems, old: str, new: str, message: str) -> None:
    assert MATRIX.count(old) >= 1
    assert any(message in line for line in problems(MATRIX.replace(old, new, 1)))


def test_a_missing_key(problems) -> None:
    found = problems("seeds: [1]\n")
    assert [line.partition(" is ")[0] for line in found] == [
        "table.yaml: config:",
        "table.yaml: columns:",
        "table.yaml: cells:",
    ]


def test_all_problems_at_once(problems) -> None:
    text = MATRIX.replace("rl.beta=0.5", "rl.bta=1").replace("conf/other.yaml", "conf/none.yaml")
    assert [line.split()[1] for line in problems(text)] == ["cells.warm:", "cells.other:"]


def test_an_overlay_has_no_base(problems, write) -> None:
    write("extends: ../conf/grpo.yaml\nrl: {top_k: 0}\n", "presets/based.yaml")
    (line,) = problems(MATRIX.replace("more.yaml", "based.yaml"))
    assert "presets/based.yaml:1: extends: a file that is merged over others has no base" in line
