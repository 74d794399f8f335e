"""Numbers as ratios of sums: they are those of result.json, for every set."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from fake_systems import make_systems

from audiorl.config import Config
from audiorl.errors import UserError
from audiorl.score.asr import score_systems
from audiorl.score.metrics import Metric, measures_of, metrics_of, read_columns
from audiorl.score.results import FIELDS, write_system
from audiorl.text.normalise import split_units


@pytest.fixture(scope="module", params=["word", "char", "mixed"])
def scored(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A config, and the folder of a system that was scored with it."""
    root = tmp_path_factory.mktemp("scored")
    cfg = make_systems(root, utterances=30, seconds=0.05, error_rates={"a": 0.5})
    cfg.score.unit = request.param
    (system,) = score_systems([root / "exp" / "a"], root / "dump", cfg, measures_of(cfg.task))
    write_system(system, cfg.score.unit, system)
    return cfg, system.folder


def value(folder: Path, metric: Metric) -> float:
    """A number from its definition."""
    *_, above = read_columns(folder / "per_utt.tsv", metric.above)
    *_, below = read_columns(folder / "per_utt.tsv", metric.below)
    return metric.factor * above.sum() / (below.sum() if metric.below else 1)


def stated(result: dict) -> dict[str, float]:
    """What result.json says of a set, by the names of metrics."""
    if not result["speech"]:
        shares = ("words_output", "signs_alone", "unfinished")
        keys = {"output": ("non_empty_rate", 100), "words_per_minute": ("words_per_minute", 1)}
        keys |= {name: (f"{name}_rate", 100) for name in shares}
        return {name: factor * result[key] for name, (key, factor) in keys.items()}
    main = result[result["metric"].lower()]
    kinds = ("substitutions", "deletions", "insertions")
    keywords = result.get("keywords", {})
    written = result["formatting"]  # names are written with capitals
    return {
        "formatted_wer": 100 * written["wer"]["rate"],
        **{sign: 100 * written[sign] for sign in ("cased", "punctuated")},
        **{name: 100 * result[name]["rate"] for name in ("cer", "wer")},
        result["metric"].lower(): 100 * main["rate"],
        **{kind: 100 * main[kind] / main["units"] for kind in kinds},
        **{f"keyword_{k}": 100 * keywords[k] for k in ("precision", "recall", "f1")},
        **{side: 100 * keywords[side]["rate"] for side in ("b_wer", "u_wer")},
        **result["failures"],
    }


@pytest.mark.parametrize("name", ["test_clean", "test_noisy", "test_nospeech"])
def test_every_metric_is_what_result_json_says(scored: tuple[Config, Path], name: str) -> None:
    cfg, folder = scored
    result = json.loads((folder / name / "result.json").read_text())
    expected = stated(result)
    metrics = metrics_of(cfg, measures_of(cfg.task), name)
    if result["speech"]:  # result.json leaves these to sets without speech
        header, *rows = csv.reader(open(folder / name / "per_utt.tsv"), delimiter="\t")
        hyps = [dict(zip(header, row, strict=True)) for row in rows]
        minutes = sum(float(row["duration"]) for row in hyps) / 60
        units = [unit for row in hyps for unit in split_units(row["hyp"], "mixed")]
        words = sum(len(unit) / (1 if unit > "\u3000" else 5) for unit in units)
        found = value(folder / name, metrics.pop("words_per_minute"))
        assert found == pytest.approx(words / minutes)
        inserted = sum(int(row["ins"]) for row in hyps)
        found = value(folder / name, metrics.pop("insertions_per_minute"))
        assert found == pytest.approx(inserted / minutes)
        share = sum(bool(row["hyp"]) for row in hyps) / len(hyps)
        assert value(folder / name, metrics.pop("output")) == pytest.approx(100 * share)
    assert metrics.keys() == expected.keys()
    found = {metric: value(folder / name, metrics[metric]) for metric in metrics}
    assert found == pytest.approx(expected, rel=1e-4)
    assert sum(number > 0 for number in found.values()) >= len(found) - 6


def test_metrics_name_columns_of_per_utt() -> None:
    cfg = Config()
    cfg.data.no_speech = ["silence"]
    for name in ("speech", "pooled", "silence"):
        for metric in metrics_of(cfg, measures_of(cfg.task), name).values():
            assert {*metric.above, *metric.below} <= {*FIELDS, "utterances"}


def test_read_columns(tmp_path: Path) -> None:
    path = tmp_path / "per_utt.tsv"
    path.write_text("id\tsource\tduration\tsub\nu-1\tr-1\t1.5\t2\nu-2\tr-1\t\t3\n")
    ids, sources, values = read_columns(path, ("sub", "utterances", "duration"))
    assert (ids, sources) == (["u-1", "u-2"], ["r-1", "r-1"])
    np.testing.assert_array_equal(values, [[2, 1, 1.5], [3, 1, 0]])
    path.write_text("id\tsub\nu-1\t1\n")  # of before there was a column `source`
    with pytest.raises(UserError, match=r"per_utt\.tsv lacks the counts .*; score again"):
        read_columns(path, ("sub",))
    head = "id\tsource\t"
    for text in (f"{head}ins\nu-1\tr\t1\n", f"{head}sub\nu-1\tr\tx\n", f"{head}sub\nu-1\tr\n", ""):
        path.write_text(text)
        with pytest.raises(UserError, match=r"per_utt\.tsv lacks the counts .*; score again"):
            read_columns(path, ("sub",))
    with pytest.raises(UserError, match=r"none.tsv lacks"):
        read_columns(tmp_path / "none.tsv", ("sub",))
