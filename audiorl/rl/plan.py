"""Memory and time of an RL step on several GPUs, as sums of a recipe's sizes: nothing is run.

pass      2 x parameters + attention, per token; a backward pass costs two more, layers that are
          computed again one more
decoding  each token reads the weights and the keys and values of its rows from memory
shared    2 bytes a weight are gathered for the rollout and for the update, 4 a gradient added
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from audiorl.config.schema import Config
from audiorl.models.sketch import longest_prefix, sketch
from audiorl.rl.estimate import largest_update
from audiorl.rl.logprobs import prefix_is_shared

NODE = 8  # GPUs of a machine
TAIL = 1.4  # longest response of a rollout over the mean
COMPUTE, BANDWIDTH = 0.4, 0.7  # shares of a GPU's peaks that are reached
ADAMW = 12  # bytes a parameter: weight and two moments in fp32


@dataclass(frozen=True)
class GPU:
    """Peaks of a GPU: FLOP/s in bf16 and fp32, bytes/s of memory and links, bytes of memory."""

    flops: float
    exact: float
    memory: float
    inside: float  # to the others of its machine
    outside: float  # to other machines
    size: float

    def peak(self, dtype: str) -> float:
        """Return the FLOP/s of a type."""
        return self.flops if dtype == "bfloat16" else self.exact


GPUS = {
    "A100": GPU(312e12, 19.5e12, 2.04e12, 240e9, 25e9, 80e9),
    "H100": GPU(989e12, 67e12, 3.35e12, 360e9, 50e9, 80e9),
}


@dataclass
class Sizes:
    """Numbers that a step follows from."""

    body: int  # parameters of the LM's layers
    head: int  # of its head, and of its embeddings
    learning: int  # parameters that learn
    rest: int  # of the encoder and the adaptor
    attention: int  # FLOPs of a query and a key
    cache: int  # bytes of keys and values of a position, in bf16
    layers: int  # of the LM
    prefix: int  # positions
    update: float  # bytes that a micro-batch keeps


def sizes_of(config: Config, seconds: float) -> Sizes:
    """Return the sizes of a recipe on utterances of `seconds`."""
    policy = sketch(config)
    lm = policy.llm.config
    count = {p: p.numel() for p in policy.parameters()}
    policy_lm = sum(p.numel() for p in policy.llm.parameters())
    head = policy.llm.lm_head.weight.numel()
    body = sum(p.numel() for p in policy.llm.model.parameters()) - head
    policy.train_only(config.rl.train if config.task == "asr" else ["llm"])
    width = getattr(lm, "head_dim", None) or lm.hidden_size // lm.num_attention_heads
    short = replace(config, data=replace(config.data, max_duration=seconds))
    prefix, _ = longest_prefix(short, policy)
    return Sizes(
        body,
        head,
        sum(p.numel() for p in policy.parameters() if p.requires_grad),
        sum(count.values()) - policy_lm,
        4 * lm.num_hidden_layers * lm.num_attention_heads * width,
        4 * lm.num_hidden_layers * lm.num_key_value_heads * width,
        lm.num_hidden_layers,
        prefix,
        largest_update(policy, config),
    )


def phases(config: Config, sizes: Sizes, gpu: GPU, gpus: int, response: float) -> dict[str, float]:
    """Return the seconds of each phase of a step; `response`: tokens on average."""
    rl, prefix = config.rl, sizes.prefix
    rows = rl.num_prompts * rl.num_generations
    share = prefix_is_shared(rl.share_prefix, prefix, rl.num_generations, round(response))
    read = rl.num_prompts * (1 if share else rl.num_generations)
    fastest = gpu.peak(config.llm.dtype) * COMPUTE
    peak = gpus * fastest

    def attention(queries: float, keys: float) -> float:
        return sizes.attention * queries * keys

    forward = 2 * sizes.body * (read * prefix + rows * response) + 2 * sizes.head * rows * response
    forward += read * attention(prefix, prefix / 2)
    forward += rows * attention(response, prefix + response / 2)
    prefill = rl.num_prompts * (2 * sizes.body * prefix + attention(prefix, prefix / 2))
    alive = rows / gpus / TAIL  # rows of a GPU, on average over the steps of the longest
    token = (2 * (sizes.body + sizes.head) + alive * (prefix + response / 2) * sizes.cache) / (
        gpu.memory * BANDWIDTH
    )
    token = max(token, 2 * (sizes.body + sizes.head) * alive / fastest)
    found = {
        "rollout": prefill / peak + response * TAIL * token,
        "reference": forward / peak if rl.beta else 0.0,
        "update": forward * (4 if config.gradient_checkpointing else 3) / peak * rl.num_iterations,
        "links": 0.0,
    }
    if gpus > 1:
        link = gpu.inside if gpus <= NODE else gpu.outside
        found["links"] = (2 * 2 + 4) * sizes.learning * (gpus - 1) / gpus / link
    return found


def memory(config: Config, sizes: Sizes, gpus: int, shared: bool, response: float) -> float:
    """Return the bytes of a GPU, each with all that learns or a share of it."""
    every = sizes.body + sizes.head + sizes.rest
    own = ADAMW * sizes.learning / (gpus if shared else 1)
    whole = 2 * every + 4 * sizes.learning  # in bf16, and gradients in an update
    rl = config.rl
    prompts = max(1, rl.num_prompts // gpus)
    positions = sizes.prefix + rl.num_generations * response * TAIL
    reference = 2 * sizes.learning if rl.beta else 0
    return own + whole + reference + max(sizes.update, prompts * positions * sizes.cache)


def plan(
    config: Config, kind: str, counts: list[int], seconds: float, response: float
) -> Iterator[str]:
    """Yield the lines of a table: a row for each number of GPUs."""
    gpu, sizes = GPUS[kind], sizes_of(config, seconds)
    rl = config.rl
    rows = rl.num_prompts * rl.num_generations
    yield (
        f"{(sizes.body + sizes.head) / 1e9:.2f} B parameters of the LM, "
        f"{sizes.learning / 1e9:.2f} B learn; {rl.num_prompts} prompts of {sizes.prefix} "
        f"positions, {rows} responses of {response:g}"
    )
    yield "GPUs   rollout  reference  update  links   step    replicated     shared"
    for count in counts:
        found = phases(config, sizes, gpu, count, response)
        fits = []
        for shared in (False, True):
            size = memory(config, sizes, count, shared, response)
            fits.append(f"{size / 1e9:5.0f} GB {'   ' if size < gpu.size else '(!)'}")
        times = "  ".join(f"{value:6.1f} s" for value in found.values())
        total = sum(found.values())
        yield f"{count:4d} {times} {total:6.1f} s  {fits[0]}  {fits[1]}".rstrip()
