"""Tables of synthesis: systems as rows, as in Table 2 of arXiv 2509.18569."""

from __future__ import annotations

from audiorl.report.tables import Table, with_interval
from audiorl.score.asr import METRICS, SystemScore
from audiorl.score.ratio import Ratio
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


def sound_tables(systems: list[SystemScore]) -> list[Table]:
    """One table a set: voice, tempo, pitch, noise, and whether speech ends; references first."""
    names = list(systems[0].speech)
    return [_sound_table(systems, name, NOTE if name == names[0] else "") for name in names]


def _sound_table(systems: list[SystemScore], name: str, note: str) -> Table:
    first = systems[0]
    rest = [metric for metric in SOUND if metric != SIMILARITY]
    header = ["system", "utts", SOUND[SIMILARITY].title, f"- {first.label}"]
    rows = []
    for system in sorted(systems, key=lambda s: not s.is_reference):
        score = system.speech[name]
        voice, before = score.sound[SIMILARITY], first.speech[name].sound[SIMILARITY]
        rows.append(
            [
                system.label,
                str(score.summary["utterances"]),
                with_interval(voice.value, voice.interval, 1, factor=1) if voice.known else UNKNOWN,
                "" if system is first else _difference(voice, before),
                *(_number(score.sound[metric]) for metric in rest),
            ]
        )
    header += [SOUND[metric].title for metric in rest]
    return Table(f"Speech: {name}", header, rows, note)


def _difference(one: Ratio, other: Ratio) -> str:
    if not (one.known and other.known):
        return UNKNOWN
    gap = one - other
    return with_interval(gap.value, gap.interval, 1, "+", 1) + "*" * gap.significant


def _number(ratio: Ratio) -> str:
    return f"{ratio.value:.1f}" if ratio.known else UNKNOWN
