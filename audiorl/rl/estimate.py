"""Memory of RL, estimated from a recipe alone: neither weights nor data are read.

The models are on torch's meta device, where a forward pass costs nothing and tells what the
backward pass would keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache

from audiorl.config.schema import Config
from audiorl.errors import UserError, reason
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.models.policy import Policy
from audiorl.models.sketch import longest_prefix, sketch
from audiorl.rl.logprobs import prefix_is_shared
from audiorl.runtime.device import free_memory

ADAM = 12  # bytes of a gradient and two moments, in fp32
LENGTHS = (32, 64, 128)  # of passes from which the need of a position is told


@dataclass
class Need:
    """Bytes that something takes."""

    name: str
    size: int
    fix: str  # what makes it smaller
    note: str = ""  # what it depends on


def estimate(config: Config) -> str:
    """Return a table of what stage 5 needs, and whether the device that is there has as much.

    Raises UserError for layers of `lora.targets` that are not there, and for pretrained parts whose
    config.json cannot be read.
    """
    policy = sketch(config)
    longest = longest_prefix(config, policy)
    with torch.device("meta"):
        policy.adapt(config.lora, 0)
        policy.train_only(config.rl.train if config.task == "asr" else ["llm"])
        needs = _weights(policy, config)
        try:
            needs += [make(policy.llm, config, *longest) for make in (_activations, _rollout)]
        except RuntimeError as error:  # of experts in fp32, which torch multiplies one by one
            raise UserError(
                f"a pass of a {policy.llm.config.model_type} cannot be estimated "
                f"({reason(error)}); set llm.dtype: bfloat16."
            ) from error
    # The rollout has ended when the update begins.
    together = sum(need.size for need in needs) - min(need.size for need in needs[-2:])
    rows = [_part(policy, name) for name in policy.part_names]
    rows += [(n.name, _bytes_text(n.size), n.note) for n in needs]
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    free = free_memory(device := torch.device("cuda" if on_gpu else "cpu"))
    verdict = f"of {_bytes_text(free)} free: " + ("fits" if together <= free else "does not fit")
    rows.append((f"in all, on {device}", _bytes_text(together), verdict))
    lines = [f"  {name:<28} {size:>10}  {note}".rstrip() for name, size, note in rows]
    if together > free:
        largest = max(needs, key=lambda need: need.size)
        lines.append(f"  the largest: {largest.name}; {largest.fix}")
    return "\n".join(["memory of stage 5, estimated:", *lines])


def largest_update(policy: Policy, config: Config) -> int:
    """Return the bytes that the largest micro-batch of an update keeps."""
    longest = longest_prefix(config, policy)
    with torch.device("meta"):
        return _activations(policy.llm, config, *longest).size


def _part(policy: Policy, name: str) -> tuple[str, str, str]:
    """Return the row of a part: its parameters, and how they learn."""
    parameters = [p for module in policy.part(name) for p in module.parameters()]
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    count, how = sum(p.numel() for p in parameters), "learns" if learning else "frozen"
    if 0 < learning < count:
        how = f"learns by adapters of {_count_text(learning)}"
    return name, _count_text(count), how


def _weights(policy: Policy, config: Config) -> list[Need]:
    """Return the needs of weights, of what makes them learn, and of the reference."""
    learning = [p for p in policy.parameters() if p.requires_grad]
    masters = sum(4 * p.numel() for p in learning if p.dtype.itemsize < 4)
    moments = sum(ADAM * p.numel() for p in learning)
    found = [
        Need("weights", _size(policy.parameters()), "take a smaller model"),
        Need("gradients, AdamW, masters", masters + moments, "set lora.rank"),
    ]
    if config.rl.beta:
        fix, note = "set lora.rank, or rl.beta: 0", "of what learns, for the KL"
        found.append(Need("reference", _size(learning), fix, note))
    if config.llm.dtype == "float32":
        found[0].fix = "set llm.dtype: bfloat16"
    if config.lora.rank:
        found[1].fix = "lower lora.rank, or give adapters to all parts that learn"
    return found


def _activations(lm: LanguageModel, config: Config, positions: int, memory: int) -> Need:
    """Return the need of the largest micro-batch: what its LM keeps for the backward pass."""
    rl = config.rl
    group, length = rl.num_generations, rl.max_completion_length
    share = prefix_is_shared(rl.share_prefix, positions, group, length)
    count = positions * (1 if share else group) + group * length  # of a prompt
    prompts = max(1, min(rl.micro_batch_tokens // count, rl.mini_batch_prompts or rl.num_prompts))
    kept = count * kept_size(lm, memory)
    fix = "set gradient_checkpointing: true, or lower rl.micro_batch_tokens"
    if config.gradient_checkpointing:
        lm.gradient_checkpointing, fix = True, "lower rl.micro_batch_tokens"
        # One layer is computed again at a time.
        kept = count * kept_size(lm, memory) + kept // lm.config.num_hidden_layers
        kept += share * count**2 * lm.lm_head.weight.element_size()  # the mask
    elif share:
        kept += group * (positions + length) * _cache_size(lm, memory)  # a copy for each response
    kept += _memory_size(lm, memory)
    note = f"{prompts} x ({positions}{'' if share else f' x {group}'} + {group} x {length})"
    return Need("activations of an update", prompts * kept, fix, f"{note} positions of the LM")


def _rollout(lm: LanguageModel, config: Config, positions: int, memory: int) -> Need:
    """Return the need of keys and values of prefixes and responses."""
    rl = config.rl
    prompts = rl.rollout_prompts or rl.num_prompts
    rows = rl.num_generations + (rl.baseline == "greedy")
    count = positions + rows * rl.max_completion_length
    size = prompts * (count * _cache_size(lm, memory) + _memory_size(lm, memory))
    note = f"{prompts} x ({positions} + {rows} x {rl.max_completion_length}) positions"
    return Need("keys and values of rollout", size, "set a lower rl.rollout_prompts", note)


def _prefix(lm: LanguageModel, length: int, memory: int) -> Prefix:
    table = lm.model.get_input_embeddings().weight
    embeds = torch.zeros(1, length, table.size(1), dtype=table.dtype, requires_grad=True)
    prefix = Prefix(embeds, torch.ones(1, length, dtype=torch.bool))
    if memory:
        prefix.memory = torch.zeros(1, memory, table.size(1), dtype=table.dtype)
        prefix.memory_mask = torch.ones(1, memory, dtype=torch.bool)
    return prefix


def _forward(lm: LanguageModel, length: int, memory: int, **options: object) -> object:
    """Return the outputs of a row; its mask is given whole, for meta tensors tell no values."""
    prefix = _prefix(lm, length, min(memory, 1))
    with lm._recomputed():
        return lm.model(
            inputs_embeds=prefix.embeds,
            attention_mask=prefix.embeds.new_zeros(1, 1, length, length),
            position_ids=torch.arange(length)[None],
            **lm.hear(prefix),
            **options,
        )


def kept_size(lm: LanguageModel, memory: int) -> int:
    """Return the bytes that a position keeps for the backward pass, on the meta device.

    On the meta device attention keeps all of its weights, which it does nowhere else: what grows
    with the square of the length is left out, as is what does not grow.
    """
    first, second, third = (
        saved_bytes(lm, lambda n=n: _forward(lm, n, memory, use_cache=False)) for n in LENGTHS
    )
    return int(2 * (second - first) / LENGTHS[0] - (third - second) / LENGTHS[1])


def _cache_size(lm: LanguageModel, memory: int) -> int:
    """Return the bytes of keys and values of a position."""
    cache = DynamicCache(config=lm.config)
    both = EncoderDecoderCache(cache, DynamicCache()) if memory else cache
    with torch.no_grad():
        _forward(lm, 8, memory, past_key_values=both, use_cache=True)
    return _size(t for layer in cache.layers for t in (layer.keys, layer.values)) // 8


def _memory_size(lm: LanguageModel, memory: int) -> int:
    """Return the bytes of keys and values that cross attention reads of an utterance."""
    heard = lm.hear(_prefix(lm, 1, memory)).values()
    return _size(t for made in heard for layer in made.layers for t in layer)


def saved_bytes(model: nn.Module, compute: Callable[[], object]) -> int:
    """Return the bytes that `compute` keeps for its backward pass, weights aside."""
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = compute()
    del kept
    return sum(size for place, size in seen.items() if place not in weights)


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _bytes_text(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _count_text(count: int) -> str:
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.2f} M"
