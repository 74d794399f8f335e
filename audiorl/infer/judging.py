"""Stage 7 of synthesis: a judge and instruments hear every synthesised set.

Reads decode_<name>/<set>/wav.scp of a system and the texts, speakers and recordings of dump/<set>;
writes judged.json beside wav.scp, unless waves, recordings and judge are as they were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import audiorl
from audiorl.config.schema import Config
from audiorl.config.whisper import WhisperOptions
from audiorl.data.audio import audio_digests
from audiorl.data.tables import read_table
from audiorl.data.utterance import Utterance, absolute_audio, read_utterances
from audiorl.errors import UserError
from audiorl.infer.hearing import WaveJudge, heard, load_judge, weights_file
from audiorl.infer.instruments import Instruments
from audiorl.infer.likeness import Likeness, samples_of, timed
from audiorl.runtime import ranks
from audiorl.runtime.batching import shown_batches
from audiorl.runtime.stamps import Stamp
from audiorl.score.hypotheses import check_ids
from audiorl.score.sound import measure, spectral_distance, speech_span
from audiorl.score.tts import JUDGED, Judged, write_judged

COMPARED_RECORDINGS = 20  # of a speaker, from the train set
JUDGING = 2  # of what is measured; another number, and all is measured again


def judge_systems(folder: Path, exps: Iterable[Path], dump: Path, cfg: Config, device: str) -> None:
    """Write judged.json of every set of every system by the judge at `folder` (`load_judge`).

    What is up to date is left.
    """
    weights, judge = weights_file(folder), None
    asked = {"prompt": cfg.llm.prompt, "whisper": asdict(cfg.whisper)}  # of a pretrained one
    if asked == {"prompt": "", "whisper": asdict(WhisperOptions())}:
        asked = {}
    instruments = Instruments(cfg, device)
    for name in cfg.data.test:
        texts = read_utterances(dump / name, texts_alone=True)
        recordings, natural = _recordings(texts, dump / cfg.data.train), None
        for exp in exps:
            out = exp / f"decode_{cfg.decode.name}" / name
            waves = _synthesised(out, texts, dump / name)
            inputs = _made_from(waves, [*texts, *recordings])
            instruments.measure(out, inputs, waves, texts, recordings)
            version = {"audiorl": audiorl.__version__, "judging": JUDGING, **asked}
            stamp = Stamp(out / JUDGED, version, {**inputs, "judge": weights})
            if stamp.is_current(out / JUDGED):
                continue
            judge = judge or load_judge(folder, device, cfg)
            seconds = cfg.decode.batch_seconds
            natural = natural or _Natural(judge, texts, recordings, seconds, str(dump / name))
            judged = _judge(judge, waves, natural, seconds, str(out))
            write_judged(stamp, judged, str(folder))


def _recordings(utterances: Sequence[Utterance], train: Path) -> list[Utterance]:
    """A set's own recordings and prompts and, of speakers with less than two, those of training."""
    own = {u.id: u for u in utterances if u.audio}
    own |= {u.prompt.id: u.prompt for u in utterances if u.prompt}
    counts = Counter(u.speaker for u in own.values())
    lacking = {u.speaker for u in utterances if counts[u.speaker] < 2 and u.prompt is None}
    theirs: dict[str, list[Utterance]] = {speaker: [] for speaker in sorted(lacking)}
    for u in read_utterances(train) if lacking and train.exists() else []:
        if u.speaker in lacking and u.id not in own:
            theirs[u.speaker].append(u)
    return [*own.values(), *(u for listed in theirs.values() for u in listed[:COMPARED_RECORDINGS])]


class _Natural:
    """Natural recordings that a set's synthesised utterances are compared with."""

    def __init__(
        self,
        judge: WaveJudge,
        utterances: Sequence[Utterance],
        recordings: Sequence[Utterance],
        batch_seconds: float,
        desc: str,
    ) -> None:
        texts = {u.id for u in utterances}
        self.recordings = {u.id: timed(u) for u in recordings if u.id in texts}
        self.speech_seconds: dict[str, float] = {}
        self.likeness = Likeness(utterances)
        for batch in shown_batches(desc, [timed(u) for u in recordings], batch_seconds):
            waves = [samples_of(u, judge.sample_rate) for u in batch]
            for u, wave, voice in zip(batch, waves, _voices(judge, waves), strict=True):
                start, end = speech_span(wave, judge.sample_rate)
                self.speech_seconds[u.id] = (end - start) / judge.sample_rate
                self.likeness.add(u, voice)


def _judge(
    judge: WaveJudge,
    waves: list[Utterance],
    natural: _Natural,
    batch_seconds: float,
    desc: str,
) -> dict[str, Judged]:
    judged = {}
    for batch in ranks.dealt(shown_batches(desc, waves, batch_seconds)):
        samples = [samples_of(u, judge.sample_rate) for u in batch]
        rows = zip(batch, samples, heard(judge, samples), _voices(judge, samples), strict=True)
        for u, wave, text, voice in rows:
            judged[u.id] = _measure(u, wave, text, voice, natural, judge.sample_rate)
    return dict(sorted(ranks.merged(judged).items()))


def _measure(
    u: Utterance, wave: np.ndarray, text: str, voice: Tensor | None, natural: _Natural, rate: int
) -> Judged:
    own, distance = natural.recordings.get(u.id), None
    if own and own.audio != u.audio:  # a recording has no distance to itself
        distance = spectral_distance(wave, samples_of(own, rate), rate)
    return Judged(
        heard=" ".join(text.split()),
        natural_seconds=natural.speech_seconds.get(u.id),
        similarity=natural.likeness.own(u, voice),
        others=natural.likeness.others(u, voice),
        distance=distance,
        **asdict(measure(wave, rate)),
    )


def _voices(judge: WaveJudge, samples: list[np.ndarray]) -> list[Tensor | None]:
    voices = judge.speaker([torch.from_numpy(w) for w in samples if len(w)])
    found = iter([] if voices is None else voices.cpu())
    return [next(found, None) if len(wave) else None for wave in samples]


def _synthesised(folder: Path, utterances: list[Utterance], data: Path) -> list[Utterance]:
    path = folder / "wav.scp"
    if not path.exists():
        raise UserError(f"{path} does not exist; synthesise first (stage 6).")
    audio = absolute_audio(path, read_table(path))
    check_ids(path, audio, [u.id for u in utterances], data)
    return [
        timed(replace(u, audio=audio[u.id], start=0.0, end=None, duration=None, audio_hash=""))
        if audio[u.id] != u.audio
        else timed(u)
        for u in utterances
    ]


def _made_from(waves: list[Utterance], natural: Sequence[Utterance]) -> dict[str, object]:
    """Return the waves, and the texts and recordings beside them, as inputs of a stamp."""
    inputs = {f"texts/{u.id}": [u.text, u.speaker, u.start, u.end, u.duration] for u in natural}
    inputs |= {f"prompts/{u.id}": u.prompt.id for u in natural if u.prompt}
    for kind, utterances in (("wav", waves), ("recordings", natural)):
        found = audio_digests({u.id: u.audio for u in utterances if u.audio})
        inputs |= {f"{kind}/{name}": content for name, content in found.items()}
    return inputs
