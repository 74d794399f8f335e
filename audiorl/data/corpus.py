"""Stage 1: steps of data preparation that recipes share, after they have found audio and texts.

A recipe's local/prepare.py knows the layout of its corpus. Here audio is joined with transcripts,
the parts are counted against the official numbers, held-out sets that a partial corpus lacks are
carved out of its training data (recognition: voices that are not in training; synthesis: sentences
of voices that are), and sets are written if they changed. Utterances that are left out are counted
and named. A recipe that makes its audio claims the folder for it.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from audiorl.data.data_dir import DataDir
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.runtime.files import read_json, remove_leftovers, write_json

SHOWN = 5  # ids named of those left out
ONE_IN = 20  # one in so many goes to a set that is carved out
MOST_HELD_OUT = 500  # utterances of a set of new sentences


def join(
    part: str,
    audio: Mapping[str, Path],
    texts: Mapping[str, str],
    speaker: Callable[[str], str],
) -> list[Utterance]:
    """Return the utterances of a part that have both audio and a transcript, sorted by id.

    Prints how many have only one of them, or an empty transcript, and the first of their ids.
    """
    without_text = sorted(audio.keys() - texts.keys())
    without_audio = sorted(texts.keys() - audio.keys())
    both = sorted(audio.keys() & texts.keys())
    empty = [name for name in both if not texts[name].strip()]
    for what, names in (
        ("recordings without a transcript", without_text),
        ("transcripts without audio", without_audio),
        ("empty transcripts", empty),
    ):
        if names:
            print(f"{part}: {len(names):,} {what} left out: {_first(names)}")
    kept = sorted(set(both) - set(empty))
    print(f"{part}: kept {len(kept):,} of {len(audio.keys() | texts.keys()):,} utterances")
    return [
        Utterance(name, os.path.abspath(audio[name]), " ".join(texts[name].split()), speaker(name))
        for name in kept
    ]


def _first(names: Sequence[str]) -> str:
    """Return some names and the number of the others."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def compare_counts(parts: Mapping[str, Sequence[Utterance]], official: Mapping[str, int]) -> None:
    """Print a table: number of utterances in each part beside the official number."""
    width = max(map(len, official))
    print(f"{'part':{width}}  utterances    official")
    for part, expected in official.items():
        count = len(parts.get(part, ()))
        state = "missing" if not count else "complete" if count == expected else "partial"
        state = "more than official: mixed with another corpus?" if count > expected else state
        print(f"{part:{width}}  {count:10,}  {expected:10,}  {state}")


def carve(
    train: Sequence[Utterance],
    names: Sequence[str],
    voice: Callable[[Utterance], str] = lambda utterance: utterance.speaker,
) -> tuple[dict[str, list[Utterance]], list[Utterance]]:
    """Take one in 20 of `train` for each of `names`; return (these sets, the rest).

    Deterministic. Whole voices are taken if there are 20 of them, single utterances otherwise.
    Prints the choice, because results on such sets cannot be compared with published ones.
    Raises UserError below 20 utterances.
    """
    if not names:
        return {}, list(train)
    by_voice: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in sorted(train, key=lambda utterance: utterance.id):
        by_voice[voice(utterance)].append(utterance)
    groups, what = list(by_voice.values()), "the voices, with all that they say"
    if len(groups) < ONE_IN:
        groups = [[utterance] for group in groups for utterance in group]
        what = f"the utterances ({len(by_voice)} voices are too few to hold some out)"
    if len(groups) < ONE_IN or len(names) >= ONE_IN:
        raise UserError(
            f"the corpus lacks {', '.join(names)}, and its {len(groups)} utterances for training "
            f"are too few to take them from ({ONE_IN} at least); get the missing parts."
        )
    sets = {
        name: [utterance for group in groups[offset::ONE_IN] for utterance in group]
        for offset, name in enumerate(names)
    }
    rest = [u for i, group in enumerate(groups) if i % ONE_IN >= len(names) for u in group]
    sizes = ", ".join(f"{name} {len(found):,}" for name, found in sets.items())
    print(
        f"NOT OFFICIAL: {sizes} utterances. The corpus lacks these sets; each is one in {ONE_IN} "
        f"of {what}, taken out of the training data. Compare their scores with nobody's."
    )
    return sets, rest


def hold_out(
    train: Sequence[Utterance], names: Sequence[str]
) -> tuple[dict[str, list[Utterance]], list[Utterance]]:
    """Take sentences of the voices of `train` for each of `names`; return (these sets, the rest).

    For synthesis: every voice of these sets stays in training, and the utterances, always the same,
    are spread over all who say more than there are sets: one in 20, at most 500 a set. Texts with a
    rare character stay in the rest, if others are enough. Where hardly anyone says more, so do all
    utterances, and this is printed: neither a voice nor a character that training lacks can be
    spoken. Raises UserError below 20 utterances.
    """
    if not names:
        return {}, list(train)
    spoken = Counter(utterance.speaker for utterance in train)
    ordered = sorted(train, key=lambda utterance: utterance.id)
    pool = [utterance for utterance in ordered if spoken[utterance.speaker] > len(names)]
    if few := len(pool) < ONE_IN:
        pool = ordered
    written = Counter(character for utterance in train for character in set(utterance.text))
    common = [u for u in pool if all(written[character] > len(names) for character in u.text)]
    if len(common) >= ONE_IN:
        pool = common
    if len(pool) < ONE_IN or len(names) >= ONE_IN:
        raise UserError(
            f"the corpus has {len(pool)} utterances for training, too few to take "
            f"{', '.join(names)} from them ({ONE_IN} at least); get more of it."
        )
    count = min(MOST_HELD_OUT, len(pool) // ONE_IN)
    step = len(pool) // count
    sets = {name: pool[i : i + count * step : step] for i, name in enumerate(names)}
    sizes = ", ".join(f"{name} {len(found):,}" for name, found in sets.items())
    if few:
        print(
            f"NOT HELD OUT: {sizes} utterances are training data too, as hardly anyone says more "
            "and their voices would be lost. Compare their scores with nobody's."
        )
        return sets, ordered
    print(f"held out of the training data: {sizes} utterances, of its voices")
    held_out = {utterance.id for found in sets.values() for utterance in found}
    return sets, [utterance for utterance in ordered if utterance.id not in held_out]


def readable(
    sets: Mapping[str, Sequence[Utterance]], train: str = "train"
) -> dict[str, list[Utterance]]:
    """Return the sets without utterances that have characters which the training set lacks.

    For synthesis: a model cannot speak unknown characters. Prints the ids that are left out.
    """
    known = set().union(*(u.text for u in sets[train]))
    kept = {}
    for name, utterances in sets.items():
        kept[name] = [u for u in utterances if known.issuperset(u.text)]
        strange = [(u.id, set(u.text) - known) for u in utterances]
        odd = [f"{uid} ({' '.join(sorted(lacked))})" for uid, lacked in strange if lacked]
        if odd:
            print(
                f"{name}: {len(odd):,} utterances with characters that {train} lacks left out: "
                f"{_first(odd)}"
            )
    return kept


def write_set(
    out: Path,
    utterances: Iterable[Utterance],
    genders: Mapping[str, str],
    prompts: bool = False,
) -> None:
    """Write the Kaldi data directory `out`, unless it has this content already.

    Each tag of the utterances becomes a file utt2<tag>, and their keywords utt2keywords.
    genders: speaker -> m or f; spk2gender is written when all speakers of the set have one.
    prompts: write utt2prompt, too: another utterance of each one's speaker, the one before it.
    Raises UserError when there are no utterances.
    """
    listed = list(utterances)
    if not listed:
        raise UserError(f"{out} would have no utterances; read above what is left out, and why.")
    tables = {
        "wav.scp": {u.id: u.audio for u in listed},
        "text": {u.id: u.text for u in listed},
        "utt2spk": {u.id: u.speaker for u in listed},
    }
    for tag in {tag for u in listed for tag in u.tags}:
        tables[f"utt2{tag}"] = {u.id: u.tags[tag] for u in listed if tag in u.tags}
    if keywords := {u.id: ";".join(u.keywords) for u in listed if u.keywords}:
        tables["utt2keywords"] = keywords
    speakers = sorted(set(tables["utt2spk"].values()))
    known = {speaker: genders[speaker] for speaker in speakers if speaker in genders}
    if len(known) == len(speakers):
        tables["spk2gender"] = known
    elif known:
        print(f"{out}: {len(speakers) - len(known)} speakers have no gender; no spk2gender.")
    made = DataDir(out.parent, tables)
    if prompts:
        several = [names for names in made.speakers().values() if len(names) > 1]
        pairs = [(name, names[i - 1]) for names in several for i, name in enumerate(names)]
        made.tables["utt2prompt"] = dict(pairs)
    write_changed(out, made)


def write_changed(out: Path, made: DataDir) -> None:
    """Write the data directory `out`, unless it has this content already."""
    made.tables["spk2utt"] = made.spk2utt()
    size = f"{len(made.utterances):,} utterances, {len(made.speakers()):,} speakers"
    if (out / "utt2spk").exists() and DataDir.read(out).tables == made.tables:
        print(f"{out}: up to date, {size}")
        return
    made.write(out)
    print(f"{out}: {size}")


def claim(out: Path, origin: dict[str, object]) -> None:
    """Write the origin of the corpus into `out`; raise UserError if it holds another corpus."""
    remove_leftovers(out.rglob(".*.tmp"))
    note = out / "corpus.json"
    if not note.exists():
        write_json(note, origin)
        return
    found = read_json(note, f"remove {out} first")
    for key, value in origin.items():
        if found.get(key) != value:
            raise UserError(
                f"{note}: this corpus was made with {key} {found.get(key)}, not {value}; "
                f"give another --out, or remove {out} to make it anew."
            )
