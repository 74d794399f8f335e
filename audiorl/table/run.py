"""A whole table: the parts that its rows share first, then every row with every seed."""

from __future__ import annotations

import contextlib
import textwrap

from audiorl.errors import UserError
from audiorl.report.tables import WIDTH, as_text
from audiorl.runtime.locks import exclusive
from audiorl.table.plan import MODEL_WEIGHTS, Plan
from audiorl.table.report import write_results
from audiorl.table.runner import run_jobs


def run_table(plan: Plan, slots: int) -> None:
    """Do the unfinished jobs, `slots` at a time, writing the table after each; print it.

    Raises UserError at the end when jobs failed, with reasons and logs.
    """
    weights, *others = plan.warm_start.inputs
    if not weights.exists():
        raise UserError(
            f"{weights}: there is no warm start; train it (stage 3), or name it with --init."
        )
    absent = [path for path in others if not path.exists()]
    models = [str(path) for path in absent if path.name == MODEL_WEIGHTS.name]
    if models:
        raise UserError(f"{models[0]}: it belongs beside the warm start; train it (stage 3).")
    if absent:
        sets = ", ".join(map(str, absent))
        raise UserError(f"{sets}: no such set; prepare and format it (stage 2).")
    with exclusive(plan.out) as lock:
        failures = run_jobs([plan.warm_start, *plan.data], slots, lock)
        lost = {failure.job.name for failure in failures}
        waiting = 0
        for depth in (1, 2):  # a run of the second begins with the model of one of the first
            runs = [job for job in plan.runs if len(job.needs) == depth]
            able = [job for job in runs if not {plan.warm_start.name, *job.needs} & lost]
            found = run_jobs(able, slots, lock, after_each=lambda: _write_so_far(plan))
            waiting += len(runs) - len(able)
            failures += found
            lost |= {failure.job.name for failure in found}
        for table in write_results(plan)[:-1]:
            print(f"\n{table.title}\n\n{as_text(table)}\n{textwrap.fill(table.note, WIDTH)}")
    print(f"\n{plan.out / 'RESULTS.md'}, {plan.out / 'report.html'}: written")
    if failures:
        also = f"; {waiting} runs were left out for want of them" if waiting else ""
        reasons = [f"{failure}\n    all of it: {failure.job.file('.log')}" for failure in failures]
        jobs = 1 + len(plan.data) + len(plan.runs)
        raise UserError(
            "\n  ".join([f"{len(failures)} of {jobs} jobs failed{also}:", *reasons])
            + "\nFix these; the same command continues with the jobs that are not done."
        )


def _write_so_far(plan: Plan) -> None:
    with contextlib.suppress(UserError):  # reported at the end; no reason to stop what is running
        write_results(plan)


def describe(plan: Plan) -> str:
    """Return the jobs, a line for each row."""
    lines = []
    for row, jobs in plan.rows.items():
        done = sum(job.is_done() for job in jobs.values())
        changes = "; ".join(plan.changes(row)) or "the table's config"
        needs = ", ".join(next(iter(jobs.values())).needs)
        lines.append(f"{row}: {changes} ({needs}, {done} of {len(jobs)} seeds done)")
    columns = ", ".join(column.title for column in plan.columns)
    return "\n".join([*lines, f"columns: {columns}", f"compared with: {', '.join(plan.baselines)}"])
