"""Encoders of transformers, with the feature extractor that they were trained with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, PreTrainedModel
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from audiorl.errors import UserError, reason
from audiorl.models.hub import UNLOADABLE, load_whole

ENCODER_FILES = "encoder"  # of a saved model: the encoder's own settings
LEAST = 0.1  # s; shorter audio is followed by silence


class PretrainedEncoder(nn.Module):
    """Waves [S_i] to frames [T_i, D]: the encoder of Whisper, or wav2vec 2.0, HuBERT, WavLM, ...

    An utterance's frames are the same alone and in any batch. Whisper's windows are 30 s long, and
    the frames behind the utterance are dropped; the others are run on one utterance at a time,
    since normalisations over time see the padding of a batch.
    """

    def __init__(self, model: PreTrainedModel, extractor: SequenceFeatureExtractor) -> None:
        super().__init__()
        self.model, self.extractor = model, extractor
        self.sample_rate: int = extractor.sampling_rate  # Hz
        self.output_size: int = model.config.hidden_size
        model.config.apply_spec_augment = False  # its masks are random numbers of no seed
        self.windowed = model.config.model_type == "whisper"
        # Shortest and longest audio in s.
        self.seconds = (0.0, float(extractor.chunk_length) if self.windowed else torch.inf)

    @classmethod
    def of(cls, name: str) -> PretrainedEncoder:
        """Return that of a folder or hub name; UserError if it cannot be loaded."""
        try:
            model = load_whole(AutoModel, name, dtype=torch.float32)
            return cls(_encoder(model), AutoFeatureExtractor.from_pretrained(name))
        except UNLOADABLE as error:
            raise UserError(
                f"encoder.pretrained: {name} cannot be loaded ({reason(error)}); give a folder or "
                "a hub name of a speech encoder of transformers with its feature extractor."
            ) from error

    def save(self, folder: Path) -> None:
        """Write what `saved_encoder` reads; the weights are among the model's."""
        self.model.config.save_pretrained(folder / ENCODER_FILES)
        self.extractor.save_pretrained(folder / ENCODER_FILES)

    def forward(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Return the frames [T_i, D] of waves [S_i] at `sample_rate`."""
        size = max(1, len(waves)) if self.windowed else 1
        pieces = (waves[i : i + size] for i in range(0, len(waves), size))
        return [frames for piece in pieces for frames in self._frames(piece)]

    def _frames(self, waves: Sequence[Tensor]) -> list[Tensor]:
        least, seconds = round(LEAST * self.sample_rate), max(map(len, waves)) / self.sample_rate
        if seconds > self.seconds[1]:
            raise UserError(
                f"encoder.pretrained: it hears {self.seconds[1]:g} s, and audio of {seconds:.2f} s "
                "would be cut; split it."
            )
        listed = [F.pad(w.cpu(), (0, max(0, least - len(w)))).numpy() for w in waves]
        inputs = self.extractor(listed, sampling_rate=self.sample_rate, return_tensors="pt")
        device, dtype = self.model.device, self.model.dtype
        inputs = {
            name: tensor.to(device, dtype if tensor.is_floating_point() else None)
            for name, tensor in inputs.items()
        }
        frames = self.model(**inputs).last_hidden_state
        if not self.windowed:
            return list(frames)
        share = frames.size(1) / self.extractor.n_samples
        counts = [math.ceil(len(wave) * share) for wave in listed]
        return [row[:count] for row, count in zip(frames, counts, strict=True)]


def saved_encoder(folder: str) -> PretrainedEncoder:
    """Return the shape of the encoder of the model saved in `folder`."""
    return encoder_shape(Path(folder, ENCODER_FILES))


def encoder_shape(name: str | Path) -> PretrainedEncoder:
    """Return an encoder by its config.json, without weights."""
    model = AutoModel.from_config(AutoConfig.from_pretrained(name))
    return PretrainedEncoder(_encoder(model), AutoFeatureExtractor.from_pretrained(name))


def _encoder(model: PreTrainedModel) -> PreTrainedModel:
    return model.get_encoder() if model.config.is_encoder_decoder else model
