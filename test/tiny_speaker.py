"""A tiny policy that speaks, and a tiny model that rewards it: a few tokens, a few letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tiny import tiny_config
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from audiorl.config.schema import Config
from audiorl.data.speech_tokens import CodecInfo
from audiorl.data.utterance import Utterance
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.models.token_recogniser import RecogniserFacts, RewardModelSettings, TokenRecogniser

CODEC = CodecInfo(kind="native", fingerprint="abc", codebook_size=6, token_rate=25.0)
TEXTS = 8  # ids of text and marks; speech and stop follow
SPEECH = {
    "task": "tts",
    "reward_model.encoder.output_size": 16,
    "reward_model.encoder.linear_units": 32,
    "reward_model.encoder.num_blocks": 1,
    "reward_model.encoder.dropout_rate": 0.0,
}


def speech_config(keys: dict[str, Any] | None = None) -> Config:
    return tiny_config({**SPEECH, **(keys or {})})


def tiny_recogniser(
    keys: dict[str, Any] | None = None,
    facts: RecogniserFacts | None = None,
    seed: int = 0,
    spread: float = 1.0,
) -> TokenRecogniser:
    """A random frozen one. A larger `spread` of its table makes it tell tokens apart."""
    torch.manual_seed(seed)
    facts = facts or RecogniserFacts(CODEC, " abc", {"speaker": ["s", "t"]}, [])
    recogniser = (
        TokenRecogniser(RewardModelSettings.of(speech_config(keys)), facts)
        .eval()
        .requires_grad_(False)
    )
    recogniser.table.weight.mul_(spread)
    return recogniser


class TinySpeaker(torch.nn.Module):
    """A policy of `codec` tokens: a random LM; a condition is the letters' ids."""

    def __init__(
        self, keys: dict[str, Any] | None = None, codec: CodecInfo = CODEC, seed: int = 0
    ) -> None:
        super().__init__()
        self.recipe = speech_config(keys)
        torch.manual_seed(seed)
        stop, self.pad_id = TEXTS + codec["codebook_size"], 0
        self.stop_ids = (stop,)
        sizes = {
            "vocab_size": stop + 1,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "tie_word_embeddings": False,
        }
        config = AutoConfig.for_model("qwen3", **sizes)
        self.llm = LanguageModel.of(AutoModelForCausalLM.from_config(config))
        with torch.no_grad():
            for parameter in self.llm.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(8.0)  # its predictions differ from place to place
        forbidden = torch.ones(stop + 1, dtype=torch.bool)
        forbidden[TEXTS:] = False
        self.register_buffer("forbidden", forbidden)

    @property
    def device(self) -> torch.device:
        return self.forbidden.device

    def prefix(self, conditions: Sequence[Tensor]) -> Prefix:
        return Prefix.join([self.llm.embed(row) for row in conditions])

    def prefix_length(self, condition: Tensor) -> int:
        return len(condition)

    def get(self, utterances: Sequence[Utterance]) -> list[Tensor]:
        """Conditions: the text's letters."""
        return [torch.tensor([1, *(2 + " abc".index(c) for c in u.text)]) for u in utterances]


def utterance(name: str, text: str, speaker: str = "s", **tags: str) -> Utterance:
    return Utterance(name, f"{name}.wav", text, speaker, duration=1.0, tags=tags)
