"""The door of all that hears waves: a judge, an ear that rewards, a second system of stage 4.

One path names it: an experiment by train_judge or one of recognition, its folder model/, or a
pretrained recogniser (Whisper, Qwen3-ASR, ...) as transformers reads it, by folder or hub name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers.utils import cached_file

from audiorl.config import load_config
from audiorl.config.pretrained import is_hub_name
from audiorl.config.schema import Config
from audiorl.data.audio import read_audio, resample
from audiorl.data.utterance import Utterance
from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer.transcribe import greedy
from audiorl.infer.windows import join_texts
from audiorl.models import WEIGHTS
from audiorl.models.families.pretrained import NOT_NEEDED, pretrained_family
from audiorl.models.judge import LABELS, Judge
from audiorl.models.policy import find_policy, load_policy
from audiorl.models.recogniser import Recogniser
from audiorl.models.settings import FILE
from audiorl.runtime.batching import batches_by_seconds, shown_batches

MOST_TOKENS = 256  # of a transcript by a model that no recipe of ours goes with


class WaveJudge(Protocol):
    """A judge of speech: `audiorl.models.judge.Judge`, or a recogniser."""

    sample_rate: int

    def transcribe(self, waves: Sequence[Tensor]) -> list[str]: ...

    def speaker(self, waves: Sequence[Tensor]) -> Tensor | None:
        """Return vectors [B, S] of unit length; None if the judge does not know voices."""


class RecogniserJudge:
    """A recogniser as the judge; audio that is longer than it can hear is heard in pieces."""

    def __init__(self, model: Recogniser, max_length: int) -> None:
        """`max_length`: tokens of a transcript, or of a piece, at most."""
        self.model, self.engine = model, PolicyEngine(model)
        self.sample_rate = model.sample_rate
        self.max_length = max_length

    @torch.no_grad()
    def transcribe(self, waves: Sequence[Tensor]) -> list[str]:
        most = self.model.seconds[1] * self.sample_rate
        pieces = [w.split(int(most)) if len(w) > most else (w,) for w in waves]
        prefix = self.model.prefix(self.model.encode([p for own in pieces for p in own]))
        found = iter(greedy(self.engine, prefix, self.max_length))
        return [join_texts(next(found).text for _ in own) for own in pieces]

    def speaker(self, waves: Sequence[Tensor]) -> None:
        return None


def weights_file(path: Path) -> Path:
    """Return the weights of whoever `path` names, which may not be there."""
    if is_hub_name(path):
        names = (WEIGHTS, f"{WEIGHTS}.index.json")
        found = (cached_file(str(path), name, **NOT_NEEDED) for name in names)
        return Path(next(filter(None, found), path))
    return _model_folder(path) / WEIGHTS


def load_judge(path: Path, device: str = "cpu", config: Config | None = None) -> WaveJudge:
    """Return whoever hears at `path`.

    `config`: the recipe that asks. A pretrained recogniser takes its section whisper, and its
    `llm.prompt` if that is of synthesis, or of a policy of the same family. Raises UserError if
    there is no such model, or if it does not hear.
    """
    folder = _model_folder(path)
    if (folder / LABELS).exists():
        return Judge.load(folder, device)
    if is_hub_name(path):
        return _pretrained(str(path), device, config or Config())
    if not (folder / FILE).exists() and (folder / "config.json").exists():
        return _pretrained(str(folder), device, config or Config())
    model = load_policy(folder, device)
    if not isinstance(model, Recogniser):
        raise UserError(f"{path} is no recogniser and cannot judge; name exp/judge, or one of ASR.")
    recipe = path / FILE
    known = folder != path and recipe.exists()
    most = load_config(recipe).decode.max_completion_length if known else MOST_TOKENS
    return RecogniserJudge(model, most)


def transcribe_waves(
    judge: WaveJudge, waves: Sequence[Tensor], sample_rate: int, batch_seconds: float
) -> list[str]:
    """Return the texts of waves [S_i] of any rate, `batch_seconds` with padding at once."""
    samples = {str(place): np.asarray(wave) for place, wave in enumerate(waves)}
    if sample_rate != judge.sample_rate:
        samples = {n: resample(w, sample_rate, judge.sample_rate) for n, w in samples.items()}
    lengths = {name: len(wave) / judge.sample_rate for name, wave in samples.items()}
    places = [Utterance(n, "", "", "", duration=seconds) for n, seconds in lengths.items()]
    texts = {}
    for batch in batches_by_seconds(places, batch_seconds):
        found = heard(judge, [samples[u.id] for u in batch])
        texts |= {u.id: text for u, text in zip(batch, found, strict=True)}
    return [texts[name] for name in samples]


def transcribe_recordings(
    judge: WaveJudge, utterances: Sequence[Utterance], batch_seconds: float, desc: str
) -> dict[str, str]:
    """Return the text that is heard in each recording, by id."""
    texts = {}
    for batch in shown_batches(desc, utterances, batch_seconds):
        found = heard(judge, [read_audio(u, judge.sample_rate) for u in batch])
        texts |= {u.id: text for u, text in zip(batch, found, strict=True)}
    return texts


def heard(judge: WaveJudge, samples: list[np.ndarray]) -> list[str]:
    """Return the texts of waves [S_i] at the judge's rate; one without samples has none."""
    waves = [torch.from_numpy(w) for w in samples if len(w)]
    found = iter(judge.transcribe(waves) if waves else ())
    return [next(found) if len(wave) else "" for wave in samples]


def _model_folder(path: Path) -> Path:
    itself = any((path / name).is_file() for name in ("config.json", LABELS))
    return path if itself else path / "model"


def _pretrained(name: str, device: str, recipe: Config) -> RecogniserJudge:
    config, family = Config(), pretrained_family(name)
    config.model.pretrained, config.whisper = name, recipe.whisper
    # Of recognition the prompt is the policy's, and families do not share theirs.
    own = recipe.model.pretrained
    if recipe.speaks or (own and pretrained_family(own) == family):
        config.llm.prompt = recipe.llm.prompt
    model = find_policy(family).create(config, ())
    return RecogniserJudge(model.to(device).eval(), MOST_TOKENS)
