"""RESULTS.md and report.html of one system beside the one it started from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import audiorl
from audiorl.config.schema import Config
from audiorl.errors import UserError
from audiorl.files import atomic_write
from audiorl.score import charts
from audiorl.score.asr import SystemScore, score_systems
from audiorl.score.charts import Chart
from audiorl.score.environment import environment
from audiorl.score.results import write_system
from audiorl.score.tables import (
    Table,
    as_markdown,
    detail_table,
    error_tables,
    overview,
    test_table,
    verdict,
)


@dataclass(frozen=True)
class Report:
    """What RESULTS.md and the page show."""

    systems: list[SystemScore]
    focus: SystemScore  # what the report is about; the others are compared with the first
    unit: str
    sample_rate: int  # Hz, of the config
    environment: dict[str, str]
    commands: dict[str, str]  # what made it: name -> shell commands
    config_text: str  # of the focus
    config_differences: Table
    rate_charts: list[Chart]
    curves: dict[str, list[Chart]]  # by system
    phase_charts: list[Chart]


def write_report(exps: list[Path], dump: Path, out: Path, cfg: Config, command: str) -> bool:
    """Scores what is not scored, and writes RESULTS.md, report.html and images/ into `out`.

    The report is about the system in `out` (the last one when `out` is none of `exps`). Returns
    False when it was up to date.
    """
    from audiorl.score.page import page

    systems = score_systems(exps, dump, cfg)
    for system in systems:
        write_system(system, cfg.score.unit, systems[0])
    about = [system for system in systems if system.exp.resolve() == out.resolve()]
    focus = (about or systems)[-1]
    stamp = f"<!-- inputs {_fingerprint(systems, focus)} -->\n"
    if all(_ends_with(out / name, stamp) for name in ("RESULTS.md", "report.html")):
        return False
    report = gather(systems, focus, cfg, out / "images", command)
    for name, text in (("RESULTS.md", results_markdown(report)), ("report.html", page(report))):
        with atomic_write(out / name) as stream:
            stream.write(text + stamp)
    return True


def gather(
    systems: list[SystemScore], focus: SystemScore, cfg: Config, images: Path, command: str
) -> Report:
    """Collects what is shown; draws the pictures into `images`."""
    metrics = {s.label: charts.read_metrics(s.exp) for s in systems}
    curves = {
        label: charts.training_curves(label, series, images) for label, series in metrics.items()
    }
    phases = charts.phase_times(metrics, images)
    scripts = {s.label: _read(s.exp / "run.sh") for s in systems}
    return Report(
        systems=systems,
        focus=focus,
        unit=cfg.score.unit,
        sample_rate=cfg.data.sample_rate,
        environment=environment(),
        commands={label: text for label, text in scripts.items() if text} | {"report": command},
        config_text=_read(focus.exp / "config.yaml"),
        config_differences=config_differences({s.label: s.exp / "config.yaml" for s in systems}),
        rate_charts=charts.rate_charts(systems, cfg.score, images),
        curves={label: made for label, made in curves.items() if made},
        phase_charts=[phases] if phases else [],
    )


def results_markdown(report: Report) -> str:
    """RESULTS.md in the style of ESPnet's."""
    systems, unit = report.systems, report.unit
    tables = [overview(systems, unit)]
    if len(systems) > 1:
        tables.append(test_table(systems))
    tables += [*error_tables(systems, unit), detail_table(systems)]
    parts = [
        "# RESULTS",
        *(f"- {sentence}" for sentence in verdict(systems, report.focus, unit)),
        "\n## Environments",
        *(f"- {name}: `{value}`" for name, value in report.environment.items()),
        "\n## Results\n",
        *map(as_markdown, tables),
        "## Config\n",
        as_markdown(report.config_differences),
        "## Commands",
        *(f"\n{name}:\n\n```sh\n{text.strip()}\n```" for name, text in report.commands.items()),
    ]
    return "\n".join(parts) + "\n\n"


def config_differences(configs: dict[str, Path]) -> Table:
    """Keys on which the systems' resolved configs differ."""
    flat = {label: _flatten(_load(path)) for label, path in configs.items() if path.exists()}
    keys = dict.fromkeys(key for config in flat.values() for key in config)
    rows = [
        [key, *(config.get(key, "-") for config in flat.values())]
        for key in keys
        if len({config.get(key) for config in flat.values()}) > 1
    ]
    note = "" if rows else "The configs do not differ."
    return Table("Where the configs differ", ["key", *flat], rows, note)


def _flatten(node: Any, path: str = "") -> dict[str, str]:
    """`{"a": {"b": 1}}` -> `{"a.b": "1"}`; lists are leaves."""
    if not isinstance(node, dict):
        return {path: json.dumps(node, ensure_ascii=False)}
    below = (_flatten(value, f"{path}.{key}" if path else str(key)) for key, value in node.items())
    return {key: value for leaves in below for key, value in leaves.items()}


def _load(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())}); mend it.") from error


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _fingerprint(systems: list[SystemScore], focus: SystemScore) -> str:
    """Of all that the report shows but the environment: that it keeps from when it was made."""
    digest = hashlib.sha256(f"{audiorl.__version__} {focus.label}".encode())
    for system in systems:
        digest.update(system.label.encode())
        for score in system.sets.values():
            digest.update(f"{score.name} {score.summary['inputs']}".encode())
        for name in ("metrics.jsonl", "config.yaml", "run.sh"):
            digest.update(_read(system.exp / name).encode())
    return digest.hexdigest()


def _ends_with(path: Path, stamp: str) -> bool:
    return path.exists() and _read(path).endswith(stamp)
