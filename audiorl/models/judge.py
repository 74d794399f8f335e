"""The independent judge of synthesis: the text of a wave, and its speaker.

It learns from natural recordings alone, and shares neither weights nor architecture with the models
that it judges: the codec has a Conformer, the reward model never sees a wave.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiorl.config.field import key
from audiorl.config.model import FrontendConfig
from audiorl.config.recognisers import JudgeShape
from audiorl.config.schema import Config
from audiorl.models.ctc import best_path, ctc_log_likelihood
from audiorl.models.encoder import Encoder
from audiorl.models.frontend import Frontend
from audiorl.models.settings import load_model, part_of, save_model
from audiorl.runtime.files import write_json
from audiorl.text.characters import Characters

LABELS = "labels.json"  # characters and speakers, in the order of the outputs
LABELS_A_FRAME = 2  # fast speech has more characters than there are frames of 40 ms
VECTOR_SIZE = 64  # of a speaker's vector
SCALE, MARGIN = 20.0, 0.2  # of the speakers' softmax
LEAST_SPREAD = 1e-4  # variance, under the root


@dataclass
class JudgeSettings:
    """Sections that a judge is made of."""

    kind: str = key("judge", "kind of model", choices=("judge",))
    sample_rate: int = key(16000, "Hz", ge=1)
    frontend: FrontendConfig = key(FrontendConfig, "features")
    judge: JudgeShape = key(JudgeShape, "sizes")

    @classmethod
    def of(cls, config: Config) -> JudgeSettings:
        """Return those of a recipe."""
        judge = part_of(config.judge, JudgeShape)
        return cls("judge", config.data.sample_rate, config.frontend, judge)


class VoiceNetwork(nn.Module):
    """Features [B, T, n_mels] to a vector of the speaker [B, S] of unit length.

    A small time-delay network with statistics pooling (x-vector, Snyder et al., ICASSP 2018).
    """

    def __init__(self, n_mels: int, width: int, size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv1d(n_mels, width, 5, padding="same"),
                nn.Conv1d(width, width, 3, dilation=2, padding="same"),
                nn.Conv1d(width, width, 3, dilation=3, padding="same"),
            ]
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.layers)
        self.projection = nn.Linear(2 * width, size)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        places = torch.arange(features.size(1), device=features.device)
        real = (places < lengths[:, None])[..., None]  # [B, T, 1]
        hidden = features * real  # padding is silent in each layer
        for layer, norm in zip(self.layers, self.norms, strict=True):
            hidden = norm(F.relu(layer(hidden.transpose(1, 2)).transpose(1, 2))) * real
        mean = hidden.sum(1) / lengths[:, None]  # [B, D]
        variance = ((hidden - mean[:, None]) ** 2 * real).sum(1) / lengths[:, None]
        pooled = torch.cat([mean, (variance + LEAST_SPREAD).sqrt()], dim=-1)
        return F.normalize(self.projection(pooled), dim=-1)


class Judge(nn.Module):
    """Waves to text, by CTC over characters on an E-Branchformer, and to vectors of speakers."""

    def __init__(
        self, settings: JudgeSettings, characters: Sequence[str], speakers: Sequence[str]
    ) -> None:
        super().__init__()
        self.settings = settings
        self.sample_rate = settings.sample_rate  # Hz
        self.characters = Characters(characters)
        self.speakers = list(speakers)
        judge, n_mels = settings.judge, settings.frontend.n_mels
        self.frontend = Frontend(settings.frontend, settings.sample_rate)
        self.encoder = Encoder(judge.encoder, n_mels)
        units = len(self.characters.symbols) + 1
        self.head = nn.Linear(judge.encoder.output_size, LABELS_A_FRAME * units)
        self.voice = VoiceNetwork(n_mels, judge.encoder.output_size, VECTOR_SIZE)
        self.voices = nn.Parameter(torch.randn(len(self.speakers), VECTOR_SIZE))

    @classmethod
    def of(cls, settings: JudgeSettings, texts: Sequence[str], speakers: Sequence[str]) -> Judge:
        """Return a new one that knows the characters of `texts`, and these speakers."""
        return cls(settings, Characters.of(texts).symbols, sorted(set(speakers)))

    @property
    def device(self) -> torch.device:
        return self.voices.device

    @torch.no_grad()
    def transcribe(self, waves: Sequence[Tensor]) -> list[str]:
        """Return the texts of waves [S_i]: the likeliest characters of each frame (greedy CTC)."""
        return [self.characters.text(p) for p in best_path(*self._logits(*self._features(waves)))]

    @torch.no_grad()
    def speaker(self, waves: Sequence[Tensor]) -> Tensor:
        """Return the speaker vectors [B, S] of waves [S_i], of unit length."""
        return self.voice(*self._features(waves))

    @torch.no_grad()
    def name_speakers(self, waves: Sequence[Tensor]) -> list[str]:
        """Return the likeliest of the known speakers for each wave [S_i]."""
        nearest = self._cosines(self.speaker(waves)).argmax(-1)
        return [self.speakers[place] for place in nearest.tolist()]

    def losses(
        self, waves: Sequence[Tensor], texts: Sequence[str], speakers: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Return CTC per label, and cross entropy of speakers with an additive angular margin.

        The margin (ArcFace; Deng et al., CVPR 2019) draws vectors of one speaker nearer to each
        other than classification alone would.
        """
        features, lengths = self._features(waves)
        labels = [torch.tensor(self.characters.labels(text), dtype=torch.long) for text in texts]
        logp = ctc_log_likelihood(*self._logits(features, lengths), labels)  # [B]
        spelt = logp.isfinite()  # the others have no time for their characters
        text = -logp[spelt].sum() / max(1, sum(map(len, labels)))
        own = torch.tensor([self.speakers.index(s) for s in speakers], device=self.device)
        cosines = self._cosines(self.voice(features, lengths))
        margins = MARGIN * F.one_hot(own, len(self.speakers))
        angles = cosines.clamp(-1 + 1e-6, 1 - 1e-6).acos() + margins
        return text, F.cross_entropy(SCALE * angles.cos(), own)

    def save(self, folder: Path) -> None:
        """Write settings, labels and, last, weights."""
        labels = {"characters": self.characters.symbols, "speakers": self.speakers}
        write_json(folder / LABELS, labels)
        save_model(self, folder)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Judge:
        """Return the judge saved in `folder`, in evaluation mode; UserErrors of `load_model`."""

        def build(settings: JudgeSettings) -> Judge:
            return cls(settings, **json.loads((folder / LABELS).read_text(encoding="utf-8")))

        return load_model(folder, "judge", JudgeSettings, build, device)

    def _features(self, waves: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features [B, T, n_mels] and their lengths [B]."""
        return self.frontend(*self.frontend.pad(waves, self.encoder.shortest, self.device))

    def _logits(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [2 T', B, labels], `LABELS_A_FRAME` to a frame, and their number [B]."""
        frames, lengths = self.encoder(features, lengths)
        batch, time, _ = frames.shape
        logits = self.head(frames).view(batch, time * LABELS_A_FRAME, -1)
        return logits.transpose(0, 1), lengths * LABELS_A_FRAME

    def _cosines(self, vectors: Tensor) -> Tensor:
        """Cosines [B, speakers] of vectors [B, S] of unit length to those of the speakers."""
        return vectors @ F.normalize(self.voices, dim=-1).T
