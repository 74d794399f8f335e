"""Conditions of synthesis, and rollouts as samples: tokens, transcripts and waves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from audiorl.data.utterance import Utterance
from audiorl.engines.engine import Rollout
from audiorl.models.codec import Codec
from audiorl.models.speech_lm import SpeechLM
from audiorl.models.token_recogniser import TokenRecogniser
from audiorl.models.voice import Voices
from audiorl.rewards import Sample
from audiorl.runtime.batching import padded_batches

WAVE_SECONDS = 200.0  # of speech that is made at once, padding included


class Texts:
    """The conditions of synthesis (`Conditions`): ids of the text, in which nothing learns."""

    def __init__(self, model: SpeechLM) -> None:
        self.model = model

    def get(self, utterances: Sequence[Utterance]) -> list[Tensor]:
        """Return the ids [T_i] of each text."""
        return self.model.encode(utterances)

    def encode(self, model: SpeechLM, utterances: Sequence[Utterance]) -> list[Tensor]:
        """Return the ids [T_i] of each text as `model` has them."""
        return model.encode(utterances)


class Vocoder:
    """Waves of samples, for the rewards that ask for them, in the voices of their utterances."""

    def __init__(self, codec: Codec, voices: Voices) -> None:
        self.codec = codec
        self.voices = voices

    @torch.no_grad()
    def __call__(self, samples: Sequence[Sample]) -> list[Sample]:
        """The samples with their waves [S_i], in padded batches of like length.

        A sample without a token stays without a wave.
        """
        most = round(WAVE_SECONDS * self.codec.token_rate)  # tokens
        loud = [i for i, sample in enumerate(samples) if sample.tokens]
        made = list(samples)
        for batch in padded_batches([len(samples[i].tokens) for i in loud], most):
            rows = [loud[place] for place in batch]
            tokens = [torch.tensor(samples[row].tokens) for row in rows]
            voices = [self.voices[samples[row].utterance] for row in rows]
            waves = self.codec.decode(tokens, voices)
            for row, wave in zip(rows, waves, strict=True):
                rate = self.codec.output_rate
                made[row] = replace(samples[row], wave=wave.cpu(), sample_rate=rate)
        return made


# What is said in waves [S_i] of the codec.
TranscribeWaves = Callable[[Sequence[Tensor]], list[str]]


class SpeechReader:
    """Samples of a rollout (`Interpret`): tokens, what is heard in them, waves if there are any.

    The reward model hears it in the tokens, and no wave has to be made, which is most of a step's
    time otherwise; or an `ear` in the waves.
    """

    def __init__(
        self,
        model: SpeechLM,
        recogniser: TokenRecogniser,
        vocoder: Vocoder | None = None,
        ear: TranscribeWaves | None = None,
    ) -> None:
        self.model = model
        self.recogniser = recogniser
        self.vocoder = vocoder
        self.ear = ear

    def __call__(self, utterances: Sequence[Utterance], rollout: Rollout) -> list[Sample]:
        group = len(rollout) // len(utterances)
        rows = zip(rollout.tokens, rollout.mask, strict=True)
        spoken = [self.model.speech_tokens(tokens[mask]) for tokens, mask in rows]
        texts = self.recogniser.transcribe(spoken) if self.ear is None else [""] * len(spoken)
        samples = [
            Sample(utterances[i // group], text, finished, tuple(tokens))
            for i, (text, tokens, finished) in enumerate(
                zip(texts, spoken, rollout.finished.tolist(), strict=True)
            )
        ]
        made = self.vocoder(samples) if self.vocoder else samples
        return made if self.ear is None else listened(made, self.ear)


def listened(samples: Sequence[Sample], ear: TranscribeWaves) -> list[Sample]:
    """The samples with what `ear` hears in their waves; one without a wave says nothing."""
    heard = iter(ear([s.wave for s in samples if s.wave is not None]))
    return [replace(s, text="" if s.wave is None else next(heard)) for s in samples]
