"""Decoding groups of responses, each group from one copy of its prefix's keys and values.

At every step the queries of a group meet the keys of their prefix in one matrix product; what each
response has written itself is kept by row, in memory that is there from the start. Copying the
prefix to every row, and joining it to each new token, costs several times what the model costs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from audiorl.errors import UserError
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.models.memory import Groups, KeysValues, Memory

ATTENTION = "audiorl_shared_prefix"


class GroupDecoder:
    """Rows that continue prefixes: B prefixes, N rows, at first the `group` of each in succession.

    Raises UserError if the LM's attention does not reach back over prefix and response, or is
    not made of keys and values that can be kept so.
    """

    def __init__(self, lm: LanguageModel, prefix: Prefix, group: int, max_length: int) -> None:
        self._lm = lm
        longest = int(prefix.lengths.max())
        _refuse_short_memory(lm, longest + max_length)
        self._heard = lm.hear(prefix)  # of an encoder-decoder: {argument: Memory}
        last, self._prefixes = _read_prefixes(lm, prefix, self._heard)
        self._padding = ~prefix.mask[:, None, None, -longest:]  # [B, 1, 1, P]
        count = len(last)
        self._group(Groups.even(count * group, count, last.device))
        self._own = Cache(layers=[_OwnLayer(max_length) for _ in self._prefixes])
        # [N], of the next token: padding is on the left, so the last column is the last position.
        self._positions = prefix.positions()[self._groups.owners, -1] + 1
        self.hidden = last[self._groups.owners]  # [N, H], predicts the next token of each row

    def read(self, tokens: Tensor) -> None:
        """Read one token [N] a row; `hidden` then predicts the next."""
        self.hidden = self._lm.step(
            tokens, self._positions, self._own, shared_prefix=self, **self._heard
        )
        self._positions = self._positions + 1

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, and the prefixes that they continue."""
        self._own.batch_select_indices(rows)
        self._positions = self._positions[rows]
        alive, owners = self._groups.owners[rows].unique(return_inverse=True)
        if len(alive) < len(self._padding):
            self._prefixes = [(keys[alive], values[alive]) for keys, values in self._prefixes]
            self._padding = self._padding[alive]
            for memory in self._heard.values():
                memory.keep(alive)
        self._group(Groups(owners, len(alive)))

    def _group(self, groups: Groups) -> None:
        self._groups = groups
        for memory in self._heard.values():
            memory.groups = groups

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of queries [N, K, Q, D], already scaled, to their prefix and own past.

        K heads of keys, Q queries to each; key, value [N, K, T, D]. Returns [N, K, Q, D].
        """
        groups, (keys, values) = self._groups, self._prefixes[layer]  # [B, K, P, D]
        to_prefix = (groups.by_prefix(query) @ keys.mT).masked_fill_(self._padding, -torch.inf)
        to_own = groups.by_prefix(query @ key.mT)
        scores = torch.cat([to_prefix, to_own], -1)  # [B, K, width * Q, P + T]
        weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
        to_prefix, to_own = weights.split([keys.size(2), key.size(2)], -1)
        queries = query.size(2)
        return groups.by_row(to_prefix @ values, queries) + groups.by_row(to_own, queries) @ value


class _OwnLayer(DynamicLayer):
    """A layer's keys and values of each row, `capacity` at most: a new one moves no old one."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def update(self, key_states: Tensor, value_states: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        start = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._memory = [self._room(key_states), self._room(value_states)]
        for memory, new in zip(self._memory, (key_states, value_states), strict=True):
            memory[:, :, start : start + new.size(2)] = new
        self._show(start + key_states.size(2))
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        length = self.get_seq_length()
        if length == 0:
            return
        kept = []
        for memory in self._memory:
            kept.append(self._room(memory[indices[:1]].expand(len(indices), -1, -1, -1)))
            kept[-1][:, :, :length] = memory[indices, :, :length]
        self._memory = kept
        self._show(length)

    def _room(self, like: Tensor) -> Tensor:
        return like.new_empty(*like.shape[:2], self.capacity, like.size(3))

    def _show(self, length: int) -> None:
        self.keys, self.values = (memory[:, :, :length] for memory in self._memory)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    shared_prefix: GroupDecoder,
    **kwargs,
) -> tuple[Tensor, None]:
    """Attention of a layer for transformers: query [N, heads, 1, D]; key, value [N, K, T, D]."""
    for name in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise UserError(
                f"llm: the attention of a {module.config.model_type} has a {name}, which rollout "
                "does not know; take another LM."
            )
    rows, heads, _, size = query.shape
    grouped = (query * scaling).view(rows, key.size(1), heads // key.size(1), size)
    mixed = shared_prefix.attend(module.layer_idx, grouped, key, value)
    return mixed.reshape(rows, 1, heads, -1), None


AttentionInterface.register(ATTENTION, _attention)


@contextlib.contextmanager
def shared_prefix_attention(lm: LanguageModel) -> Iterator[None]:
    """Let `lm` run in a GroupDecoder, and nowhere else, within the block."""
    usual = lm.config._attn_implementation
    lm.model.set_attn_implementation(ATTENTION)
    if lm.config._attn_implementation != ATTENTION:
        raise UserError(
            f"llm: the attention of a {lm.config.model_type} cannot be replaced, which rollout "
            "needs; take another LM."
        )
    try:
        yield
    finally:
        lm.model.set_attn_implementation(usual)


def _read_prefixes(
    lm: LanguageModel, prefix: Prefix, heard: dict[str, Memory]
) -> tuple[Tensor, list[KeysValues]]:
    """Read each prefix once, those of like length together (all, where they hear something).

    Returns the hidden state of each one's last position [B, H], and keys and values [B, K, P, D] of
    each layer, P the longest.
    """
    lengths = prefix.lengths.tolist()
    longest = max(lengths)
    hidden, parts = [], []
    batches = [list(range(len(lengths)))] if heard else _alike(lengths)
    for rows in batches:
        width = max(lengths[row] for row in rows)
        last, cache = lm.prefill(prefix.select(rows, width), **heard)
        hidden.append(last[:, 0])
        parts.append(
            [
                [F.pad(states, (0, 0, longest - width, 0)) for states in (layer.keys, layer.values)]
                for layer in cache.layers
            ]
        )
    if len(batches) == 1:
        return hidden[0], [tuple(layer) for layer in parts[0]]
    back = torch.tensor([row for rows in batches for row in rows]).argsort()
    layers = [
        tuple(torch.cat(states)[back] for states in zip(*layer, strict=True))
        for layer in zip(*parts, strict=True)
    ]
    return torch.cat(hidden)[back], layers


def _alike(lengths: list[int]) -> list[list[int]]:
    """Places of `lengths`, batched so that at most a fifth of a batch is padding."""
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if not batches or lengths[place] < 0.8 * lengths[batches[-1][0]]:
            batches.append([])
        batches[-1].append(place)
    return [sorted(batch) for batch in batches]


def _refuse_short_memory(lm: LanguageModel, length: int) -> None:
    most = getattr(lm.config, "max_target_positions", length)
    if most < length:
        raise UserError(
            f"max_completion_length: a {lm.config.model_type} has {most} positions, and prefix and "
            f"response may take {length}; lower the key by {length - most}."
        )
    for layer in DynamicCache(config=lm.config).layers:
        if not isinstance(layer, DynamicLayer):
            raise UserError(
                f"llm: a {lm.config.model_type} has layers without keys and values, which rollout "
                "cannot continue from; take another LM."
            )
        if getattr(layer, "sliding_window", length) < length:
            raise UserError(
                f"llm: a {lm.config.model_type} looks back {layer.sliding_window} tokens, and "
                f"prefix and response may have {length}; shorten them or take another LM."
            )
