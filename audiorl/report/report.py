"""RESULTS.md and report.html of one system beside the one it started from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import audiorl
from audiorl.config import Config, load_config
from audiorl.config.dump import flow
from audiorl.config.keys import key_values
from audiorl.report import charts
from audiorl.report.charts import Chart
from audiorl.report.page import report_page
from audiorl.report.tables import (
    Table,
    as_markdown,
    detail_table,
    error_tables,
    overview,
    paired_table,
    sound_tables,
    systems_table,
    verdict,
)
from audiorl.runs.environment import environment
from audiorl.runtime.files import atomic_write, read_json, remove_leftovers
from audiorl.runtime.stamps import Stamp
from audiorl.score.asr import SystemScore, score_systems
from audiorl.score.metrics import Measures
from audiorl.score.results import write_system


@dataclass(frozen=True)
class Contents:
    """Contents of RESULTS.md and of the page."""

    systems: list[SystemScore]
    focus: SystemScore  # what the report is about; the others are compared with the first
    unit: str
    sample_rate: int  # Hz, of the config
    environment: Table
    commands: dict[str, str]  # what made it: name -> shell commands
    config_text: str  # of the focus
    reward_code: dict[str, str]  # of the focus: its users' own reward files by name
    config_differences: Table
    rate_charts: list[Chart]
    curves: dict[str, list[Chart]]  # by system
    shared_curves: list[Chart]  # of synthesis: all systems in one picture
    phase_charts: list[Chart]

    @property
    def compared(self) -> list[SystemScore]:
        """Return the systems without the references, such as natural recordings."""
        return [system for system in self.systems if not system.is_reference]

    @property
    def is_synthesis(self) -> bool:
        return bool(self.focus.pooled.sound)


def write_report(
    exps: list[Path], dump: Path, out: Path, cfg: Config, measures: Measures, command: str
) -> bool:
    """Score systems that are not scored; write RESULTS.md, report.html and images/ into `out`.

    The report is about the system in `out` (the last one, references apart, when `out` is none of
    `exps`). Returns False when it was up to date.
    """
    systems = score_systems(exps, dump, cfg, measures)
    for system in systems:
        write_system(system, cfg.score.unit, systems[0])
    about = [system for system in systems if system.exp.resolve() == out.resolve()]
    focus = (about or [s for s in systems if not s.is_reference] or systems)[-1]
    remove_leftovers(out.rglob(".*.tmp"))
    stamp = _stamp(systems, focus, out)
    if stamp.is_current():
        return False
    report = gather(systems, focus, cfg, out / "images", command)
    texts = {"RESULTS.md": results_markdown(report), "report.html": report_page(report)}
    for name, text in texts.items():
        with atomic_write(out / name) as stream:
            stream.write(text)
    stamp.outputs = _outputs(out)
    stamp.write()
    return True


def gather(
    systems: list[SystemScore], focus: SystemScore, cfg: Config, images: Path, command: str
) -> Contents:
    """Collect the contents; draw the pictures into `images`."""
    metrics = {s.label: charts.read_metrics(s.exp) for s in systems}
    curves = {
        label: charts.training_curves(label, series, images) for label, series in metrics.items()
    }
    shared = charts.side_by_side(metrics, images) if focus.pooled.sound else []
    phases = charts.phase_times(metrics, images)
    scripts = {s.label: _read(s.exp / "run.sh") for s in systems}
    return Contents(
        systems=systems,
        focus=focus,
        unit=cfg.score.unit,
        sample_rate=cfg.data.sample_rate,
        environment=environment_table(focus.exp / "env.json"),
        commands={label: text for label, text in scripts.items() if text} | {"report": command},
        config_text=_read(focus.exp / "config.yaml"),
        reward_code=reward_code(focus.exp),
        config_differences=config_differences({s.label: s.exp / "config.yaml" for s in systems}),
        rate_charts=charts.rate_charts(
            [s for s in systems if not s.is_reference], cfg.score, images
        ),
        curves={label: made for label, made in curves.items() if made},
        shared_curves=shared,
        phase_charts=[phases] if phases else [],
    )


def results_markdown(report: Contents) -> str:
    """Return RESULTS.md in the style of ESPnet's."""
    systems, compared, unit = report.systems, report.compared, report.unit
    tables = []
    if report.is_synthesis:
        tables += [systems_table(systems, unit), *sound_tables(systems)]
    tables.append(overview(compared, unit))
    if len(compared) > 1:
        tables.append(paired_table(compared))
    tables += [*error_tables(systems, unit), detail_table(systems)]
    parts = [
        "# RESULTS",
        *(f"- {sentence}" for sentence in verdict(compared, report.focus, unit)),
        "\n## Environments\n",
        as_markdown(report.environment),
        "## Results\n",
        *map(as_markdown, tables),
        "## Config\n",
        as_markdown(report.config_differences),
        *(
            f"Reward `{name}`:\n\n```python\n{text.strip()}\n```\n"
            for name, text in report.reward_code.items()
        ),
        "## Commands",
        *(f"\n{name}:\n\n```sh\n{text.strip()}\n```" for name, text in report.commands.items()),
    ]
    return "\n".join(parts) + "\n\n"


def config_differences(paths: dict[str, Path]) -> Table:
    """Return the keys on which the systems' resolved configs (label -> config.yaml) differ."""
    values = {
        label: key_values(load_config(path)) for label, path in paths.items() if path.exists()
    }
    rows = []
    for key in next(iter(values.values()), {}):
        shown = [flow(config[key]) for config in values.values()]
        if len(set(shown)) > 1:
            rows.append([key, *shown])
    note = "" if rows else "The configs do not differ."
    return Table("Where the configs differ", ["key", *values], rows, note)


def reward_code(exp: Path) -> dict[str, str]:
    """Return the users' own reward files of a system, as training kept them."""
    path = exp / "config.yaml"
    rewards = load_config(path).rl.rewards if path.exists() else []
    files = [exp / path for reward in rewards for path in reward.files]
    files += sorted(exp.glob("rewards/*.py"))
    return {path.relative_to(exp).as_posix(): _read(path) for path in files}


def environment_table(path: Path) -> Table:
    """Return the environment of training (env.json) beside that of the report."""
    training = read_json(path, "restore or remove it") if path.exists() else {}
    here = environment()
    rows = [[name, training.get(name), here.get(name)] for name in here | training]
    shown = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    return Table("Environment", ["", "training", "report"], shown)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _stamp(systems: list[SystemScore], focus: SystemScore, out: Path) -> Stamp:
    """Return the stamp of a report; it keeps the environment of when it was made."""
    inputs: dict[str, Any] = {}
    for system in systems:
        sets = system.sets.values()
        inputs |= {f"{system.label}/{s.name}": s.summary["inputs"] for s in sets}
        files = [system.exp / name for name in ("metrics.jsonl", "config.yaml", "run.sh")]
        files += system.exp.glob("rewards/*.py")
        inputs |= {f"{system.label}/{f.relative_to(system.exp)}": f for f in files}
    settings = {"audiorl": audiorl.__version__, "about": focus.label}
    return Stamp(out / "report.json", settings, inputs, _outputs(out))


def _outputs(out: Path) -> list[Path]:
    return [out / "RESULTS.md", out / "report.html", *sorted(out.glob("images/*"))]
