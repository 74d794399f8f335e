"""Pictures of a report: inline SVG that follows the page's colours, and PNG files beside it."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from audiorl.config.decoding import ScoreConfig
from audiorl.errors import UserError
from audiorl.report.breakdown import Span, Value, bins, length, snr, span_label
from audiorl.runtime.files import atomic_path, read_json_lines
from audiorl.score.asr import SystemScore, errors_and_units
from audiorl.score.metrics import ERROR_RATES
from audiorl.score.scored import ScoredUtterance
from audiorl.score.significance import rate_interval

INK = "#24313f"  # text and axes; becomes `currentColor` in the page
# Between light and dark: at least 3:1 against both of the page's backgrounds.
COLOURS = ("#2f7fc1", "#d0661f", "#2a9461", "#a862c0", "#8a7a2e")
MARKERS = ("o", "s", "^", "D", "v")
STYLE = {
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK,
    "ytick.color": INK, "svg.fonttype": "none", "svg.hashsalt": "audiorl", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "grid.alpha": 0.15, "grid.color": INK, "legend.frameon": False,
}  # fmt: skip
SIZE = (4.4, 2.8)  # inches

# Panels of training curves: title, keys of metrics.jsonl.
PANELS = (
    ("Reward", ("reward",)),
    ("Error rate on the dev set", ("eval/wer",)),
    ("Reward model's score on the dev set", ("eval/reward_model",)),
    ("Judge's score on the dev set", ("eval/judge",)),
    ("Trend of the latest evaluations", ("hacking/reward_trend", "hacking/judge_trend")),
    ("Diversity within groups", ("rewards/diversity/mean",)),
    ("Groups without variance (share)", ("frac_reward_zero_std",)),
    ("KL to the start model", ("kl",)),
    ("Entropy (nats a token)", ("entropy",)),
    ("Completion length (tokens)", ("completions/mean_length",)),
    ("Completions cut short (share)", ("completions/clipped_ratio",)),
    ("DiffRO's reward: log-probability a character", ("diffro/text",)),
    ("Loss", ("loss", "loss_ctc", "loss_lm", "diffro/loss")),
    ("Gradient norm", ("grad_norm",)),
)


@dataclass(frozen=True)
class Chart:
    title: str
    description: str  # what a reader who cannot see it should know
    svg: str


Metrics = dict[str, tuple[np.ndarray, np.ndarray]]  # key -> steps [N], values [N]


def read_metrics(exp: Path) -> Metrics:
    """Return metrics.jsonl by key, if it exists. A step given twice keeps its last value."""
    path = exp / "metrics.jsonl"
    if not path.exists():
        return {}
    series: dict[str, dict[float, float]] = {}
    for number, item in read_json_lines(path, "remove the line"):
        step = item.get("step")
        if type(step) not in (int, float):
            raise UserError(f"{path}:{number} has no number of its step; remove the line.")
        for name, value in item.items():
            if isinstance(value, (int, float)) and name != "step":
                series.setdefault(name, {})[step] = value
    return {
        name: (np.array(sorted(points)), np.array([points[step] for step in sorted(points)]))
        for name, points in series.items()
    }


def training_curves(label: str, metrics: Metrics, images: Path) -> list[Chart]:
    """Return one chart for each panel whose keys were logged."""
    charts = []
    for title, keys in PANELS:
        shown = {name: metrics[name] for name in keys if name in metrics}
        if shown:
            spread = metrics.get("reward_std") if list(shown) == ["reward"] else None
            name = f"{label}_{next(iter(shown))}"
            charts.append(_panel(title, f"{title} of {label}", name, shown, images, spread))
    return charts


def _panel(
    title: str,
    about: str,
    name: str,
    curves: Metrics,
    images: Path,
    spread: tuple[np.ndarray, np.ndarray] | None = None,
) -> Chart:
    """`spread`: steps and deviations, drawn around the first curve."""

    def draw(axes):
        for index, (label, (steps, values)) in enumerate(curves.items()):
            _curve(axes, steps, values, COLOURS[index % len(COLOURS)], label)
        if spread:
            steps, values = next(iter(curves.values()))
            around = np.interp(steps, *spread)
            axes.fill_between(steps, values - around, values + around, alpha=0.15, lw=0)
        if len(curves) > 1:
            axes.legend()
        axes.set_xlabel("step")

    said = "; ".join(f"{key} from {v[0]:.4g} to {v[-1]:.4g}" for key, (_, v) in curves.items())
    description = f"{about} over the steps of training: {said}."
    return draw_chart(title, description, name, images, draw)


def mean_metrics(runs: list[Metrics]) -> Metrics:
    """Return the mean of several seeds at each step that all of them logged."""
    means = {}
    for name in set.intersection(*map(set, runs)) if runs else ():
        steps = functools.reduce(np.intersect1d, (run[name][0] for run in runs))
        values = [run[name][1][np.isin(run[name][0], steps)] for run in runs]
        if len(steps):
            means[name] = steps, np.mean(values, axis=0)
    return means


def side_by_side(metrics: dict[str, Metrics], images: Path) -> list[Chart]:
    """Return charts of the panels whose first key several systems logged, a curve for each."""
    charts = []
    for title, (name, *_) in PANELS:
        logged = {label: series[name] for label, series in metrics.items() if name in series}
        if len(logged) >= 2:
            charts.append(_panel(title, title, f"all_{name}", logged, images))
    return charts


def phase_times(metrics: dict[str, Metrics], images: Path) -> Chart | None:
    """Return the mean seconds a step of each phase, one bar for each system with a log."""
    means: dict[str, dict[str, float]] = {}
    for label, series in metrics.items():
        phases = {
            name.removeprefix("timing_s/"): float(values.mean())
            for name, (_, values) in series.items()
            if name.startswith("timing_s/") and name != "timing_s/eval"  # not part of a step
        }
        total = phases.pop("step", None)
        if total is not None:
            means[label] = phases | {"other": max(0.0, total - sum(phases.values()))}
    if not means:
        return None
    names = list(dict.fromkeys(name for phases in means.values() for name in phases))
    names.sort(key=lambda name: name == "other")

    def draw(axes):
        left = np.zeros(len(means))
        for index, name in enumerate(names):
            widths = np.array([phases.get(name, 0.0) for phases in means.values()])
            colour, hatch = COLOURS[index % len(COLOURS)], "" if index < len(COLOURS) else "//"
            axes.barh(list(means), widths, 0.6, left, label=name, color=colour, hatch=hatch)
            left += widths
        axes.set_ylim(len(means) - 0.5, -0.5)
        axes.set_xlabel("seconds a step (mean)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

    said = "; ".join(
        f"{label}: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in phases.items())
        for label, phases in means.items()
    )
    return draw_chart("Time by phase", f"Mean seconds a step. {said}.", "phases", images, draw)


def rate_charts(systems: list[SystemScore], cfg: ScoreConfig, images: Path) -> list[Chart]:
    """Return the main error rate by SNR (where known) and length, in all sets with speech."""
    charts = []
    for axis, name, value in (("SNR (dB)", "snr", snr), ("length (s)", "length", length)):
        known = [v for u in systems[0].pooled.utterances if (v := value(u)) is not None]
        if len(set(known)) >= 2:
            missing = len(systems[0].pooled.utterances) - len(known)
            chart = _rate_chart(systems, cfg, images, axis, name, value, bins(known))
            note = f" {missing} utterances have no {axis} and are left out." if missing else ""
            charts.append(replace(chart, description=chart.description + note))
    return charts


def _rate_chart(systems, cfg, images, axis, name, value, spans) -> Chart:
    metric = ERROR_RATES[cfg.unit]
    points: dict[str, list[tuple[float, float, float]]] = {
        system.label: [_rate(system.pooled.utterances, value, span, cfg) for span in spans]
        for system in systems
    }
    ticks = [span_label(span) for span in spans]

    def draw(axes):
        for index, (label, rates) in enumerate(points.items()):
            middle, low, high = 100 * np.array(rates).T
            x = np.arange(len(spans)) + 0.12 * (index - (len(points) - 1) / 2)
            axes.errorbar(
                x, middle, (np.maximum(middle - low, 0), np.maximum(high - middle, 0)),
                color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)],
                markersize=4, capsize=2, lw=1.2, label=label,
            )  # fmt: skip
        axes.set_xticks(range(len(spans)), ticks)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(axis)
        axes.set_ylabel(f"{metric} (%)")
        axes.legend()

    said = "; ".join(
        f"{label}: "
        + ", ".join(f"{tick} {100 * r[0]:.1f} %" for tick, r in zip(ticks, rates, strict=True))
        for label, rates in points.items()
    )
    title = f"{metric} by {axis}"
    return draw_chart(title, f"{title}, with 95 % intervals. {said}.", f"by_{name}", images, draw)


def _rate(
    utterances: list[ScoredUtterance], value: Value, span: Span, cfg: ScoreConfig
) -> tuple[float, float, float]:
    chosen = [u for u in utterances if (v := value(u)) is not None and span[0] <= v <= span[1]]
    errors, units = errors_and_units(chosen, lambda u: u.counts[cfg.unit])
    low, high = rate_interval(errors, units, cfg.bootstrap_samples, cfg.seed)
    return errors.sum() / max(units.sum(), 1), low, high


def _curve(axes, steps: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    width = len(values) // 20  # of the moving average of many values
    if width < 2:
        axes.plot(steps, values, color=colour, lw=1.4, label=label, marker="o", markersize=2.5)
        return
    axes.plot(steps, values, color=colour, lw=0.7, alpha=0.35)
    kernel = np.ones(width)
    smooth = np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
    axes.plot(steps, smooth, color=colour, lw=1.8, label=label)


def draw_chart(
    title: str, description: str, name: str, images: Path, draw: Callable, height: float = SIZE[1]
) -> Chart:
    """Write `images/<name>.png`, drawn by `draw(axes)`; return the SVG for the page."""
    import matplotlib.figure  # slow to import

    name = re.sub(r"[^\w.-]", "_", name)
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(SIZE[0], height), layout="constrained")
        draw(figure.add_subplot())
        with atomic_path(images / f"{name}.png") as path:
            figure.savefig(path, format="png", dpi=120, facecolor="white")
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return Chart(title, description, _inline(stream.getvalue(), name))


def _inline(svg: str, name: str) -> str:
    # A part of a page has no header, ids of its own, and the page's ink.
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(xmlns(:\w+)?|width|height|version)="[^"]*"', "", head)
    svg = f"{head}>{rest}".replace("xlink:href", "href").replace(INK, "currentColor")
    return re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
