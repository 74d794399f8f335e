"""Tables of synthesis: systems as rows, as in Table 2 of arXiv 2509.18569."""

from __future__ import annotations

from audiorl.score.asr import METRICS, SystemScore
from audiorl.score.ratio import Ratio
from audiorl.score.tables import Table, difference, with_interval
from audiorl.score.tts import METRICS as SOUND
from audiorl.score.tts import NOTE

SIMILARITY = "similarity"
UNKNOWN = "-"


def systems_table(systems: list[SystemScore], unit: str) -> Table:
    """Error rate and speaker similarity of each system on each set; references first."""
    metric = METRICS[unit]
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


def sound_tables(systems: list[SystemScore], unit: str) -> list[Table]:
    """One table a set: errors with intervals and differences, voice, tempo, pitch, noise, ends."""
    return [_sound_table(systems, unit, name) for name in systems[0].speech]


def _sound_table(systems: list[SystemScore], unit: str, name: str) -> Table:
    first = systems[0]
    others = [metric for metric in ("CER", "WER") if metric != METRICS[unit]]
    header = ["system", "utterances", f"{METRICS[unit]} %", f"- {first.label}"]
    header += [f"{metric} %" for metric in others]
    header += [SOUND[SIMILARITY].title, f"- {first.label}"]
    rest = [metric for metric in SOUND if metric != SIMILARITY]
    header += [SOUND[metric].title for metric in rest] + ["empty"]
    rows = []
    for system in sorted(systems, key=lambda s: not s.is_reference):
        score = system.speech[name]
        rate, voice = score.summary[METRICS[unit].lower()], score.sound[SIMILARITY]
        changed, moved = "", ""
        if system is not first:
            changed = difference(system.against[name])
            moved = _difference(voice, first.speech[name].sound[SIMILARITY])
        rows.append(
            [
                system.label,
                str(score.summary["utterances"]),
                with_interval(rate["rate"], rate["interval"]),
                changed,
                *(f"{100 * score.summary[metric.lower()]['rate']:.2f}" for metric in others),
                with_interval(voice.value, voice.interval, 1, factor=1) if voice.known else UNKNOWN,
                moved,
                *(_number(score.sound[metric]) for metric in rest),
                str(score.summary["failures"]["empty"]),
            ]
        )
    note = f"With 95 % intervals; * when that of the paired difference excludes 0. {NOTE}"
    return Table(f"Synthesis: {name}", header, rows, note)


def _difference(one: Ratio, other: Ratio) -> str:
    if not (one.known and other.known):
        return UNKNOWN
    gap = one - other
    return with_interval(gap.value, gap.interval, 1, "+", 1) + "*" * gap.significant


def _number(ratio: Ratio) -> str:
    return f"{ratio.value:.1f}" if ratio.known else UNKNOWN
