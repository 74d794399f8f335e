#!/usr/bin/env python3
"""GRPO for an LLM-based speech recogniser in one sitting: one file, top to bottom.

    egs/mini_asr/run.sh --stop_stage 3                  # corpus, and a supervised warm start
    python examples/grpo_from_scratch.py --steps 40     # five minutes on two cores

It reads the warm start of egs/mini_asr, improves it on utterances of its RL set, and prints the
error rate on held-out speakers and sentences before and after, with the interval of the difference.
The result is a model like any other: `python -m audiorl.bin.decode` reads it.

The parts come from the package: audio LLM, sampling, normalisation, alignment. The algorithm stands
here. `audiorl/rl/grpo.py` is the same with what a real run wants: several rewards, baselines,
clipping and KL variants, micro-batches, checkpoints, exact resumption, a log.

What differs from the paper (arXiv 2509.18569, section 4):
- one reward, R1: 1 - WER, floored at -1; the paper adds hallucination (R2) and keywords (R3);
- prompts are drawn from one set at random; the paper constructs RL data (difficulty, length, …);
- one update per rollout, so that the ratio is 1 and its clip never bites: the surrogate is written
  out below, since it is what one changes first;
- no KL term (the paper: beta 0.001 to 0.05), and a temperature of 0.6 (the paper: 1.0);
- the loss is the mean over responses of each one's mean over tokens (GRPO as in DeepSeekMath);
- a model of a few million parameters on generated speech; the paper's has 7 billion.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.engines.engine import Draws, Rollout
from audiorl.engines.native import PolicyEngine
from audiorl.engines.sampling import Sampling
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.policy import load_policy
from audiorl.rl.logprobs import response_logprobs
from audiorl.score.significance import compare
from audiorl.text.align import Counts, count_errors

ROOT = Path(__file__).resolve().parents[1]
MINI = ROOT / "egs" / "mini_asr"


@dataclass
class Settings:
    """Everything that one may want to change."""

    seed: int = 1
    prompts: int = 24  # B, utterances of a step
    group: int = 8  # G, hypotheses of an utterance
    max_length: int = 96  # tokens of a hypothesis
    temperature: float = 0.6  # nearer to greedy decoding, by which we evaluate
    learning_rate: float = 2e-4
    warmup_steps: int = 5
    clip: float = 0.2
    max_grad_norm: float = 1.0
    micro_batch: int = 4  # prompts whose gradients are computed at once


# --- 1. Encode: the encoder is frozen, so an utterance is read once.


class Frames:
    """Encoder frames [T, D] of utterances, kept from one step to the next."""

    def __init__(self, model: AudioLLM) -> None:
        self.model = model
        self.known: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, utterances: Sequence[Utterance]) -> list[Tensor]:
        for u in utterances:
            if u.id not in self.known:
                wave = torch.from_numpy(read_audio(u, self.model.sample_rate))
                self.known[u.id] = self.model.encode([wave])[0]
        return [self.known[u.id] for u in utterances]


# --- 2. Roll out: each prefix (instruction and audio) is continued G times.


@torch.no_grad()
def roll_out(
    model: AudioLLM, frames: list[Tensor], ids: list[str], step: int, settings: Settings
) -> Rollout:
    """Return B * G responses, the G of an utterance in consecutive rows.

    What an utterance draws depends on seed, step, its id and the member of its group alone.
    """
    return PolicyEngine(model).generate(
        model.prefix(frames),
        group=settings.group,
        max_length=settings.max_length,
        sampling=Sampling(settings.temperature),
        draws=Draws(settings.seed, step, ids),
    )


def texts_of(model: AudioLLM, rollout: Rollout) -> list[str]:
    """Return the transcript of each response."""
    rows = zip(rollout.tokens, rollout.mask, strict=True)
    return [model.tokenizer.decode(tokens[mask].tolist()) for tokens, mask in rows]


# --- 3. Reward: 1 - WER, at least -1, so that one burst of insertions does not outweigh its group.


def errors(reference: str, hypothesis: str) -> Counts:
    """Count word errors; the corpus has lower-case words only, so nothing is normalised."""
    return count_errors(reference.split(), hypothesis.split())


def reward(reference: str, hypothesis: str) -> float:
    """Return R1 of the paper."""
    return max(-1.0, 1.0 - errors(reference, hypothesis).rate)


# --- 4. Advantage: how much better than the group, in its own standard deviations.


def advantages(rewards: Tensor) -> Tensor:
    """Return (R - mean) / (std + 1e-4) of rewards [B, G], by group; 0 where all are equal."""
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)


# --- 5. Update: raise the log-probabilities of tokens of good responses, lower the others.


def surrogate(logps: Tensor, old_logps: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Return the clipped loss of each token, [N, R] (PPO's, with the group's advantage [N, 1])."""
    ratio = (logps - old_logps).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def mean_of_means(loss: Tensor, mask: Tensor) -> Tensor:
    """Return the sum over responses of each one's mean over its tokens, [N, R] -> []."""
    return ((loss * mask).sum(1) / mask.sum(1).clamp(min=1)).sum()


def update(
    model: AudioLLM,
    optimizer: torch.optim.Optimizer,
    frames: list[Tensor],
    rollout: Rollout,
    advantage: Tensor,
    settings: Settings,
) -> float:
    """Take one step along the gradient of the whole batch, a few prompts at a time."""
    optimizer.zero_grad()
    total = 0.0
    for first in range(0, len(frames), settings.micro_batch):
        prompts = range(first, min(first + settings.micro_batch, len(frames)))
        if not advantage[list(prompts)].any():
            continue  # all rewards of these groups are equal: no gradient
        rows = [p * settings.group + g for p in prompts for g in range(settings.group)]
        part = rollout.select(rows)
        found = response_logprobs(
            model.llm,
            model.prefix([frames[p] for p in prompts]),  # anew: the adaptor learns, too
            part.tokens,
            part.mask,
            sampling=Sampling(settings.temperature),  # the distribution that was sampled
            forbidden=model.forbidden,
            share=True,  # a prefix is read once for its group
        )
        per_token = surrogate(found.logps, part.logps, advantage.view(-1, 1)[rows], settings.clip)
        loss = mean_of_means(per_token, part.mask) / len(rollout)
        loss.backward()
        total += loss.item()
    learning = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(learning, settings.max_grad_norm)
    optimizer.step()
    return total


# --- The loop.


def step_prompts(pool: list[Utterance], step: int, settings: Settings) -> list[Utterance]:
    """Return B utterances for a step, none of them twice."""
    rng = np.random.default_rng([settings.seed, step])
    return [pool[i] for i in rng.choice(len(pool), settings.prompts, replace=False)]


def train(
    model: AudioLLM, pool: list[Utterance], steps: int, settings: Settings
) -> list[dict[str, float]]:
    """Improve `model` in place; return the numbers of each step."""
    model.eval()  # no dropout: the policy that samples is the policy that learns
    parts = model.train_only(["adaptor", "llm"])
    learning = [p for part in parts for p in part.parameters()]
    optimizer = torch.optim.AdamW(learning, settings.learning_rate, weight_decay=0.0)
    encode, log = Frames(model), []
    for step in range(steps):
        started = time.perf_counter()
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / settings.warmup_steps)
            group["lr"] = settings.learning_rate * warm * (1 - step / steps)
        utterances = step_prompts(pool, step, settings)
        frames = encode(utterances)
        rollout = roll_out(model, frames, [u.id for u in utterances], step, settings)
        references = [u.text for u in utterances for _ in range(settings.group)]
        earned = map(reward, references, texts_of(model, rollout))
        rewards = torch.tensor(list(earned)).view(settings.prompts, settings.group)
        loss = update(model, optimizer, frames, rollout, advantages(rewards), settings)
        log.append(
            {
                "reward": rewards.mean().item(),
                "spread": rewards.std(1).mean().item(),
                "length": rollout.mask.sum(1).float().mean().item(),
                "unfinished": (~rollout.finished).float().mean().item(),
                "loss": loss,
                "seconds": time.perf_counter() - started,
            }
        )
        numbers = "  ".join(f"{name} {value:7.3f}" for name, value in log[-1].items())
        print(f"step {step + 1:3d}  {numbers}", flush=True)
    return log


# --- Evaluation: greedy decoding of utterances that training never sees.


@torch.no_grad()
def evaluate(model: AudioLLM, utterances: list[Utterance], max_length: int) -> list[Counts]:
    """Return the word errors of greedy hypotheses, by utterance."""
    model.eval()
    engine, encode, found = PolicyEngine(model), Frames(model), []
    for first in range(0, len(utterances), 32):
        batch = utterances[first : first + 32]
        rollout = engine.generate(
            model.prefix(encode(batch)),
            group=1,
            max_length=max_length,
            sampling=Sampling(greedy=True),
        )
        found += map(errors, [u.text for u in batch], texts_of(model, rollout))
    return found


def report(before: list[Counts], after: list[Counts]) -> str:
    """Return WER before and after, and the paired bootstrap interval of the difference."""
    columns = ([c.errors for c in before], [c.errors for c in after], [c.units for c in before])
    old, new, units = map(np.array, columns)
    difference = compare(old, new, units, samples=2000, seed=1)
    low, high = (100 * bound for bound in difference.interval)
    return (
        f"WER {100 * old.sum() / units.sum():.1f} % -> {100 * new.sum() / units.sum():.1f} %, "
        f"difference {100 * difference.difference:+.1f} points [{low:+.1f}, {high:+.1f}] "
        f"on {len(old)} utterances"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--init", type=Path, default=MINI / "exp/sft", help="experiment to improve")
    parser.add_argument("--dump", type=Path, default=MINI / "dump", help="folder of formatted sets")
    parser.add_argument("--train", default="rl", help="set that prompts are drawn from")
    parser.add_argument("--test", nargs="+", default=["test_clean", "test_noisy"], help="held out")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--prompts", type=int, default=Settings.prompts, help="utterances a step")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--out", type=Path, help="experiment to write the model to")
    args = parser.parse_args()
    settings = Settings(seed=args.seed, prompts=args.prompts)
    model = load_policy(args.init / "model")
    held_out = [u for name in args.test for u in read_utterances(args.dump / name)]
    before = evaluate(model, held_out, settings.max_length)
    train(model, read_utterances(args.dump / args.train), args.steps, settings)
    print(report(before, evaluate(model, held_out, settings.max_length)))
    if args.out:
        model.save(args.out / "model")


if __name__ == "__main__":
    main()
