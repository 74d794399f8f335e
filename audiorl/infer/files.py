"""Recordings to text, by whatever model there is: no data directory, no stages."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from audiorl.config import Config, load_config
from audiorl.data.audio import audio_info
from audiorl.data.utterance import Utterance
from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer.transcribe import asked, transcribe
from audiorl.infer.windows import join, windows
from audiorl.models.families.pretrained import pretrained_family
from audiorl.models.policy import Policy, find_policy, load_policy
from audiorl.models.settings import FILE
from audiorl.runtime.device import pick_device

SUFFIX_OF = {"text": ".txt", "json": ".json", "srt": ".srt"}
MOST_SECONDS = 30.0  # of a window, unless the config or the user says otherwise
WINDOW_TOKENS = 400  # of a window's text by a pretrained model, which has no config here


@dataclass(frozen=True)
class Segment:
    """Stretch of a recording with its text."""

    start: float  # s
    end: float  # s
    text: str


@dataclass(frozen=True)
class Transcript:
    """Text of a file, as a whole and by segment."""

    file: str
    seconds: float
    text: str
    segments: list[Segment]


def open_model(name: str | Path) -> tuple[Policy, Config]:
    """Return a model and the config that it is used with.

    `name`: an experiment or an unpacked system, the model folder of one, or the folder or hub name
    of a pretrained recogniser. Raises UserError if it is none of these.
    """
    folder = Path(name)
    kept = folder / FILE
    config = load_config(kept) if (folder / "model").is_dir() and kept.is_file() else Config()
    device = str(pick_device(config.device))
    for own in (folder / "model", folder):
        if (own / FILE).is_file():
            return load_policy(own, device), config
    config.model.pretrained = str(name)
    config.decode.max_completion_length = WINDOW_TOKENS
    family = find_policy(pretrained_family(str(name)))
    return family.create(config, ()).to(device).eval(), config


def transcribe_files(
    model: Policy, config: Config, files: Sequence[str], window: float = 0.0
) -> list[Transcript]:
    """Return the transcripts of audio files, each once, decoded as the config's `decode` asks.

    The engine is always the policy itself: any other needs an environment of its own.
    Recordings longer than `window` seconds (0: the config's, or 30) become several segments, which
    end at pauses. Raises UserError for a file that is no audio, and for a model that only speaks.
    """
    if model.task != "asr":
        raise UserError("--model: it speaks and does not listen; run audiorl.bin.speak with it.")
    heard = [_recording(file) for file in dict.fromkeys(files)]
    most = window or config.decode.window_seconds or min(MOST_SECONDS, model.seconds[1])
    parts = windows(heard, most)
    cut = [part for own in parts.values() for part in own]
    model.refuse_unfit(cut, "--model")
    found = transcribe(PolicyEngine(model), cut, **asked(config))
    whole = join(parts, found)
    return [
        Transcript(
            u.id,
            round(u.duration, 3),
            whole[u.id][0].text.strip(),
            [
                Segment(
                    round(part.start, 3),
                    round(part.start + part.duration, 3),
                    found[part.id][0].text.strip(),
                )
                for part in parts[u.id]
            ],
        )
        for u in heard
    ]


def _recording(file: str) -> Utterance:
    path = os.path.abspath(file)
    duration = audio_info(path).duration
    if not duration:
        raise UserError(f"{file} has no samples; leave it out.")
    return Utterance(file, path, "", "", duration=duration)


def shown(transcript: Transcript, form: str) -> str:
    """Return a transcript as text, as a line of JSON, or as subtitles (SubRip); see SUFFIX_OF."""
    if form == "text":
        return transcript.text
    if form == "json":
        return json.dumps(asdict(transcript), ensure_ascii=False)
    said = [segment for segment in transcript.segments if segment.text]
    return "\n".join(
        f"{number}\n{_clock(one.start)} --> {_clock(one.end)}\n{one.text}\n"
        for number, one in enumerate(said, start=1)
    )


def _clock(seconds: float) -> str:
    whole, milliseconds = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02},{milliseconds:03}"


def output_names(files: Iterable[str], out: Path, form: str) -> dict[str, Path]:
    """Return the file in `out` for each transcript; UserError where two would be one."""
    names = {file: out / f"{Path(file).stem}{SUFFIX_OF[form]}" for file in dict.fromkeys(files)}
    for file, path in names.items():
        if other := next((f for f, p in names.items() if p == path and f != file), None):
            raise UserError(f"{file} and {other} would both be {path}; rename one of them.")
    return names
