"""A causal language model that continues a prefix of embeddings.

Everything that learns or samples, for recognition and for synthesis, passes through `Prefix` and
`LanguageModel`: a policy only decides how the prefix is made.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    EncoderDecoderCache,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.logging import disable_progress_bar

from audiorl.config.model import LLMConfig
from audiorl.config.pretrained import why_no_lm
from audiorl.errors import UserError, reason
from audiorl.models import NO_CODE
from audiorl.models.hub import UNLOADABLE, load_whole
from audiorl.models.lora import head_adapter
from audiorl.models.memory import Memory

if not sys.stderr.isatty():
    disable_progress_bar()  # transformers draws into logs, too
SLICES = 8  # of the vocabulary, in `LanguageModel.logits`


@dataclass
class Prefix:
    """Embeddings that a response continues; padded on the left, so that responses start in line.

    An encoder-decoder also reads a `memory` through cross attention: what its encoder made of an
    utterance.
    """

    embeds: Tensor  # [B, P, H]
    mask: Tensor  # [B, P] bool, True on real positions
    position_ids: Tensor | None = None  # [B, P], of a family that does not just count
    memory: Tensor | None = None  # [B, M, D], padded on the right
    memory_mask: Tensor | None = None  # [B, M] bool

    @classmethod
    def join(cls, rows: Sequence[Tensor]) -> Prefix:
        """Return rows of embeddings [P_i, H], padded to one prefix."""
        longest = max(len(row) for row in rows)
        embeds = torch.stack([F.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows], device=embeds.device)
        mask = torch.arange(longest, device=embeds.device) >= longest - lengths[:, None]
        return cls(embeds, mask)

    @property
    def lengths(self) -> Tensor:
        """Real positions of each row, [B]."""
        return self.mask.sum(1)

    def positions(self) -> Tensor:
        """Position ids [B, P]; unless the family gives them, 0 on the first real position."""
        if self.position_ids is not None:
            return self.position_ids
        return (self.mask.cumsum(1) - 1).clamp(min=0)

    def select(self, rows: list[int], width: int) -> Prefix:
        """Return some of the rows, without the padding before the last `width` positions."""
        values = {name: None if v is None else v[rows] for name, v in vars(self).items()}
        for name in ("embeds", "mask", "position_ids"):
            if values[name] is not None:
                values[name] = values[name][:, -width:]
        return Prefix(**values)

    def continued(self, group: int, count: int) -> tuple[Tensor, Tensor]:
        """Return mask and position ids [B * group, P + count] with `count` tokens behind it."""
        mask = self.mask.repeat_interleave(group, 0)
        mask = torch.cat([mask, mask.new_ones(len(mask), count)], 1)
        if self.position_ids is None:
            return mask, (mask.cumsum(1) - 1).clamp(min=0)
        positions = self.position_ids.repeat_interleave(group, 0)
        behind = torch.arange(1, count + 1, device=mask.device)
        return mask, torch.cat([positions, positions[:, -1:] + behind], 1)


class BiasedQwen2(Qwen2ForCausalLM):
    """A Qwen2 whose head has a bias, as CosyVoice 2's: `use_bias` stands in its config then."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=True)


class LanguageModel(nn.Module):
    """Body, head and logits scaling of a causal LM.

    Every pass enters through a method of this module (`ENTRIES`), so that the hooks of whoever
    shards or adapts it run: embed, logits, hear, prefill, response_states, step and forward.
    """

    ENTRIES = ("embed", "logits", "hear", "prefill", "response_states", "step", "forward")

    def __init__(self, body: PreTrainedModel, head: nn.Linear, scale: float = 1.0) -> None:
        """`scale`: what the head's outputs are divided by (Granite's `logits_scaling`)."""
        super().__init__()
        self.model = body
        self.lm_head = head
        self.scale = scale
        # Whether layers keep their inputs alone for the backward pass, which computes them again.
        self.gradient_checkpointing = False

    @classmethod
    def of(cls, lm: PreTrainedModel) -> LanguageModel:
        """Return the parts of a causal LM of transformers; UserError for an unknown last step."""
        config = lm.config
        if getattr(config, "final_logit_softcapping", None):
            raise UserError(
                f"llm: a {config.model_type} caps its logits after the head "
                "(final_logit_softcapping), which is not supported; take another LM."
            )
        scale = getattr(config, "logits_scaling", None) or 1.0
        factor = getattr(config, "logit_scale", None) or 1.0
        return cls(lm.base_model, lm.get_output_embeddings(), scale / factor)

    @property
    def config(self) -> PretrainedConfig:
        """Sizes of the body, as transformers names them."""
        return self.model.config

    @property
    def vocab_size(self) -> int:
        """Rows of the head; at least the ids in use."""
        return self.lm_head.weight.size(0)

    @property
    def layers(self) -> list[nn.Module]:
        """Layers of the body, one like the other."""
        return [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]

    def embed(self, ids: Tensor) -> Tensor:
        """Return the embeddings [..., H] of token ids [...]."""
        return self.model.get_input_embeddings()(ids)

    def forward(self, embeds: Tensor) -> Tensor:
        """Return the logits [B, T, V] of embeddings [B, T, H] without padding."""
        return self.logits(self.model(inputs_embeds=embeds, use_cache=False).last_hidden_state)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [..., V] in fp32 of hidden states [..., H], whatever type the weights have.

        A half-precision head would round its logits to 3 digits. Its weights are widened a slice of
        the vocabulary at a time, since all of them would be as large as the logits of a chunk.
        """
        head = self.lm_head
        if head.weight.dtype == torch.float32:
            logits = head(hidden)
        else:
            hidden = hidden.float()
            biases = [None] * SLICES if head.bias is None else head.bias.float().chunk(SLICES)
            parts = zip(head.weight.chunk(SLICES), biases, strict=False)
            logits = torch.cat([F.linear(hidden, w.float(), bias) for w, bias in parts], -1)
            if (added := head_adapter(head, hidden)) is not None:
                logits = logits + added
        return logits if self.scale == 1 else logits / self.scale

    def logits_among(self, hidden: Tensor, allowed: Tensor) -> Tensor:
        """Return the logits [..., K] in fp32 of the K ids that `allowed` [V] (bool) has."""
        weight, bias = (
            None if p is None else p[allowed].float()
            for p in (self.lm_head.weight, self.lm_head.bias)
        )
        logits = F.linear(hidden.float(), weight, bias)
        if (added := head_adapter(self.lm_head, hidden)) is not None:
            logits = logits + added[..., allowed]
        return logits if self.scale == 1 else logits / self.scale

    def hear(self, prefix: Prefix) -> dict[str, Memory]:
        """Return the argument by which the layers read the prefix's memory, if it has one."""
        if prefix.memory is None:
            return {}
        layers = [layer.encoder_attn.keys_values(prefix.memory) for layer in self.model.layers]
        return {"encoder_hidden_states": Memory(layers, prefix.memory_mask)}

    def prefill(self, prefix: Prefix, **heard: Memory) -> tuple[Tensor, DynamicCache]:
        """Read each prefix once; return the last hidden states [B, 1, H] and the cache.

        `heard`: what `hear` makes of the prefix.
        """
        cache = DynamicCache(config=self.config)
        hidden = self.model(
            inputs_embeds=prefix.embeds,
            attention_mask=prefix.mask.long(),
            position_ids=prefix.positions(),
            # A decoder puts another cache in the place of an empty one that knows one memory only.
            past_key_values=EncoderDecoderCache(cache, DynamicCache()) if heard else cache,
            use_cache=True,
            **heard,
        ).last_hidden_state
        return hidden[:, -1:], cache

    def step(self, tokens: Tensor, positions: Tensor, cache: DynamicCache, **extra) -> Tensor:
        """Read one token [N] a row at its position [N]; return hidden states [N, H].

        `extra` reaches the layers and their attention (`engines.shared_prefix`).
        """
        return self.model(
            inputs_embeds=self.embed(tokens[:, None]),
            attention_mask=None,
            position_ids=positions[:, None],
            past_key_values=cache,
            use_cache=True,
            **extra,
        ).last_hidden_state[:, 0]

    def response_states(self, prefix: Prefix, tokens: Tensor, share: bool) -> Tensor:
        """Return the hidden states [B * G, R, H] that predict `tokens`, position t tokens[:, t].

        prefix of B rows; tokens [B * G, R], the G responses of a prefix in consecutive rows, padded
        on the right (the caller masks what padding predicts). With `share`, a prefix is read once
        for its whole group, through an expanded cache whose keys and values carry gradients;
        without, once per response. Both agree to rounding. With `gradient_checkpointing`, which no
        cache survives, a shared prefix and its responses are one row.
        """
        if share and self.gradient_checkpointing:
            return self._packed_states(prefix, tokens)
        group = len(tokens) // len(prefix.embeds)
        inputs = self.embed(tokens[:, :-1])  # [B * G, R - 1, H]
        mask, positions = prefix.continued(group, inputs.size(1))
        heard = self.hear(prefix)
        options = {"attention_mask": mask.long(), **heard}
        if not share:
            embeds = torch.cat([prefix.embeds.repeat_interleave(group, 0), inputs], 1)
            with self._recomputed():
                hidden = self.model(
                    inputs_embeds=embeds, position_ids=positions, use_cache=False, **options
                ).last_hidden_state
            return hidden[:, prefix.embeds.size(1) - 1 :]
        last, cache = self.prefill(prefix, **heard)
        last = last.repeat_interleave(group, 0)
        if inputs.size(1) == 0:
            return last
        cache.batch_repeat_interleave(group)
        hidden = self.model(
            inputs_embeds=inputs,
            position_ids=positions[:, -inputs.size(1) :],
            past_key_values=cache,
            use_cache=True,
            **options,
        ).last_hidden_state
        return torch.cat([last, hidden], 1)

    def idle_pass(self, share: bool, width: int = 2) -> Tensor:
        """Return 0, with gradients, by the passes that `response_states` of `width` tokens takes.

        It takes the place of a pass where other processes have one more.
        """
        tokens = torch.zeros(1, width, dtype=torch.long, device=self.lm_head.weight.device)
        embeds = self.embed(tokens[:, :1])
        prefix = Prefix(embeds, torch.ones_like(tokens[:, :1], dtype=torch.bool))
        return 0.0 * self.response_states(prefix, tokens, share).float().sum()

    def _packed_states(self, prefix: Prefix, tokens: Tensor) -> Tensor:
        """Return `response_states` of rows [prefix | r1 | ... | rG].

        A response sees the prefix and itself, and its positions follow the prefix.
        """
        rows, length = prefix.mask.shape
        group, device = len(tokens) // rows, tokens.device
        inputs = self.embed(tokens[:, :-1])  # [B * G, R - 1, H]
        width = inputs.size(1)
        embeds = torch.cat([prefix.embeds, inputs.reshape(rows, group * width, -1)], 1)
        _, positions = prefix.continued(1, width)
        behind = positions[:, length:].repeat(1, group)
        owner = torch.arange(-1, group, device=device)  # of each position: -1 is the prefix
        owner = owner.repeat_interleave(torch.tensor([length] + [width] * group, device=device))
        place = torch.arange(len(owner), device=device)
        seen = place <= place[:, None]
        seen &= (owner == -1) | (owner == owner[:, None])
        real = F.pad(prefix.mask, (0, group * width), value=True)
        # Padding sees itself, for it has to see something.
        seen = (seen & real[:, None]) | torch.eye(len(owner), dtype=torch.bool, device=device)
        bias = torch.zeros(seen.shape, dtype=embeds.dtype, device=device)
        with self._recomputed():
            hidden = self.model(
                inputs_embeds=embeds,
                attention_mask=bias.masked_fill_(~seen, torch.finfo(bias.dtype).min)[:, None],
                position_ids=torch.cat([positions[:, :length], behind], 1),
                use_cache=False,
                **self.hear(prefix),
            ).last_hidden_state
        last = hidden[:, length - 1 : length].repeat_interleave(group, 0)
        return torch.cat([last, hidden[:, length:].reshape(rows * group, width, -1)], 1)

    @contextlib.contextmanager
    def _recomputed(self) -> Iterator[None]:
        """Let layers, within the block, keep their inputs alone if that is wanted.

        The flag of transformers does nothing in evaluation mode, in which RL learns.
        """
        layers = []
        if self.gradient_checkpointing and torch.is_grad_enabled():
            layers = self.layers
            if not layers:
                raise UserError(
                    f"gradient_checkpointing: the layers of a {self.config.model_type} cannot be "
                    "computed again; set false."
                )
        for layer in layers:
            layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward


def build_lm(
    config: LLMConfig, vocab_size: int, end_id: int, saved: str | None = None
) -> LanguageModel:
    """Return a new LM of the configured sizes, a pretrained one, or the shape of a saved one.

    A pretrained one that has fewer rows than `vocab_size` gets new ones.
    """
    dtype = getattr(torch, config.dtype)
    if saved is not None:
        shape = AutoConfig.from_pretrained(saved)
        if has_biased_head(shape):
            return LanguageModel.of(BiasedQwen2(shape).to(dtype))
        return LanguageModel.of(AutoModelForCausalLM.from_config(shape, dtype=dtype))
    if not config.pretrained:
        shape = _new_lm_config(config, vocab_size, end_id)
        return LanguageModel.of(AutoModelForCausalLM.from_config(shape, dtype=dtype))
    try:
        shape = AutoConfig.from_pretrained(config.pretrained, **NO_CODE)
        if why := why_no_lm(shape.to_dict()):
            raise UserError(f"llm.pretrained: {config.pretrained} {why}.")
        kind = BiasedQwen2 if has_biased_head(shape) else AutoModelForCausalLM
        lm = load_whole(kind, config.pretrained, dtype=dtype, **NO_CODE)
    except UNLOADABLE as error:
        raise UserError(
            f"llm.pretrained: {config.pretrained} cannot be loaded ({reason(error)}); "
            "give a folder or a hub name of a causal LM."
        ) from error
    if lm.get_input_embeddings().weight.size(0) < vocab_size:
        lm.resize_token_embeddings(vocab_size, mean_resizing=False)
    return LanguageModel.of(lm)


def has_biased_head(shape: PretrainedConfig) -> bool:
    """Return whether it is a `BiasedQwen2`; others use that name for biases elsewhere."""
    return shape.model_type == "qwen2" and getattr(shape, "use_bias", False)


def _new_lm_config(config: LLMConfig, vocab_size: int, end_id: int) -> PretrainedConfig:
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
        "eos_token_id": end_id,
        "pad_token_id": None,
    }
    return AutoConfig.for_model(config.architecture, **sizes)
