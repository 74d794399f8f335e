"""Memory of RL, estimated from a recipe alone: neither weights nor data are read.

The models are built on torch's meta device, where a forward pass costs nothing and tells what the
backward pass would keep.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from audiorl.config.schema import Config
from audiorl.errors import UserError, reason
from audiorl.models.audio_llm import Adaptor
from audiorl.models.encoder import Encoder
from audiorl.models.families.pretrained import PretrainedAudioLLM, pretrained_family
from audiorl.models.frontend import FRAME_SHIFT
from audiorl.models.language_model import LanguageModel, build_lm
from audiorl.models.policy import Policy, find_policy
from audiorl.rl.logprobs import prefix_is_shared

ADAM = 12  # bytes of a gradient and two moments, in fp32
INSTRUCTION, TEXT_LENGTH = 16, 100  # tokens around the audio; of a text to be spoken
SPEECH_ROWS = 4096  # of a codec whose codes the recipe does not tell


class Sketch(Policy):
    """The parts of a policy, without what makes them run."""

    encode = prefix = prefix_length = from_settings = save_vocabulary = None

    def __init__(self, llm: LanguageModel, **others: nn.Module) -> None:
        super().__init__()
        self.llm = llm
        for name, module in others.items():
            setattr(self, name, module)
        self.part_names = (*others, "llm")


@dataclass
class Need:
    """Bytes that something takes."""

    name: str
    size: int
    note: str = ""  # what it depends on
    fix: str = ""  # the keys that make it smaller


def estimate(config: Config) -> str:
    """Return a table of what stage 5 needs, and whether the device that is there has as much.

    Raises UserError for layers of `lora.targets` that are not there, and for a pretrained LM whose
    config.json cannot be read.
    """
    policy = sketch(config)
    with torch.device("meta"):
        names = config.rl.train if config.task == "asr" else ["llm"]
        policy.adapt(config.lora, 0)
        policy.train_only(names)
        parts = [_part(policy, name) for name in policy.part_names]
        positions = longest_prefix(config, policy)
        needs = _weights(policy, config)
        try:
            needs += [make(policy.llm, config, positions) for make in (_activations, _rollout)]
        except RuntimeError as error:  # of experts in fp32, which torch multiplies one by one
            raise UserError(
                f"a pass of a {policy.llm.config.model_type} cannot be estimated "
                f"({reason(error)}); set llm.dtype: bfloat16."
            ) from error
    # The rollout has ended when the update begins.
    together = sum(need.size for need in needs) - min(need.size for need in needs[-2:])
    lines = ["memory of stage 5, estimated:", *parts]
    lines += [f"  {n.name:<28} {gigabytes(n.size):>10}  {n.note}".rstrip() for n in needs]
    lines.append(_verdict(needs, together, config))
    return "\n".join(lines)


def sketch(config: Config) -> Policy:
    """Return the policy of a recipe as it is without weights."""
    if name := config.model.pretrained:
        return find_policy(pretrained_family(name)).without_weights(config)
    with torch.device("meta"):
        return _built(config)


def _built(config: Config) -> Sketch:
    llm, rows = config.llm, config.tokenizer.vocab_size
    if config.task == "tts":
        codes = 3**config.codec.fsq_dims if config.codec.type == "native" else SPEECH_ROWS
        rows += codes
    try:
        lm = build_lm(llm, rows, 1, llm.pretrained or None)
    except (OSError, ValueError) as error:
        raise UserError(
            f"llm.pretrained: the config.json of {llm.pretrained} cannot be read "
            f"({reason(error)}); give a folder or a hub name of a causal LM."
        ) from error
    if config.task == "tts":
        return Sketch(lm)
    encoder = Encoder(config.encoder, config.frontend.n_mels, config.encoder.input_layer)
    sizes = (config.encoder.output_size, config.adaptor.stack, config.adaptor.hidden_size)
    return Sketch(lm, encoder=encoder, adaptor=Adaptor(*sizes, lm.config.hidden_size))


def longest_prefix(config: Config, policy: Policy) -> int:
    """Return the positions of the longest utterance's prefix."""
    if config.task == "tts":
        return TEXT_LENGTH
    with torch.device("cpu"):
        if isinstance(policy, PretrainedAudioLLM):
            return policy.longest_prefix(config.data.max_duration)
        frames = torch.tensor(int(config.data.max_duration * 1000 / FRAME_SHIFT))
        return INSTRUCTION + int(policy.encoder.num_frames(frames)) // config.adaptor.stack


def _part(policy: Policy, name: str) -> str:
    """Return the line of a part: its parameters, and how they learn."""
    parameters = [p for module in policy.parts([name]) for p in module.parameters()]
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    count = sum(p.numel() for p in parameters)
    how = "frozen"
    if learning:
        how = "learns" if learning == count else f"learns by adapters of {_millions(learning)}"
    return f"  {name:<28} {_millions(count):>10}  {how}"


def _weights(policy: Policy, config: Config) -> list[Need]:
    """Return the needs of weights, of what makes them learn, and of the reference."""
    learning = [p for p in policy.parameters() if p.requires_grad]
    masters = sum(4 * p.numel() for p in learning if p.dtype.itemsize < 4)
    moments = sum(ADAM * p.numel() for p in learning)
    found = [
        Need("weights", _bytes(policy.parameters()), fix="llm.dtype: bfloat16"),
        Need("gradients, AdamW, masters", masters + moments, fix="lora.rank"),
    ]
    if config.rl.beta:
        note = "of what learns, for the KL"
        found.append(Need("reference", _bytes(learning), note, "rl.beta: 0, lora.rank"))
    return found


def _activations(lm: LanguageModel, config: Config, positions: int) -> Need:
    """Return the need of the largest micro-batch: what its LM keeps for the backward pass."""
    rl = config.rl
    group, length = rl.num_generations, rl.max_completion_length
    share = prefix_is_shared(rl.share_prefix, positions, group, length)
    count = positions * (1 if share else group) + group * length  # of a prompt
    prompts = max(1, min(rl.micro_batch_tokens // count, rl.mini_batch_prompts or rl.num_prompts))
    kept = count * _kept_bytes(lm)
    fix = "gradient_checkpointing: true, rl.micro_batch_tokens"
    if config.gradient_checkpointing:
        lm.gradient_checkpointing, fix = True, "rl.micro_batch_tokens"
        # One layer is computed again at a time.
        kept = count * _kept_bytes(lm) + kept // lm.config.num_hidden_layers
        kept += share * count**2 * lm.lm_head.weight.element_size()  # the mask
    elif share:
        kept += group * (positions + length) * _cache_bytes(lm)  # a copy for each response
    note = f"{prompts} x ({positions}{'' if share else f' x {group}'} + {group} x {length})"
    return Need("activations of an update", prompts * kept, f"{note} positions of the LM", fix)


def _rollout(lm: LanguageModel, config: Config, positions: int) -> Need:
    """Return the need of the rollout: keys and values of prefixes and responses."""
    rl = config.rl
    prompts = rl.rollout_prompts or rl.num_prompts
    rows = rl.num_generations + (rl.baseline == "greedy")
    size = prompts * (positions + rows * rl.max_completion_length) * _cache_bytes(lm)
    note = f"{prompts} x ({positions} + {rows} x {rl.max_completion_length}) positions"
    return Need("keys and values of rollout", size, note, "rl.rollout_prompts")


def _forward(lm: LanguageModel, length: int, **options: object) -> object:
    """Return the outputs of a row; its mask is given whole, for meta tensors tell no values."""
    table = lm.model.get_input_embeddings().weight
    embeds = torch.zeros(1, length, table.size(1), dtype=table.dtype, requires_grad=True)
    mask = torch.zeros(1, 1, length, length, dtype=table.dtype)
    with lm._recomputed():
        return lm.model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=torch.arange(length)[None],
            **options,
        )


def _kept_bytes(lm: LanguageModel) -> int:
    """Return what a position keeps for the backward pass.

    On the meta device attention keeps all of its weights, which it does nowhere else: what grows
    with the square of the length is left out.
    """
    short, long = (
        saved_bytes(lm, lambda n=n: _forward(lm, n, use_cache=False)) / n for n in (64, 128)
    )
    return int(2 * short - long)


def _cache_bytes(lm: LanguageModel) -> int:
    """Return the keys and values of a position."""
    cache = DynamicCache(config=lm.config)
    with torch.no_grad():
        _forward(lm, 8, past_key_values=cache, use_cache=True)
    return sum(_bytes([layer.keys, layer.values]) for layer in cache.layers) // 8


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


def _verdict(needs: list[Need], together: int, config: Config) -> str:
    there, where = _device(config)
    line = f"  {'in all':<28} {gigabytes(together):>10}  of {gigabytes(there)} of {where}"
    if together <= there:
        return f"{line}: fits"
    largest = max(needs, key=lambda need: need.size)
    return f"{line}: does not fit\n  the largest: {largest.name}; smaller by {largest.fix}"


def _device(config: Config) -> tuple[int, str]:
    """Return the bytes of the device that a run would take, and its name."""
    if config.device != "cpu" and torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1], torch.cuda.get_device_name()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "this machine's memory"


def _bytes(tensors: object) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def gigabytes(size: int) -> str:
    """Return a size to 3 digits."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count < 1e9 else f"{count / 1e9:.2f} B"
