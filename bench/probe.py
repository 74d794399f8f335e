"""Times the difficulty probe of stage 4 beside the plain rollout of the same utterances.

example:
  python bench/probe.py --shape asr_short --repeats 5

Both read the same audio, draw as many hypotheses and reward them, in one process and in turns; the
probe also decodes greedily and writes what was said to a file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
import torch
from grpo_step import circumstances
from link import Clock
from ours import STACK, bench_model, mean_word
from shapes import SHAPES, Shape

from audiorl.bin.cli import parser, run
from audiorl.data.utterance import Utterance
from audiorl.engines.native import PolicyEngine
from audiorl.infer.transcribe import encode_utterances
from audiorl.models.audio_llm import AudioLLM
from audiorl.rewards import WeightedSum
from audiorl.rl.groups import Sampler, read_text
from audiorl.rl_data.probe import PROBE_STEP, ProbeFile, probe
from audiorl.runtime.files import progress, write_json

RATE = 16000
FRAMES = 25  # of the encoder, a second


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--shape", choices=SHAPES, default="asr_short", help="lengths and counts")
    options.add_argument("--batches", type=int, default=2, help="of as many utterances as a step's")
    options.add_argument("--repeats", type=int, default=5, help="of each, after one to warm up")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--json", type=Path, metavar="FILE", help="where to write all numbers")
    args = options.parse_args()
    shape = SHAPES[args.shape]
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(shape, args.batches, args.repeats, args.threads, Path(folder))
    rates = {name: median(result["utterances"] / s["cpu"] for s in result[name]) for name in WAYS}
    for name, rate in rates.items():
        print(f"{name:<8}{rate:8.2f} utterances a second of processor time")
    ratios = [r["cpu"] / p["cpu"] for r, p in zip(result["rollout"], result["probe"], strict=True)]
    print(f"probe / rollout: {median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
    if args.json:
        write_json(args.json, {**circumstances(), "shape": args.shape, **result})


def measure(shape: Shape, batches: int, repeats: int, threads: int, folder: Path) -> dict:
    """Seconds of each way and repeat, the two in turns."""
    model = bench_model(shape, threads, micro_batch_tokens=1024)
    utterances = noises(shape, batches * shape.prompts, folder)
    seconds: dict[str, list[dict]] = {name: [] for name in WAYS}
    for repeat in progress(range(repeats + 1), desc="repeats"):
        for name, way in WAYS.items():
            clock = Clock()
            hypotheses = way(model, utterances, folder / f"{repeat}.jsonl")
            took = clock.read()
            assert hypotheses == len(utterances) * shape.group
            if repeat:
                seconds[name].append(took)
    return {"utterances": len(utterances), **seconds}


def noises(shape: Shape, count: int, folder: Path) -> list[Utterance]:
    """Recordings that are as long as the shape's prefix."""
    seconds = shape.prefix * STACK / FRAMES
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        path = folder / f"{i}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(int(seconds * RATE)), RATE)
        made.append(Utterance(str(i), str(path), "", "", duration=seconds))
    return made


def rewards() -> WeightedSum:
    return WeightedSum({"mean_word": (mean_word, 1.0)})


def by_rollout(model: AudioLLM, utterances: list[Utterance], path: Path) -> int:
    """What a step of training does before it learns; returns the number of hypotheses."""
    read, size, total = read_text(model.tokenizer), model.recipe.rl.num_prompts, 0
    sampler = Sampler(PolicyEngine(model), model.recipe.rl, model.recipe.seed)
    for batch in (utterances[i : i + size] for i in range(0, len(utterances), size)):
        frames = encode_utterances(model, batch)
        samples = read(
            batch,
            sampler.groups(batch, frames, PROBE_STEP),
        )
        total += len(rewards()(samples).total)
    return total


def by_probe(model: AudioLLM, utterances: list[Utterance], path: Path) -> int:
    sampler = Sampler(PolicyEngine(model), model.recipe.rl, model.recipe.seed)
    found = probe(sampler, utterances, rewards(), ProbeFile(path, {}, {}))
    return sum(len(probed.samples) for probed in found.values())


WAYS = {"rollout": by_rollout, "probe": by_probe}


if __name__ == "__main__":
    run(main)
