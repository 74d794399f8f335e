"""The files that scoring leaves beside the hypotheses.

<set>/result.json   all numbers (rates are fractions)
<set>/result.txt    for reading: summary, confusions, every utterance with errors, aligned
<set>/per_utt.tsv   one line an utterance; words, sub, del, ins are in the main unit, a failure
                    is 0 or 1; `metrics` says which numbers the columns add up to; of synthesis
                    `tts` has some more
<set>/ref.trn hyp.trn   sclite's format, in the main unit
result.json         all sets, the pooled numbers, and the comparison with the first system
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from audiorl.errors import UserError
from audiorl.runtime.files import atomic_write, read_json, remove_leftovers, write_json
from audiorl.score import failures, tts
from audiorl.score.asr import SetScore, SystemScore
from audiorl.score.metrics import BIASED, ERROR_RATES
from audiorl.score.scored import ScoredUtterance, units_of
from audiorl.text.align import Alignment, Op

SET_FILES = ("result.txt", "per_utt.tsv", "ref.trn", "hyp.trn", "result.json")
LINE = 100  # columns of aligned text
MOST_FREQUENT = 20
FIELDS = (
    "id source speaker snr duration ref hyp words sub del ins wer cer chars char_errors".split()
)
FIELDS += "word_units word_errors".split()  # between spaces; `words` are of the main error rate
FIELDS += "output words_output signs_alone".split()
FIELDS += "output_words keywords_said keywords_heard keyword_hits".split()
FIELDS += "biased_words biased_errors unbiased_words unbiased_errors".split()
FIELDS += ["cased", "punctuated", "formatted_words", "formatted_errors"]  # as written
FIELDS += failures.NAMES


def write_system(system: SystemScore, unit: str, first: SystemScore) -> bool:
    """Write the results of a system that have changed; return whether any had."""
    remove_leftovers(system.folder.rglob(".*.tmp"))
    changed = False
    for name, score in system.sets.items():
        folder = system.folder / name
        if not _is_current(folder, score.summary["inputs"], SET_FILES):
            write_set(folder, score, unit)
            changed = True
    inputs = [system.label, first.label]
    inputs += [score.summary["inputs"] for s in (system, first) for score in s.sets.values()]
    summary = {
        "inputs": hashlib.sha256("".join(inputs).encode()).hexdigest(),
        "system": system.label,
        "task": "tts" if system.pooled.utterances[0].judged else "asr",
        "scoring": asdict(system.scoring),
        "sets": {name: score.summary for name, score in system.sets.items()},
        "pooled": system.pooled.summary,
    }
    if system is not first:
        compared = {name: comparison.as_json() for name, comparison in system.against.items()}
        summary["against"] = {"system": first.label, "sets": compared}
    if not _is_current(system.folder, summary["inputs"], ("result.json",)):
        write_json(system.folder / "result.json", summary)
        changed = True
    return changed


def read_result(folder: Path) -> dict:
    """Return result.json of exp/decode_<name>; raise UserError when it is missing or older."""
    path, again = folder / "result.json", f"score {folder} (stage 7)"
    result = read_json(path, again)
    if not {"task", "scoring", "sets"} <= result.keys():
        raise UserError(f"{path} is of an older version; {again}.")
    return result


def _is_current(folder: Path, inputs: str, names: Iterable[str]) -> bool:
    if not all((folder / name).exists() for name in names):
        return False
    try:
        return read_json(folder / "result.json", "").get("inputs") == inputs
    except UserError:
        return False  # not one of ours: write it again


def write_set(folder: Path, score: SetScore, unit: str) -> None:
    """Write the files of a set."""
    with atomic_write(folder / "result.txt") as stream:
        stream.write("\n".join(_report(score, unit)) + "\n")
    with atomic_write(folder / "per_utt.tsv") as stream:
        sound = tts.SOUND_COLUMNS if score.utterances[0].judged else []
        stream.write("\t".join([*FIELDS, *sound]) + "\n")
        stream.writelines("\t".join(_row(u)) + "\n" for u in score.utterances)
    for name in ("ref", "hyp"):
        with atomic_write(folder / f"{name}.trn") as stream:
            for u in score.utterances:
                words = [getattr(op, name) for op in u.alignment.ops if getattr(op, name)]
                label = "-".join(filter(None, [u.utterance.speaker, u.utterance.id]))
                stream.write(" ".join([*words, f"({label})"]) + "\n")
    # Last, because its hash says that the others are up to date.
    write_json(folder / "result.json", score.summary)


def _row(u: ScoredUtterance) -> list[str]:
    counts, chars, words = u.alignment.counts, u.counts["char"], u.counts["word"]
    keywords = u.keywords
    duration = "" if u.utterance.duration is None else f"{u.utterance.duration:.3f}"
    main = (counts.units, counts.substitutions, counts.deletions, counts.insertions)
    output_words = f"{u.output_words:g}"
    sound = u.sound_columns if u.judged else {}
    keyword_counts = (keywords.units, keywords.hits + keywords.insertions, keywords.hits)
    return [
        u.utterance.id,
        u.source,
        u.utterance.speaker,
        u.utterance.tags.get("snr", ""),
        duration,
        u.ref,
        u.hyp,
        *map(str, main),
        f"{words.rate:.4f}",
        f"{chars.rate:.4f}",
        *map(str, (chars.units, chars.errors, words.units, words.errors)),
        *(str(int(value)) for name, value in u.on_silence.items() if name != "unfinished"),
        *map(str, (output_words, *keyword_counts)),
        *(str(number) for side in u.biased for number in (side.units, side.errors)),
        *map(str, map(int, (u.formatting.cased, u.formatting.punctuated))),
        *map(str, (u.formatting.counts.units, u.formatting.counts.errors)),
        *(str(int(failure in u.flags)) for failure in failures.NAMES),
        *(f"{sound[name]:.6g}" for name in tts.SOUND_COLUMNS if sound),
    ]


def _report(score: SetScore, unit: str) -> list[str]:
    summary = score.summary
    if not score.speech:
        outputs = [f"{u.utterance.id}  {u.hyp}" for u in score.utterances if u.hyp]
        return [
            f"{score.name}: no speech in {summary['utterances']} utterances",
            f"outputs: {summary['non_empty']} ({100 * summary['non_empty_rate']:.1f} %): "
            f"{summary['words_output']} in words, {summary['signs_alone']} in signs alone; "
            f"{summary['unfinished']} without an end; "
            f"{summary['words']:.0f} words, {summary['words_per_minute'] or 0:.1f} a minute",
            *(["", "What was output", *outputs] if outputs else []),
        ]
    ops = [op for u in score.utterances for op in u.alignment.ops]
    lines = [f"{score.name}: {summary['utterances']} utterances", *summary_lines(score, unit)]
    lines += _most_frequent("Substitutions (reference -> hypothesis)", ops, "S")
    lines += _most_frequent("Deletions", ops, "D")
    lines += _most_frequent("Insertions", ops, "I")
    return [*lines, "", *aligned_lines(score)]


def summary_lines(score: SetScore, unit: str) -> list[str]:
    """Return the numbers of a set with speech, a line each."""
    summary = score.summary
    lines = [_kaldi_line(ERROR_RATES[unit], summary) for unit in units_of(unit)]
    if keywords := summary.get("keywords"):
        lines += [_kaldi_line(metric, keywords) for metric in BIASED.values()]
        lines += [
            f"keywords: precision {keywords['precision']:.3f}, recall {keywords['recall']:.3f}, "
            f"F1 {keywords['f1']:.3f} ({keywords['hits']} of {keywords['reference']} recognised)"
        ]
    if written := summary.get("formatting"):
        lines += [
            f"as written (case and punctuation count): {_kaldi_line('WER', written)}; "
            f"{100 * written['cased']:.1f} % begin with a capital, "
            f"{100 * written['punctuated']:.1f} % end like a sentence"
        ]
    failures = ", ".join(f"{count} {name}" for name, count in summary["failures"].items())
    lines += [f"failures: {failures}"]
    for name, found in summary.get("sound", {}).items():
        low, high = found["interval"]
        lines.append(f"{tts.METRICS[name].title}: {found['value']:.2f} [{low:.2f}, {high:.2f}]")
    return lines


def aligned_lines(score: SetScore) -> list[str]:
    """Return each utterance with errors, aligned as sclite does; those with most errors first."""
    wrong = [u for u in score.utterances if u.errors]
    lines = [f"Utterances with errors: {len(wrong)} of {len(score.utterances)}"]
    for u in sorted(wrong, key=lambda u: (-u.errors, u.utterance.id)):
        counts = u.alignment.counts
        flags = f"  [{', '.join(u.flags)}]" if u.flags else ""
        lines += ["", f"{u.utterance.id}  {counts.errors} errors in {counts.units}{flags}"]
        lines += _aligned(u.alignment)
    return lines


def _kaldi_line(metric: str, summary: dict) -> str:
    """Kaldi's line: %WER 7.48 [ 7839 / 104765, 285 ins, 454 del, 7100 sub ], and more."""
    rate = summary[metric.lower().replace("-", "_")]
    low, high = (100 * bound for bound in rate["interval"])
    return (
        f"%{metric} {100 * rate['rate']:.2f} [ {rate['errors']} / {rate['units']}, "
        f"{rate['insertions']} ins, {rate['deletions']} del, {rate['substitutions']} sub ] "
        f"95 % interval [{low:.2f}, {high:.2f}], "
        f"%SER {100 * rate['sentence_error_rate']:.2f}"
    )


def _most_frequent(title: str, ops: list[Op], kind: str) -> list[str]:
    counts = Counter((op.ref, op.hyp) for op in ops if op.kind == kind)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_FREQUENT]
    lines = [f"{count:6d}  {' -> '.join(unit for unit in pair if unit)}" for pair, count in ranked]
    return ["", f"{title}: {counts.total()}", *lines]


def _aligned(alignment: Alignment) -> list[str]:
    rows: list[list[str]] = [[], [], []]
    lines: list[str] = []
    width = 0
    for op in alignment.ops:
        gap = "*" * max(_width(op.ref), _width(op.hyp))
        cells = (op.ref or gap, op.hyp or gap, op.kind.replace("=", ""))
        column = max(map(_width, cells))
        if width and width + column + 6 > LINE:
            lines += _flush(rows)
            width = 0
        width += column + 1
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell + " " * (column - _width(cell)))
    return lines + _flush(rows)


def _flush(rows: list[list[str]]) -> list[str]:
    heads = ("REF:  ", "HYP:  ", "EVAL: ")
    lines = [(head + " ".join(row)).rstrip() for head, row in zip(heads, rows, strict=True)]
    for row in rows:
        row.clear()
    return lines


def _width(text: str) -> int:
    # Columns of a terminal: Chinese characters take two.
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
