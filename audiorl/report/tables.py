"""Results as tables and sentences: the terminal, RESULTS.md and the page all show these."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from audiorl.config.dump import WIDTH
from audiorl.runs.checkpoint import kept_steps
from audiorl.score import tts
from audiorl.score.asr import POOLED, SystemScore
from audiorl.score.failures import NAMES
from audiorl.score.metrics import BIASED, ERROR_RATES
from audiorl.score.ratio import Ratio
from audiorl.score.scored import units_of
from audiorl.score.significance import Comparison

SIMILARITY, DASH = "similarity", "-"
SILENT = {  # of recordings without speech
    "non_empty_rate": "output",
    "words_output_rate": "in words",
    "signs_alone_rate": "in signs",
    "unfinished_rate": "unfinished",
}


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def overview(systems: list[SystemScore], unit: str, apart: bool = True) -> Table:
    """Return sets by systems: the main error rate, and differences from the first system.

    Differences have columns of their own if `apart`; else they are second lines of cells.
    """
    metric = ERROR_RATES[unit].lower()
    first = systems[0]
    labels = [system.label for system in systems]
    header = ["dataset", *labels]
    if apart:
        differences = [(label, f"{label} - {first.label}") for label in labels[1:]]
        header = ["dataset", first.label, *itertools.chain(*differences)]

    def row(name: str, cells: Iterable[str], differences: Iterable[str]) -> list[str]:
        one, *later = cells
        pairs = list(zip(later, differences, strict=True))
        if not apart:
            return [name, one, *("\n".join(filter(None, pair)) for pair in pairs)]
        return [name, one, *itertools.chain(*pairs)]

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
        for what, label in SILENT.items():
            shares = (f"{100 * summary[what]:.1f}" for summary in summaries)
            rows.append(row(f"{name} {label} %", shares, empty))
        speeds = (f"{summary['words_per_minute'] or 0:.1f}" for summary in summaries)
        rows.append(row(f"{name} words/min", speeds, empty))
    note = (
        f"{ERROR_RATES[unit]} in % with its 95 % interval (bootstrap over utterances); differences "
        f"from {first.label} in points, paired, * when their interval excludes 0. Empty to "
        "truncated: numbers of utterances with speech; output %: share of recordings without "
        "speech for which anything is output; in signs: in signs alone; unfinished: up to the "
        "length limit."
    )
    return Table(f"{ERROR_RATES[unit]} before and after", header, rows, note)


def error_table(systems: list[SystemScore], unit: str) -> Table:
    """Return ESPnet's table: percentages of reference units and of sentences."""
    rows = []
    for system in systems:
        for name, score in system.speech.items():
            rate = score.summary[ERROR_RATES[unit].lower()]
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
    return Table(ERROR_RATES[unit], header, rows)


def paired_table(systems: list[SystemScore]) -> Table:
    """Return the paired tests behind the differences."""
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
    """Return failures, keywords and speed of each set."""
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
    """Return the main metric's table first, then the others that are always counted."""
    units = sorted(units_of(unit), key=lambda other: other != unit)
    return [error_table(systems, unit) for unit in units]


def verdict(systems: list[SystemScore], focus: SystemScore, unit: str) -> list[str]:
    """Return the results in sentences; `focus` is the system that the report is about."""
    metric, first = ERROR_RATES[unit], systems[0]
    rate = {s.label: 100 * s.pooled.summary[metric.lower()]["rate"] for s in systems}
    if focus is first:
        return [f"{first.label} has a pooled {metric} of {rate[first.label]:.2f} %."]
    sentences = []
    for system in [focus, *(s for s in systems[1:] if s is not focus)]:
        c = system.against[POOLED]
        numbers = (
            f"the pooled {metric} from {rate[first.label]:.2f} % to {rate[system.label]:.2f} %"
        )
        if kept_steps(system.exp) == [0]:
            sentences.append(
                f"{system.label} is the model that it began with: no later evaluation was better."
            )
            continue
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
    if parts:
        sentences.append(f"Set by set, {focus.label} is {'; '.join(parts)}.")
    for name, score in focus.no_speech.items():
        now, then = (100 * s.summary["non_empty_rate"] for s in (score, first.no_speech[name]))
        sentences.append(
            f"Without speech ({name}), {focus.label} outputs something for {now:.1f} % of the "
            f"recordings ({100 * score.summary['signs_alone_rate']:.1f} % in signs alone, "
            f"{100 * score.summary['unfinished_rate']:.1f} % unfinished); {first.label} did for "
            f"{then:.1f} %."
        )
    return sentences


def difference(c: Comparison) -> str:
    """Return `-1.20 [-1.80, -0.60]*` in points; the star: the interval excludes zero."""
    return with_interval(c.difference, c.interval, sign="+") + "*" * c.significant


def as_text(table: Table, width: int = WIDTH) -> str:
    """Return a table for a terminal; columns that do not fit follow in a block of their own."""
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
    """Return a table in ESPnet's style, with its title and note."""
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
    """Return `17.90 [16.11, 19.74]`: the number and its bounds, times `factor`."""
    low, high = (f"{factor * bound:{sign}.{decimals}f}" for bound in interval)
    return f"{factor * value:{sign}.{decimals}f} [{low}, {high}]"


def _escape_markdown(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*")


def systems_table(systems: list[SystemScore], unit: str) -> Table:
    """Return error rate and speaker similarity of each system on each set; references first.

    Systems are rows, as in Table 2 of arXiv 2509.18569.
    """
    metric = ERROR_RATES[unit]
    header = ["system"]
    for name in systems[0].speech:
        header += [f"{name} {metric} %", f"{name} SS %"]
    rows = []
    for system in sorted(systems, key=lambda s: not s.is_reference):
        row = [system.label]
        for name, score in system.speech.items():
            rate = f"{100 * score.summary[metric.lower()]['rate']:.2f}"
            voice = _number(score.sound[SIMILARITY])
            if system is not systems[0] and not system.is_reference:
                moved = score.sound[SIMILARITY] - systems[0].speech[name].sound[SIMILARITY]
                rate += "*" * system.against[name].significant
                voice += "*" * moved.significant
            row += [rate, voice]
        rows.append(row)
    note = (
        f"{metric}: error rate of the judge's transcript against the text; SS: speaker similarity. "
        f"* differs from {systems[0].label}: the 95 % interval of the paired difference, over "
        "utterances, excludes 0."
    )
    return Table(f"{metric} and speaker similarity", header, rows, note)


def sound_tables(systems: list[SystemScore]) -> list[Table]:
    """Return a table a set: voice, tempo, pitch, noise, whether speech ends; references first."""
    names = list(systems[0].speech)
    return [_sound_table(systems, name, tts.NOTE if name == names[0] else "") for name in names]


def _sound_table(systems: list[SystemScore], name: str, note: str) -> Table:
    first = systems[0]
    sounds = [system.speech[name].sound for system in systems]
    rest = [m for m in tts.METRICS if m != SIMILARITY and any(sound[m].known for sound in sounds)]
    header = ["system", "utts", tts.METRICS[SIMILARITY].title, f"- {first.label}"]
    rows = []
    for system in sorted(systems, key=lambda s: not s.is_reference):
        score = system.speech[name]
        voice, before = score.sound[SIMILARITY], first.speech[name].sound[SIMILARITY]
        rows.append(
            [
                system.label,
                str(score.summary["utterances"]),
                with_interval(voice.value, voice.interval, 1, factor=1) if voice.known else DASH,
                "" if system is first else _voice_difference(voice, before),
                *(_number(score.sound[metric]) for metric in rest),
            ]
        )
    header += [tts.METRICS[metric].title for metric in rest]
    return Table(f"Speech: {name}", header, rows, note)


def _voice_difference(one: Ratio, other: Ratio) -> str:
    if not (one.known and other.known):
        return DASH
    gap = one - other
    return with_interval(gap.value, gap.interval, 1, "+", 1) + "*" * gap.significant


def _number(ratio: Ratio) -> str:
    return f"{ratio.value:.1f}" if ratio.known else DASH
