"""Results as tables and sentences: the terminal, RESULTS.md and the page all show these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from audiorl.score.asr import METRICS, POOLED, SystemScore, units_of
from audiorl.score.failures import NAMES
from audiorl.score.significance import Comparison

WIDTH = 100  # columns of a terminal
BIASED = {"b_wer": "B-WER", "u_wer": "U-WER"}  # error rates of the units of keywords, and others


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def overview(systems: list[SystemScore], unit: str) -> Table:
    """Sets by systems: the main error rate, and each later system's difference from the first."""
    metric = METRICS[unit].lower()
    first = systems[0]
    header = ["dataset", first.label]
    for system in systems[1:]:
        header += [system.label, f"{system.label} - {first.label}"]

    def row(name: str, cells: Iterable[str], differences: Iterable[str]) -> list[str]:
        one, *later = cells
        pairs = zip(later, differences, strict=True)
        return [name, one, *(cell for pair in pairs for cell in pair)]

    empty = [""] * (len(systems) - 1)
    rows = []
    for name in first.speech:
        rates = (s.speech[name].summary[metric] for s in systems)
        cells = (with_interval(rate["rate"], rate["interval"]) for rate in rates)
        rows.append(row(name, cells, (difference(s.against[name]) for s in systems[1:])))
    for failure in first.pooled.summary["failures"]:
        counts = (str(s.pooled.summary["failures"][failure]) for s in systems)
        rows.append(row(failure.replace("_", " "), counts, empty))
    if "keywords" in first.pooled.summary:
        scores = (f"{100 * s.pooled.summary['keywords']['f1']:.1f}" for s in systems)
        rows.append(row("keyword F1 %", scores, empty))
        for name, label in BIASED.items():
            rates = (f"{100 * s.pooled.summary['keywords'][name]['rate']:.2f}" for s in systems)
            rows.append(row(f"{label} %", rates, empty))
    for name in first.no_speech:
        summaries = [s.no_speech[name].summary for s in systems]
        shares = (f"{100 * summary['non_empty_rate']:.1f}" for summary in summaries)
        rows.append(row(f"{name} output %", shares, empty))
        speeds = (f"{summary['words_per_minute'] or 0:.1f}" for summary in summaries)
        rows.append(row(f"{name} words/min", speeds, empty))
    note = (
        f"{METRICS[unit]} in % with its 95 % interval (bootstrap over utterances); differences in "
        "points, paired, * when their interval excludes 0. Empty to truncated: numbers of "
        "utterances with speech; output %: share of recordings without speech for which "
        "something is output."
    )
    return Table(f"{METRICS[unit]} before and after", header, rows, note)


def error_table(systems: list[SystemScore], unit: str) -> Table:
    """ESPnet's table: percentages of reference units and of sentences."""
    rows = []
    for system in systems:
        for name, score in system.speech.items():
            rate = score.summary[METRICS[unit].lower()]
            kinds = ("hits", "substitutions", "deletions", "insertions", "errors")
            shares = [f"{100 * rate[kind] / max(rate['units'], 1):.1f}" for kind in kinds]
            rows.append(
                [
                    f"{system.label}/{system.folder.name}/{name}",
                    str(score.summary["utterances"]),
                    str(rate["units"]),
                    *shares,
                    f"{100 * rate['sentence_error_rate']:.1f}",
                ]
            )
    header = ["dataset", "Snt", "Wrd", "Corr", "Sub", "Del", "Ins", "Err", "S.Err"]
    return Table(METRICS[unit], header, rows)


def paired_table(systems: list[SystemScore]) -> Table:
    """The paired tests behind the differences."""
    rows = []
    for system in systems[1:]:
        for name, c in system.against.items():
            relative = "-"
            if c.relative is not None:
                relative = with_interval(c.relative, c.relative_interval, decimals=1, sign="+")
            rows.append(
                [
                    f"{system.label}/{name}",
                    difference(c),
                    relative,
                    f"{c.p_bootstrap:.4f}",
                    f"{c.p_permutation:.4f}",
                    str(c.better),
                    str(c.worse),
                ]
            )
    header = ["dataset", "points", "relative %", "p bootstrap", "p permutation", "better", "worse"]
    return Table(
        f"Paired comparison with {systems[0].label}",
        header,
        rows,
        "Same utterances in both; better and worse: utterances with fewer and more errors.",
    )


def detail_table(systems: list[SystemScore]) -> Table:
    """Failures, keywords and speed of each set."""
    header = ["dataset", *(name.replace("_", " ") for name in NAMES)]
    header += ["keyword precision %", "keyword recall %"]
    header += [f"{label} %" for label in BIASED.values()] + ["RTF"]
    rows = []
    for system in systems:
        for name, score in system.speech.items():
            summary, keywords = score.summary, score.summary.get("keywords")
            shares = ["-"] * 4
            if keywords:
                shares = [f"{100 * keywords[key]:.1f}" for key in ("precision", "recall")]
                shares += [f"{100 * keywords[key]['rate']:.2f}" for key in BIASED]
            rtf = "-" if summary["rtf"] is None else f"{summary['rtf']:.3f}"
            counts = [str(count) for count in summary["failures"].values()]
            rows.append([f"{system.label}/{name}", *counts, *shares, rtf])
    note = (
        "B-WER, U-WER: error rates of the words (CJK: characters) of keywords, and of the others."
    )
    return Table("Failures, keywords and speed", header, rows, note)


def error_tables(systems: list[SystemScore], unit: str) -> list[Table]:
    """The main metric's table first, then the others that are always counted."""
    units = sorted(units_of(unit), key=lambda other: other != unit)
    return [error_table(systems, unit) for unit in units]


def verdict(systems: list[SystemScore], focus: SystemScore, unit: str) -> list[str]:
    """Return the results in sentences; `focus` is the system that the report is about."""
    metric, first = METRICS[unit], systems[0]
    rate = {s.label: 100 * s.pooled.summary[metric.lower()]["rate"] for s in systems}
    if focus is first:
        return [f"{first.label} has a pooled {metric} of {rate[first.label]:.2f} %."]
    sentences = []
    for system in [focus, *(s for s in systems[1:] if s is not focus)]:
        c = system.against[POOLED]
        numbers = (
            f"the pooled {metric} from {rate[first.label]:.2f} % to {rate[system.label]:.2f} %"
        )
        if not c.significant:
            sentences.append(
                f"{system.label} takes {numbers}, but the interval of the difference includes "
                "zero: no change is shown."
            )
            continue
        verb = "lowers" if c.difference < 0 else "raises"
        relative = ""
        if c.relative is not None:
            low, high = sorted(100 * abs(bound) for bound in c.relative_interval)
            share = 100 * abs(c.relative)
            relative = f" ({share:.1f} % relative, 95 % interval {low:.1f} to {high:.1f} %)"
        points = 100 * abs(c.difference)
        sentences.append(f"{system.label} {verb} {numbers}, by {points:.2f} points{relative}.")
    compared = {name: c for name, c in focus.against.items() if name != POOLED}
    groups = {
        "better": [n for n, c in compared.items() if c.significant and c.difference < 0],
        "worse": [n for n, c in compared.items() if c.significant and c.difference > 0],
        "not clearly different": [n for n, c in compared.items() if not c.significant],
    }
    parts = [f"{word} on {', '.join(names)}" for word, names in groups.items() if names]
    sentences.append(f"Set by set, {focus.label} is {'; '.join(parts)}.")
    for name, score in focus.no_speech.items():
        now, then = (100 * s.summary["non_empty_rate"] for s in (score, first.no_speech[name]))
        sentences.append(
            f"Without speech ({name}), {focus.label} outputs something for {now:.1f} % of the "
            f"recordings; {first.label} did for {then:.1f} %."
        )
    return sentences


def difference(c: Comparison) -> str:
    """`-1.20 [-1.80, -0.60]*` in points; the star: the interval excludes zero."""
    return with_interval(c.difference, c.interval, sign="+") + "*" * c.significant


def as_text(table: Table, width: int = WIDTH) -> str:
    """For a terminal; columns that do not fit follow in a block of their own, the names again."""
    columns = list(zip(table.header, *table.rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    blocks: list[list[int]] = [[]]
    for index in range(1, len(columns)):
        taken = widths[0] + sum(widths[i] + 2 for i in blocks[-1])
        if blocks[-1] and taken + widths[index] + 2 > width:
            blocks.append([])
        blocks[-1].append(index)
    lines = []
    for block in blocks:
        for cells in [table.header, *table.rows]:
            shown = [cells[0].ljust(widths[0]), *(cells[i].rjust(widths[i]) for i in block)]
            lines.append("  ".join(shown).rstrip())
        lines.append("")
    return "\n".join(lines).rstrip()


def as_markdown(table: Table) -> str:
    """In ESPnet's style, with its title and note."""
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    lines = ["|" + "|".join(_escape_markdown(cell) for cell in row) + "|" for row in rows]
    note = [table.note, ""] if table.note else []
    return "\n".join([f"### {table.title}", "", *note, *lines, ""])


def with_interval(
    value: float,
    interval: tuple[float, float],
    decimals: int = 2,
    sign: str = "-",
    factor: float = 100,
) -> str:
    """`17.90 [16.11, 19.74]`: the number and its bounds, times `factor`."""
    low, high = (f"{factor * bound:{sign}.{decimals}f}" for bound in interval)
    return f"{factor * value:{sign}.{decimals}f} [{low}, {high}]"


def _escape_markdown(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*")
