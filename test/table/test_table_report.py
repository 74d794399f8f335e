"""RESULTS.md and report.html of a table, complete or not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_systems import make_systems

from audiorl.config import dump_config
from audiorl.config.matrix import load_matrix
from audiorl.score.asr import score_systems
from audiorl.score.metrics import measures_of
from audiorl.score.results import write_system
from audiorl.table.plan import Job, Plan, make_plan
from audiorl.table.report import gather, write_results

MATRIX = """\
config: c.yaml
seeds: [1, 2]
baseline: good
columns: [test_clean.wer, pooled.wer, pooled.looping, test_nospeech.output]
cells:
  good: {set: [rl.beta=0.1]}
  poor: {}
  absent: {set: [rl.beta=0.2]}
"""
RATES = {"sft": 0.5, "good1": 0.1, "good2": 0.12, "poor1": 0.4}


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A table of which both seeds of `good` and one of `poor` are done."""
    monkeypatch.chdir(tmp_path)
    cfg = make_systems(tmp_path, utterances=30, seconds=0.05, error_rates=RATES)
    Path("c.yaml").write_text(dump_config(cfg))
    Path("table.yaml").write_text(MATRIX)
    made = make_plan(load_matrix("table.yaml"), Path("exp/sft"), Path("dump"), Path("exp/table"))
    for run in ("good1", "good2", "poor1"):
        place = made.out / run[:4] / f"seed{run[4]}"
        place.parent.mkdir(parents=True, exist_ok=True)
        Path("exp", run).rename(place)
    done = [made.warm_start, *made.rows["good"].values(), made.rows["poor"][1]]
    for job in done:
        finish(job, made)
    return made


def finish(job: Job, plan: Plan) -> None:
    (system,) = score_systems(
        [job.output.parent.parent], Path("dump"), plan.config, measures_of(plan.config.task)
    )
    write_system(system, "word", system)
    job.stamp().write()


def test_what_is_there_and_what_is_not(plan: Plan) -> None:
    means, differences, seeds, what = write_results(plan)
    assert means.header[1:] == [
        "test_clean WER %", "pooled WER %", "pooled looping", "test_nospeech output %",
    ]  # fmt: skip
    names = ["warm_start", "good", "poor (1 of 2 seeds)", "absent (0 of 2 seeds)"]
    assert [row[0] for row in means.rows] == names
    assert means.rows[3][1:] == ["-"] * 4
    assert [row[0] for row in differences.rows] == [names[0], *names[2:]]
    assert differences.title == "Differences from good"
    assert re.fullmatch(r"\+\d+\.\d \[\+\d+\.\d, \+\d+\.\d\]\*", differences.rows[1][2])
    assert [len(row[2].split()) for row in seeds.rows] == [1, 2, 1, 1]
    assert what.rows[0] == ["good", "train", "rl.beta: 0.0 -> 0.1"]
    assert what.rows[1] == ["poor", "train", "nothing"]


def test_further_rows_to_compare_with(plan: Plan) -> None:
    plan.baselines.append("poor")
    _, from_good, from_poor, *_ = write_results(plan)
    assert from_poor.title == "Differences from poor"
    forth = next(row[2] for row in from_good.rows if row[0].startswith("poor"))
    back = next(row[2] for row in from_poor.rows if row[0] == "good")
    assert float(forth.split()[0]) == -float(back.split()[0]) != 0
    assert "Differences from poor" in (plan.out / "report.html").read_text()


def test_curves_of_rows_are_means_over_seeds(plan: Plan) -> None:
    logged = {"good/seed1": (0.5, 0.3), "good/seed2": (0.5, 0.1), "poor/seed1": (0.5, 0.4)}
    for run, values in logged.items():
        lines = [f'{{"step": {10 * i}, "eval/wer": {v}}}\n' for i, v in enumerate(values)]
        (plan.out / run / "metrics.jsonl").write_text("".join(lines))
    write_results(plan)
    page = (plan.out / "report.html").read_text()
    assert '<section id="curves"' in page and 'href="#curves"' in page
    assert "good from 0.5 to 0.2; poor from 0.5 to 0.4" in page


def test_without_its_baseline_it_has_no_differences(plan: Plan) -> None:
    for job in plan.rows["good"].values():
        job.stamp().path.unlink()
    titles = [table.title for table in write_results(plan)]
    assert titles == ["Means over seeds", "Seed by seed", "What the rows are"]
    assert "Differences" not in (plan.out / "report.html").read_text()


def test_a_result_of_another_setting_does_not_count(plan: Plan) -> None:
    assert len(gather(plan).rows["good"][0].seeds) == 2
    plan.rows["good"][1].config.num_threads = 3
    assert len(gather(plan).rows["good"][0].seeds) == 1


def test_files(plan: Plan) -> None:
    write_results(plan)
    text = (plan.out / "RESULTS.md").read_text()
    assert text.startswith("# RESULTS\n\n### Means over seeds\n")
    assert "|poor (1 of 2 seeds)|" in text
    page = (plan.out / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "http" not in page and "<script" not in page
    assert "3 rows and the warm start · 3 of 6 runs done" in page
    images = {path.name for path in (plan.out / "images").iterdir()}
    assert {"pooled_WER__.png", "test_nospeech_output__.png", "all_eval_wer.png"} < images
    assert page.count("<svg") == len(images)
    for section in ("table", "differences", "pictures", "seeds"):
        assert f'href="#{section}"' in page and f'<section id="{section}"' in page


def test_what_is_up_to_date_stays(plan: Plan) -> None:
    def written() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in plan.out.rglob("*")}

    write_results(plan)
    before = written()
    write_results(plan)
    assert written() == before
    (plan.out / "report.html").unlink()
    write_results(plan)
    assert written().keys() == before.keys()
