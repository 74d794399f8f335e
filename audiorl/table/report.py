"""The table for the terminal, as RESULTS.md and as report.html."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiorl.config.matrix import WARM_START
from audiorl.report.charts import (
    COLOURS,
    Chart,
    draw_chart,
    mean_metrics,
    read_metrics,
    side_by_side,
)
from audiorl.report.page import render
from audiorl.report.tables import Table, as_markdown, with_interval
from audiorl.runtime.files import atomic_write
from audiorl.table.plan import Plan
from audiorl.table.summary import Estimate, estimate

NOTHING = "-"


@dataclass(frozen=True)
class Results:
    """Results of a table so far: row -> an estimate for each column."""

    plan: Plan
    rows: dict[str, list[Estimate]]
    labels: dict[str, str]  # of rows; says where seeds are missing

    def differences(self, baseline: str) -> dict[str, list[Estimate]]:
        """Return the differences of the other rows from a row; none while that one is missing."""
        base = self.rows.get(baseline, [])
        return {
            row: [one - other for one, other in zip(found, base, strict=True)]
            for row, found in self.rows.items()
            if base and row != baseline
        }


def gather(plan: Plan) -> Results:
    """Return the numbers of the finished jobs."""
    score = plan.config.score
    rows, labels = {}, {}
    for row, jobs in {WARM_START: {0: plan.warm_start}, **plan.rows}.items():
        folders = [job.output.parent for job in jobs.values() if job.is_done()]
        if folders:
            rows[row] = [
                estimate(folders, column, score.bootstrap_samples, score.seed)
                for column in plan.columns
            ]
        of = f" ({len(folders)} of {len(jobs)} seeds)" if len(folders) < len(jobs) else ""
        labels[row] = row + of
    return Results(plan, rows, labels)


def tables(results: Results) -> list[Table]:
    """Return means, differences from the baselines, every seed, and settings of the rows."""
    plan, score = results.plan, results.plan.config.score
    made = [
        _table(
            results,
            "Means over seeds",
            results.rows,
            lambda e: _shown(e.value, e.interval),
            f"In brackets the 95 % interval: test utterances are drawn again "
            f"{score.bootstrap_samples} times, the same ones for all seeds and rows, and the mean "
            "over seeds is taken in each draw. Without a sign for %: numbers of utterances.",
        )
    ]
    for baseline in plan.baselines:
        if differences := results.differences(baseline):
            made.append(
                _table(
                    results,
                    f"Differences from {baseline}",
                    differences,
                    lambda d: _shown(d.value, d.interval, "+") + "*" * d.significant,
                    "Paired by utterance, of the means over seeds; * when the interval excludes "
                    "0 and every seed is on the same side. It knows nothing of other seeds.",
                )
            )
    one_by_one = _table(
        results,
        "Seed by seed",
        results.rows,
        lambda e: " ".join(_number(value) for value in e.seeds),
        "In the order of the seeds. What they differ by is noise of training.",
    )
    rows = [
        [
            row,
            next(iter(jobs.values())).needs[0].removeprefix("data/"),
            "; ".join(plan.changes(row)) or "nothing",
        ]
        for row, jobs in plan.rows.items()
    ]
    what = Table("What the rows are", ["row", "RL set", "sets, over the table's config"], rows)
    return [*made, one_by_one, what]


def _table(
    results: Results, title: str, found: dict[str, list], cell: Callable[..., str], note: str
) -> Table:
    header = ["row", *(column.title for column in results.plan.columns)]
    rows = [
        [label, *(map(cell, found[row]) if row in found else [NOTHING] * (len(header) - 1))]
        for row, label in results.labels.items()
        if row in found or row not in results.rows
    ]
    return Table(title, header, rows, note)


def _number(value: float, sign: str = "-") -> str:
    return NOTHING if np.isnan(value) else f"{value:{sign}.1f}"


def _shown(value: float, interval: tuple[float, float], sign: str = "-") -> str:
    return NOTHING if np.isnan(value) else with_interval(value, interval, 1, sign, 1)


def write_results(plan: Plan) -> list[Table]:
    """Write RESULTS.md, report.html and images/ if they are out of date; return the tables."""
    results = gather(plan)
    made = tables(results)
    text = "\n".join(["# RESULTS", "", *map(as_markdown, made)])
    stamp = f"<!-- inputs {hashlib.sha256(text.encode()).hexdigest()} -->\n"
    files = [plan.out / name for name in ("RESULTS.md", "report.html")]
    if not all(f.exists() and f.read_text(encoding="utf-8").endswith(stamp) for f in files):
        for file, content in zip(files, (text, _page(results, made)), strict=True):
            with atomic_write(file) as stream:
                stream.write(content + stamp)
    return made


def _page(results: Results, made: list[Table]) -> str:
    plan = results.plan
    means, *differences, seeds, rows = made
    images = plan.out / "images"
    runs = sum(job.is_done() for job in plan.runs)
    return render(
        "experiments",
        name=plan.out.name,
        about=f"{len(plan.rows)} rows and the warm start · {runs} of {len(plan.runs)} runs done",
        means=means,
        differences=differences,
        pictures=[_picture(results, index, images) for index in range(len(plan.columns))],
        curves=_curves(plan),
        seeds=seeds,
        rows=rows,
    )


def _curves(plan: Plan) -> list[Chart]:
    if len(plan.rows) > len(COLOURS):
        return []
    logged = {
        row: mean_metrics(
            [read_metrics(job.output.parent.parent) for job in jobs.values() if job.is_done()]
        )
        for row, jobs in plan.rows.items()
    }
    return side_by_side(logged, plan.out / "images")


def _picture(results: Results, index: int, images: Path) -> Chart:
    title = results.plan.columns[index].title
    found = {row: estimates[index] for row, estimates in results.rows.items()}

    def draw(axes):
        for place, e in enumerate(found.values()):
            low, high = e.interval
            axes.plot(e.seeds, [place] * len(e.seeds), "o", color=COLOURS[1], markersize=3)
            spread = [[max(e.value - low, 0)], [max(high - e.value, 0)]]
            axes.errorbar(
                [e.value], [place], xerr=spread, fmt="s", color=COLOURS[0], capsize=2, markersize=4
            )
        axes.set_yticks(range(len(found)), list(found))
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlabel(title)

    said = "; ".join(f"{row}: {_shown(e.value, e.interval)}" for row, e in found.items())
    height = 1.2 + 0.22 * len(found)
    return draw_chart(title, f"{title}. {said}.", title, images, draw, height=height)
