"""Hours, memory and precision of the stages that want a GPU, as sums of a recipe's sizes.

Small models are measured: what a pass over one utterance multiplies and keeps, on the CPU. The LM
is estimated, as in a step of RL. No pass is faster than its kernels are launched, for which a time
is assumed. Reading, evaluations and rewards are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from audiorl.config.schema import Config
from audiorl.errors import UserError
from audiorl.models.codec import CodecSettings, new_codec
from audiorl.models.encoder import Encoder
from audiorl.models.judge import Judge, JudgeSettings
from audiorl.models.sketch import Sketch, sketch
from audiorl.models.token_recogniser import RecogniserFacts, RewardModelSettings, TokenRecogniser
from audiorl.rl.estimate import kept_size, saved_bytes
from audiorl.rl.plan import ADAMW, COMPUTE, GPU, GPUS, TAIL, Sizes, memory, phases, sizes_of

SPOKEN = "a"  # of the utterances that small models are measured on
LAUNCH = 0.5e-3  # s a pass of a layer at least, assumed: some 50 kernels, 10 us each
MASTERS = 2  # bytes a bf16 weight takes beside those of one in fp32: itself, in 2


@dataclass
class StageNeed:
    """A program of a stage: its updates (None: it has none), seconds, bytes and precision."""

    name: str
    updates: int | None
    seconds: float
    size: float
    precision: str = "float32"


def stage_rows(
    config: Config, gpu: GPU, seconds: float, response: float, rl_set: int, tests: int
) -> Iterator[StageNeed]:
    """Yield the programs of stages 3 to 6 on one GPU.

    `seconds` and `response` (tokens) are of an utterance on average; `rl_set` and `tests`: number
    of utterances. Raises UserError for a warm start with a pretrained encoder.
    """
    sizes, keys, dtype = sizes_of(config, seconds), config.decode, config.llm.dtype
    if config.speaks and config.codec.type == "native":
        yield from _beside_the_lm(config, gpu, seconds)
    if config.sft.schedule.max_steps:
        yield _warm_start(config, gpu, sizes, seconds, response)

    def at_once(prompts: float, group: int) -> tuple[dict[str, float], float]:
        """Seconds of the phases of a step, and bytes without what learns."""
        rl = replace(config.rl, num_prompts=prompts, num_generations=group)
        changed, still = replace(config, rl=rl), replace(sizes, learning=0, update=0.0)
        phased = phases(changed, sizes, gpu, 1, response)
        for phase, passes in (("rollout", response * TAIL), ("update", 3)):
            phased[phase] = max(phased[phase], passes * sizes.layers * LAUNCH)
        return phased, memory(changed, still, 1, False, response)

    rows = keys.batch_size if config.speaks else max(1, keys.batch_seconds // seconds)
    prompts, group, updates = config.rl.num_prompts, config.rl.num_generations, config.rl.max_steps
    (reading, small), (step, large) = at_once(rows, 1), at_once(prompts, group)
    spent, size = (reading["rollout"] / rows, small)
    if not config.speaks:  # hypotheses of each utterance, as in a step
        spent, size = spent + step["rollout"] / prompts, large
    probed = min(rl_set, config.rl_data.probe_utterances or rl_set)
    yield StageNeed("4 RL data", None, probed * spent, size, dtype)
    most = memory(config, sizes, 1, False, response)
    name = f"5 {config.rl.algorithm}"
    yield StageNeed(name, updates, updates * sum(step.values()), most, dtype)
    if not config.speaks:
        update = at_once(prompts, 1)[0]["update"]
        yield StageNeed("5 control", updates, updates * update, most, dtype)
    yield StageNeed("6 decoding", None, tests * reading["rollout"] / rows, small, dtype)


def _warm_start(
    config: Config, gpu: GPU, sizes: Sizes, seconds: float, response: float
) -> StageNeed:
    policy, sft = sketch(config), config.sft
    positions = sizes.prefix + response
    flops = 2 * (sizes.body + sizes.head) * positions
    flops += sizes.attention * positions * positions / 2
    peak = gpu.peak(config.llm.dtype) * COMPUTE
    with torch.device("meta"):
        kept = positions * kept_size(policy.llm, 0)
    if config.speaks:
        count, spent = sft.batch_tokens / positions, 0.0
    else:
        if not isinstance(policy, Sketch) or not isinstance(policy.encoder, Encoder):
            raise UserError("a warm start of a pretrained encoder cannot be planned; see --gpus.")
        count = sft.batch_seconds / seconds
        encoder = Encoder(config.encoder, config.frontend.n_mels, config.encoder.input_layer)
        features = torch.zeros(1, int(100 * seconds), config.frontend.n_mels)
        own, bytes_kept = measured(
            encoder, lambda: encoder(features, torch.tensor([features.size(1)]))
        )
        spent, kept = own / (gpu.peak("float32") * COMPUTE), kept + bytes_kept
    layers = sizes.layers + (0 if config.speaks else config.encoder.num_blocks)
    updates, batches = sft.schedule.max_steps, sft.schedule.gradient_accumulation_steps
    each = 3 * batches * max((flops / peak + spent) * count, layers * LAUNCH)
    weights = sum(
        p.numel() * (ADAMW + 4 + MASTERS * (p.dtype.itemsize < 4)) for p in policy.parameters()
    )
    precision = config.llm.dtype if config.speaks else f"{config.llm.dtype}, encoder float32"
    return StageNeed("3 warm start", updates, updates * each, weights + count * kept, precision)


def _beside_the_lm(config: Config, gpu: GPU, seconds: float) -> Iterator[StageNeed]:
    """Yield the trainings of codec, judge and reward model."""
    wave = torch.zeros(int(config.data.sample_rate * seconds))
    codec = new_codec(CodecSettings.of(config), [SPOKEN])
    tokens = torch.zeros(int(seconds * codec.token_rate), dtype=torch.long)
    judge = Judge.of(JudgeSettings.of(config), [SPOKEN], [SPOKEN])
    info = {"codebook_size": codec.codebook_size}
    reader = TokenRecogniser(RewardModelSettings.of(config), RecogniserFacts(info, SPOKEN))
    losses: list[tuple[str, nn.Module, object, Callable[[], object]]] = [
        ("codec, tokens", codec, config.codec, lambda: codec.tokens_loss([wave], [SPOKEN])),
        ("codec, sound", codec, config.flow, lambda: codec.flow_loss([wave], [tokens], [wave])),
        ("judge", judge, config.judge, lambda: judge.losses([wave], [SPOKEN], [SPOKEN])),
        ("reward model", reader, config.reward_model, lambda: _read(reader, tokens)),
    ]
    for name, model, keys, loss in losses:
        flops, kept = measured(model, loss)
        count, updates = keys.batch_seconds / seconds, keys.schedule.max_steps
        layers = getattr(keys, "num_blocks", 0) or keys.encoder.num_blocks
        spent = 3 * max(flops * count / (gpu.peak("float32") * COMPUTE), layers * LAUNCH)
        weights = (ADAMW + 4) * sum(p.numel() for p in model.parameters())
        yield StageNeed(f"3 {name}", updates, updates * spent, weights + count * kept)


def _read(reader: TokenRecogniser, tokens: Tensor) -> Tensor:
    rows, lengths = reader.pad([tokens.tolist()])
    return reader.log_likelihood(reader.embed(rows), lengths, [SPOKEN])


def measured(model: nn.Module, compute: Callable[[], object]) -> tuple[int, int]:
    """Return the FLOPs of a forward pass, and the bytes that it keeps for its backward pass."""
    with FlopCounterMode(display=False) as counter:
        kept = saved_bytes(model, compute)
    return counter.get_total_flops(), kept


def stages(
    config: Config, kind: str, seconds: float, response: float, rl_set: int, tests: int
) -> Iterator[str]:
    """Yield the lines of a table; see `stage_rows`."""
    yield f"{'stage':26} updates    hours    memory  precision"
    for row in stage_rows(config, GPUS[kind], seconds, response, rl_set, tests):
        updates, hours = "" if row.updates is None else row.updates, row.seconds / 3600
        told = "<0.01" if hours < 0.01 else f"{hours:.2g}" if hours < 1 else f"{hours:.1f}"
        yield f"{row.name:26} {updates:>7} {told:>8} {row.size / 1e9:6.1f} GB  {row.precision}"
