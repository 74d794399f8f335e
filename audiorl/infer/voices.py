"""Voices of utterances: of their prompts, or of the recordings of their speakers; on disk, too.

A packed system has the vectors of its speakers in the place of their recordings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from audiorl.data.audio import read_audio
from audiorl.data.speech_tokens import check_codec
from audiorl.data.tables import read_table, scan_table, write_table
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.models.voice import Voice, Voices, prompt_key

if TYPE_CHECKING:
    from torch import Tensor

    from audiorl.models.codec import Codec
    from audiorl.models.speech_lm import SpeechLM

RECORDINGS = 20  # of a speaker, at most, whose vectors the mean is of
VOICES = "spk2vector"  # in Kaldi's text form of vectors: `<speaker> 0.25 -1.5 …`


def voices_of(
    codec: Codec,
    utterances: Iterable[Utterance],
    recordings: Iterable[Utterance],
    stored: Path | None = None,
) -> Voices:
    """Return the voice of each utterance: of its prompt, or else of its speaker.

    Speakers' voices come from `recordings`, or from the file `stored` (`read_voices`). UserError if
    somebody has none.
    """
    listed = list(utterances)
    speakers = sorted({u.speaker for u in listed if u.prompt is None})
    if stored is not None:
        vectors = read_voices(stored, speakers)
        found = {name: Voice(vector=vector) for name, vector in vectors.items()}
    else:
        found = speaker_voices(codec, recordings, speakers)
    return Voices(found, prompt_voices(codec, listed))


def recordings_for(utterances: Iterable[Utterance], train: Path) -> list[Utterance]:
    """Return the train set if some of the utterances have no prompt, whose speakers it has."""
    return read_utterances(train) if any(u.prompt is None for u in utterances) else []


def prompt_voices(codec: Codec, utterances: Iterable[Utterance]) -> dict[tuple, Voice]:
    """Return the voices of the utterances' prompts, each read once, by `prompt_key`."""
    import torch

    prompts = {prompt_key(u.prompt): u.prompt for u in utterances if u.prompt}
    with torch.no_grad():
        return {
            key: codec.prompt(torch.from_numpy(read_audio(p, codec.sample_rate)), p.text)
            for key, p in prompts.items()
        }


def meet_prompts(
    model: SpeechLM, folder: Path | None, utterances: Iterable[Utterance], device: str
) -> None:
    """Let a speech LM know the prompts of utterances, which the codec at `folder` reads.

    UserError if there are prompts and no codec, or another one than the LM's.
    """
    from audiorl.models.codec import codec_info, load_codec

    prompted = [u for u in utterances if u.prompt]
    if not prompted:
        return
    if folder is None:
        first = prompted[0].id
        raise UserError(f"{first} has a prompt, which a codec has to read; name it with --codec.")
    codec = load_codec(folder / "model", device)
    fix = "name the codec that the speech LM was trained on"
    check_codec(codec_info(codec), model.facts.codec, str(folder), "the speech LM", fix)
    model.meet(Voices({}, prompt_voices(codec, prompted)))


def speaker_voices(
    codec: Codec, recordings: Iterable[Utterance], speakers: Iterable[str]
) -> dict[str, Voice]:
    """Return each speaker's voice: the prompt of a first recording, the mean vector of the first.

    A codec whose tokens carry the voice needs none. UserError for somebody without recordings.
    """
    import torch

    found: dict[str, list[Utterance]] = {name: [] for name in sorted(set(speakers))}
    if codec.speaker_size == 0:
        return dict.fromkeys(found, Voice())
    for u in recordings:
        if u.speaker in found and len(found[u.speaker]) < RECORDINGS:
            found[u.speaker].append(u)
    voices = {}
    for name, theirs in found.items():
        if not theirs:
            raise UserError(
                f"speaker {name} has no recordings in the train set that the voice could come "
                "from; let one of its speakers say the texts, or give them prompts (utt2prompt)."
            )
        waves = [torch.from_numpy(read_audio(u, codec.sample_rate)) for u in theirs]
        with torch.no_grad():
            vector = codec.speaker(waves).mean(0)
            whole = codec.prompt(waves[0], theirs[0].text) if codec.continues_prompts else Voice()
        voices[name] = replace(whole, vector=vector)
    return voices


def write_voices(path: Path, voices: Mapping[str, Tensor]) -> None:
    """Write vectors [S] by speaker; reading gives the same bits."""
    rows = {name: " ".join(map(repr, vector.tolist())) for name, vector in voices.items()}
    write_table(path, rows)


def read_voices(path: Path, speakers: Iterable[str]) -> dict[str, Tensor]:
    """Return the vector [S] of each of `speakers`; UserError where there is none."""
    import torch

    rows = read_table(path)
    voices = {}
    for name in sorted(set(speakers)):
        if name not in rows:
            raise UserError(
                f"{path} has no vector of speaker {name}; let one of its speakers say the texts."
            )
        try:
            voices[name] = torch.tensor([float(number) for number in rows[name].split()])
        except ValueError as error:
            line = scan_table(path).lines[name]
            raise UserError(
                f"{path}:{line}: the vector of {name} is not all numbers; unpack the system again."
            ) from error
    return voices
