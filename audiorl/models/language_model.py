"""A Hugging Face causal LM that continues a prefix of embeddings.

Everything that learns or samples, for recognition and for synthesis, goes through `Prefix` and
`response_hidden`: the task only decides how the prefix is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from audiorl.config.schema import LLMConfig
from audiorl.errors import UserError, reason

SLICES = 8  # of the vocabulary, in `lm_logits`


@dataclass
class Prefix:
    """What a response continues; padded on the left, so that responses start in one column."""

    embeds: Tensor  # [B, P, H]
    mask: Tensor  # [B, P] bool, True on real positions

    @classmethod
    def join(cls, rows: list[Tensor]) -> Prefix:
        """Pads rows of embeddings [P_i, H] into one prefix."""
        longest = max(len(row) for row in rows)
        embeds = torch.stack(
            [torch.nn.functional.pad(r, (0, 0, longest - len(r), 0)) for r in rows]
        )
        lengths = torch.tensor([len(row) for row in rows], device=embeds.device)
        mask = torch.arange(longest, device=embeds.device) >= longest - lengths[:, None]
        return cls(embeds, mask)

    @property
    def lengths(self) -> Tensor:
        """Real positions of each row, [B]."""
        return self.mask.sum(1)

    def positions(self) -> Tensor:
        """Position ids [B, P]: 0 on the first real position."""
        return (self.mask.cumsum(1) - 1).clamp(min=0)


class BiasedQwen2(Qwen2ForCausalLM):
    """A Qwen2 whose head has a bias, as CosyVoice 2's: `use_bias` stands in its config then."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=True)


def build_lm(
    config: LLMConfig, vocab_size: int, eos_id: int, saved: str | None = None
) -> PreTrainedModel:
    """A new LM of the configured sizes, a pretrained one, or the shape of a saved one.

    A pretrained one that has fewer rows than `vocab_size` gets new ones.
    """
    dtype = getattr(torch, config.dtype)
    if saved is not None:
        shape = AutoConfig.from_pretrained(saved)
        if has_biased_head(shape):
            return BiasedQwen2(shape).to(dtype)
        return AutoModelForCausalLM.from_config(shape, dtype=dtype)
    if config.pretrained:
        try:
            biased = has_biased_head(AutoConfig.from_pretrained(config.pretrained))
            kind = BiasedQwen2 if biased else AutoModelForCausalLM
            lm = kind.from_pretrained(config.pretrained, dtype=dtype)
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(
                f"llm.pretrained: {config.pretrained} cannot be loaded ({reason(error)}); "
                "give a folder or a hub name of a causal LM."
            ) from error
        if lm.get_input_embeddings().weight.size(0) < vocab_size:
            lm.resize_token_embeddings(vocab_size, mean_resizing=False)
    else:
        lm = AutoModelForCausalLM.from_config(
            _new_lm_config(config, vocab_size, eos_id), dtype=dtype
        )
    for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        # Our log-probabilities apply the head to hidden states: what follows it would be skipped.
        if getattr(lm.config, name, None) not in (None, 0, 1):
            raise UserError(
                f"llm: {lm.config.model_type} changes its logits after the head ({name}), which is "
                "not supported; take another LM."
            )
    # Chat models bring defaults, a repetition penalty say, that would bend every beam search.
    lm.generation_config = GenerationConfig()
    return lm


def has_biased_head(shape: PretrainedConfig) -> bool:
    """Whether it is a `BiasedQwen2`; others use that name for biases elsewhere."""
    return shape.model_type == "qwen2" and getattr(shape, "use_bias", False)


def _new_lm_config(config: LLMConfig, vocab_size: int, eos_id: int) -> PretrainedConfig:
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.hidden_size // config.num_attention_heads,
        "attention_dropout": config.dropout,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": eos_id,
        "pad_token_id": None,
    }
    return AutoConfig.for_model(config.architecture, **sizes)


def prefill(lm: PreTrainedModel, prefix: Prefix) -> tuple[Tensor, DynamicCache]:
    """Reads each prefix once -> hidden state of its last position [B, 1, H], and its cache."""
    cache = DynamicCache(config=lm.config)
    hidden = lm.base_model(
        inputs_embeds=prefix.embeds,
        attention_mask=prefix.mask.long(),
        position_ids=prefix.positions(),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return hidden[:, -1:], cache


def lm_logits(head: nn.Linear, hidden: Tensor) -> Tensor:
    """Logits [..., V] in fp32 of hidden states [..., H], summed in fp32 whatever the weights are.

    A half-precision head rounds its logits to 3 digits. Its weights are widened a slice of the
    vocabulary at a time, since all of them would be as large as the logits that chunks avoid.
    """
    if head.weight.dtype == torch.float32:
        return head(hidden)
    hidden = hidden.float()
    biases = [None] * SLICES if head.bias is None else head.bias.float().chunk(SLICES)
    parts = zip(head.weight.chunk(SLICES), biases, strict=False)
    return torch.cat([F.linear(hidden, weight.float(), bias) for weight, bias in parts], -1)


def response_hidden(lm: PreTrainedModel, prefix: Prefix, tokens: Tensor, share: bool) -> Tensor:
    """The hidden states that predict `tokens`.

    prefix of B rows; tokens [B * G, R], the G responses of a prefix in consecutive rows, padded on
    the right (what padding predicts is to be masked by the caller). Returns [B * G, R, H]: position
    t predicts tokens[:, t]. With `share`, a prefix is read once for its whole group, through an
    expanded cache whose keys and values carry gradients; without, once per response. Both agree to
    rounding.
    """
    group = len(tokens) // len(prefix.embeds)
    inputs = lm.get_input_embeddings()(tokens[:, :-1])  # [B * G, R - 1, H]
    mask = prefix.mask.repeat_interleave(group, 0)
    mask = torch.cat([mask, mask.new_ones(inputs.shape[:2])], 1)  # [B * G, P + R - 1]
    if not share:
        embeds = torch.cat([prefix.embeds.repeat_interleave(group, 0), inputs], 1)
        hidden = lm.base_model(
            inputs_embeds=embeds,
            attention_mask=mask.long(),
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        ).last_hidden_state
        return hidden[:, prefix.embeds.size(1) - 1 :]
    last, cache = prefill(lm, prefix)
    last = last.repeat_interleave(group, 0)
    if inputs.size(1) == 0:
        return last
    cache.batch_repeat_interleave(group)
    hidden = lm.base_model(
        inputs_embeds=inputs,
        attention_mask=mask.long(),
        position_ids=(mask.cumsum(1) - 1)[:, -inputs.size(1) :],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return torch.cat([last, hidden], 1)
