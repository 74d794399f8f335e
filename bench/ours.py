"""The process in which a GRPO step of this project is timed; grpo_step.py starts it.

The audio encoder is left out, since a text trainer has none: utterances come with ready frames, and
adaptor, LM, rollout, reward and update are the ones that recipes run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from link import Clock, Link, peak_memory
from shapes import Shape
from torch import Tensor

from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance
from audiorl.engines.native import PolicyEngine
from audiorl.models.audio_llm import AudioLLM, AudioLLMSettings
from audiorl.rewards import Sample, WeightedSum
from audiorl.rl.groups import Sampler, read_text
from audiorl.rl.grpo import GRPO
from audiorl.runs.optimizer import Optimizers

FRAME_SIZE = 64
STACK = 2


class Words:
    """A tokenizer whose words are numbers; the end token is forbidden: all lengths are equal."""

    pad_id, eos_id = 0, 1

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.forbidden_ids = [self.pad_id, self.eos_id]

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join(map(str, ids))


class ReadyFrames:
    """Stands for the store of encoder frames: as many as make a prefix of the shape's length."""

    def __init__(self, shape: Shape) -> None:
        self.size = (shape.prefix * STACK, FRAME_SIZE)

    def get(self, utterances: Sequence[Utterance]) -> list[Tensor]:
        return [
            torch.randn(self.size, generator=torch.Generator().manual_seed(int(u.id)))
            for u in utterances
        ]


def mean_word(samples: Sequence[Sample]) -> list[float]:
    """Costs nothing, and differs between the hypotheses of a group."""
    words = [[int(word) for word in sample.text.split()] for sample in samples]
    return [sum(row) / len(row) for row in words]


def bench_model(shape: Shape, threads: int, micro_batch_tokens: int) -> AudioLLM:
    config = Config(device="cpu", num_threads=threads)
    config.encoder.output_size = FRAME_SIZE
    config.encoder.attention_heads = config.encoder.num_blocks = 1
    config.encoder.linear_units = 8
    config.sft.ctc_weight = 0.0
    config.adaptor.stack = STACK
    llm = config.llm
    llm.architecture, llm.prompt = "qwen3", "{audio}"
    llm.hidden_size, llm.intermediate_size = shape.hidden, shape.intermediate
    llm.num_hidden_layers = shape.layers
    llm.num_attention_heads = llm.num_key_value_heads = shape.heads
    config.rl.num_prompts, config.rl.num_generations = shape.prompts, shape.group
    config.rl.max_completion_length = shape.completion
    config.rl.micro_batch_tokens = micro_batch_tokens
    torch.manual_seed(0)
    settings = AudioLLMSettings.of(config, "audio_llm")
    model = AudioLLM(settings, Words(shape.vocab)).eval()
    model.recipe = config
    return model


def flop_rate(size: int = 1536, repeats: int = 5) -> float:
    """Operations a second of a large fp32 matrix product, with the threads of this process."""
    left, right = torch.randn(2, size, size)
    seconds = []
    for _ in range(repeats + 1):
        clock = Clock()
        left @ right
        seconds.append(clock.read()["cpu"])
    return 2 * size**3 * torch.get_num_threads() / min(seconds)


def learner(shape: Shape, threads: int, micro_batch_tokens: int) -> GRPO:
    model = bench_model(shape, threads, micro_batch_tokens)
    model.encoder.requires_grad_(False)
    rl = model.recipe.rl
    optimizer = Optimizers([model.adaptor, model.llm], rl.learning_rate, 0.0)
    rewards = WeightedSum({"mean_word": (mean_word, 1.0)})
    read = read_text(model.tokenizer)
    sampler = Sampler(PolicyEngine(model), rl, model.recipe.seed)
    return GRPO(sampler, None, rewards, optimizer, ReadyFrames(shape), read)


def timed_step(grpo: GRPO, shape: Shape, step: int) -> dict:
    """Runs a step on prompts that no other step has; what it took, and what it read and wrote."""
    ids = range(step * shape.prompts, (step + 1) * shape.prompts)
    utterances = [Utterance(str(i), "", "", "", duration=1.0) for i in ids]
    clock = Clock()
    metrics = grpo.step(step, utterances, 1.0).metrics
    seconds = clock.read()
    prefix = grpo.model.prefix(grpo.conditions.get(utterances))
    phases = {
        name.removeprefix("timing_s/"): value
        for name, value in metrics.items()
        if name.startswith("timing_s/") and name != "timing_s/step"
    }
    return {
        **seconds,
        "tokens": round(metrics["completions/mean_length"] * shape.rows),
        "prefix": prefix.lengths.float().mean().item(),
        "phases": phases,
    }


def main() -> None:
    link = Link()
    request = link.receive()
    shape = Shape(**request["shape"])
    torch.set_num_threads(request["threads"])
    grpo = learner(shape, request["threads"], request["micro_batch_tokens"])
    link.send({"parameters": sum(p.numel() for p in grpo.model.llm.parameters())})
    start = peak_memory()
    step = 0
    while request := link.receive():
        if request["do"] == "rate":
            link.send({"flop_rate": flop_rate()})
        else:
            link.send({**timed_step(grpo, shape, step), "start": start, "peak": peak_memory()})
            step += 1


if __name__ == "__main__":
    main()
