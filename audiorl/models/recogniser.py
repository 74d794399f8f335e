"""The door of recognisers: policies of recognition, ours and pretrained ones."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.models.policy import Policy


@dataclass
class SupervisedLoss:
    """Loss of supervised training, and its parts."""

    total: Tensor
    lm: Tensor  # mean cross entropy per token, end token included
    ctc: Tensor  # mean CTC loss per label


class Recogniser(Policy):
    """Policy of recognition: waves [S] at `sample_rate` in, text out.

    The response is a transcript and the first of `stop_ids`.
    """

    task = "asr"
    part_names = ("adaptor", "llm", "encoder")
    seconds: ClassVar[tuple[float, float]] = (0.0, math.inf)  # shortest and longest audio
    sample_rate: int  # Hz

    @classmethod
    @abstractmethod
    def create(cls, config: Config, texts: Iterable[str]) -> Recogniser:
        """Return the model that a recipe begins with; text units may be learnt from `texts`."""

    def encoding_bytes(self, seconds: float) -> float:
        """Return the memory in bytes, roughly, that `encode` needs for that much audio."""
        return 0.0

    def responses(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return token ids [B, R] of transcripts, each with its end token, and their mask."""
        end = self.stop_ids[0]
        rows = [torch.tensor([*self.tokenizer.encode(text), end]) for text in texts]
        return self.pad_responses(rows)

    def supervised_loss(
        self,
        conditions: Sequence[Tensor],
        texts: Sequence[str],
        *,
        ctc_weight: float = 0.0,
        token_noise: float = 0.0,
    ) -> SupervisedLoss:
        """Return (1 - ctc_weight) * cross entropy of transcripts + ctc_weight * CTC.

        token_noise: share of the tokens the LM reads that are random ones, in training mode only:
        it learns to attend to the audio sooner, and to recover.
        """
        lm = ctc = conditions[0].new_zeros(())
        if ctc_weight < 1:
            lm = self._lm_loss(conditions, texts, token_noise)
        if ctc_weight > 0:
            ctc = self.ctc_loss(conditions, texts)
        return SupervisedLoss((1 - ctc_weight) * lm + ctc_weight * ctc, lm.detach(), ctc.detach())

    def ctc_loss(self, conditions: Sequence[Tensor], texts: Sequence[str]) -> Tensor:
        """Return the mean CTC loss over labels, of an encoder that has a head for it."""
        raise NotImplementedError

    def _lm_loss(self, conditions: Sequence[Tensor], texts: Sequence[str], noise: float) -> Tensor:
        """Mean over tokens, the end token included."""
        tokens, mask = self.responses(texts)
        read = tokens
        if self.training:
            random = torch.randint_like(tokens, self.tokenizer.vocab_size)
            replaced = torch.rand(tokens.shape, device=tokens.device) < noise
            read = torch.where(replaced, random, tokens)
        states = self.llm.response_states(self.prefix(conditions), read, share=False)
        logits = self.llm.logits(states[mask])  # [tokens, V]
        return F.cross_entropy(logits, tokens[mask])

    def refuse_unfit(
        self, utterances: Iterable[Utterance], where: object, window: float = 0.0
    ) -> None:
        """Raise UserError if an utterance of the set `where` is too short or too long to hear.

        `window`: seconds that longer ones are cut to before; 0: they are not.
        """
        shortest, longest = self.seconds
        known = (u for u in utterances if u.duration is not None)
        limit = window or math.inf
        unfit = [u for u in known if not shortest <= min(u.duration, limit) <= longest]
        if unfit:
            u = unfit[0]
            raise UserError(
                f"{where}: {u.id} lasts {u.duration:.2f} s ({len(unfit)} like it), and a "
                f"{self.family} hears {shortest:g} to {longest:g} s; cut or remove them: "
                "data.min_duration and data.max_duration do, in sets to train on, and "
                "decode.window_seconds, in dev and test sets."
            )
