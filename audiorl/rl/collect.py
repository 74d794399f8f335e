"""Groups of hypotheses with their rewards; flat groups are drawn anew."""

from __future__ import annotations

import functools
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from audiorl.config.rl import RLConfig
from audiorl.data.utterance import Utterance
from audiorl.engines.engine import Rollout
from audiorl.errors import UserError
from audiorl.models.policy import Policy
from audiorl.rewards import BatchRewards, Sample
from audiorl.rl.advantages import flat_groups
from audiorl.rl.groups import Interpret, Sampler
from audiorl.rl.phases import Phases
from audiorl.rl.placement import Later
from audiorl.runtime import ranks
from audiorl.runtime.sharding import whole

log = logging.getLogger(__name__)

RESAMPLES = 3  # draws, at most, that replace flat groups

# (step, attempt, ids taken, count) -> utterances that are not among the taken ones
MorePrompts = Callable[[int, int, set[str], int], list[Utterance]]


class Rewarder(Protocol):
    """Rewards of samples, here or in other processes (`WeightedSum`, `RewardWorkers`)."""

    def submit(self, samples: Sequence[Sample]) -> Callable[[], BatchRewards]:
        """Begin to reward samples; the function returned waits for their rewards."""


class Conditions(Protocol):
    """Conditions that responses to utterances depend on (see `Policy`)."""

    def get(self, utterances: Sequence[Utterance]) -> list[Tensor]:
        """Of each utterance, on the host, without gradient."""

    def encode(self, model: Policy, utterances: Sequence[Utterance]) -> list[Tensor]:
        """Made anew by `model`, with gradient where gradients are on."""


@dataclass
class Batch:
    """B prompts with G hypotheses each; the G of a prompt are consecutive rows of the rollout."""

    utterances: list[Utterance]
    conditions: list[Tensor | None]  # B, of unequal lengths, on the host; None: another process's
    rollout: Rollout  # B * G rows
    samples: list[Sample]
    earned: BatchRewards
    greedy: Tensor | None = None  # [B], reward of the greedy hypotheses, if a baseline needs it
    resampled: int = 0  # prompts that were drawn because others were flat
    given: list[bool] | None = None  # B, whether the group was given the empty response

    @property
    def rewards(self) -> Tensor:
        """[B, G] fp64; NaN: unscorable, or not to be compared with a greedy hypothesis."""
        rewards = self._by_group(self.earned.total)
        if self.greedy is None:
            return rewards
        return rewards.masked_fill(self.greedy.isnan()[:, None], torch.nan)

    @property
    def failed(self) -> Tensor:
        """[B, G] bool: unscorable because a reward failed, not because none applies."""
        return torch.tensor(list(map(bool, self.earned.failed))).view(len(self.utterances), -1)

    def part(self, name: str) -> Tensor:
        """One reward, raw, [B, G]; NaN where it does not apply, and on unscorable samples."""
        part = self._by_group(self.earned.parts[name])
        return part.masked_fill(self.rewards.isnan(), torch.nan)

    def _by_group(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).view(len(self.utterances), -1)

    def compare_with(self, greedy: BatchRewards) -> None:
        """Take the rewards of the greedy hypotheses; where one failed, so has its whole group."""
        self.greedy = torch.tensor(greedy.total, dtype=torch.float64)
        group = len(self.samples) // len(self.utterances)
        self.earned.failed = [
            own or greedy.failed[row // group] for row, own in enumerate(self.earned.failed)
        ]

    def rows(self, prompts: Sequence[int]) -> Tensor:
        """The rows of some prompts' groups."""
        group = len(self.samples) // len(self.utterances)
        return (torch.tensor(prompts)[:, None] * group + torch.arange(group)).flatten()

    @property
    def own(self) -> list[int]:
        """The prompts that this process learns from."""
        return [p for p, condition in enumerate(self.conditions) if condition is not None]

    def select(self, prompts: Sequence[int]) -> Batch:
        """Some of the prompts, with their groups."""
        rows = self.rows(prompts).tolist()
        return Batch(
            [self.utterances[p] for p in prompts],
            [self.conditions[p] for p in prompts],
            self.rollout.select(rows),
            [self.samples[row] for row in rows],
            self.earned.select(rows),
            None if self.greedy is None else self.greedy[prompts],
            self.resampled,
            self.given and [self.given[p] for p in prompts],
        )

    def join(self, other: Batch) -> Batch:
        """The prompts of both."""
        return Batch(
            self.utterances + other.utterances,
            self.conditions + other.conditions,
            self.rollout.join(other.rollout),
            self.samples + other.samples,
            self.earned.join(other.earned),
            None if self.greedy is None else torch.cat([self.greedy, other.greedy]),
            self.resampled + other.resampled,
            self.given and self.given + other.given,
        )


class Collector:
    """Encodes, samples and rewards the prompts of a step."""

    def __init__(
        self,
        sampler: Sampler,
        rewards: Rewarder,
        conditions: Conditions,
        interpret: Interpret,
        more: MorePrompts | None,
    ) -> None:
        self.sampler = sampler
        self.rewards = rewards
        self.conditions = conditions
        self.interpret = interpret
        self.more = more
        # Beside the drawing of the next prompts, which need not wait for a vocoder or a server;
        # unless both would need the device.
        self.aside = Later() if sampler.placement else ThreadPoolExecutor(1, "rewards")
        self.config: RLConfig = sampler.rl

    def __call__(self, step: int, utterances: Sequence[Utterance], phases: Phases) -> Batch:
        """The groups of `utterances`; with `rl.dynamic_sample`, others in place of flat ones.

        Flat groups that are left after `RESAMPLES` draws stay: they have no gradient, but are
        counted. Raises UserError if the policy gives no numbers, or rewards fail on too many.
        """
        batch = self._groups(step, utterances, phases)
        failed = list(batch.earned.failed)
        self._refuse_failed_rewards(step, failed)
        if not self.config.dynamic_sample:
            return batch
        taken = {u.id for u in utterances}
        for attempt in range(RESAMPLES):
            flat = self._flat(batch)
            if not flat.any():
                break
            fresh = self.more(step, attempt, taken, int(flat.sum()))
            if not fresh:
                break
            taken |= {u.id for u in fresh}
            found = self._groups(step, fresh, phases)
            # All that was drawn counts: of a few groups, one sample is a large share.
            failed += found.earned.failed
            self._refuse_failed_rewards(step, failed)
            useful = (~self._flat(found)).nonzero().flatten().tolist()
            if useful:
                # The first flat groups make room, so that the step keeps its size.
                spared = flat.nonzero().flatten().tolist()[len(useful) :]
                kept = (~flat).nonzero().flatten().tolist() + spared
                batch = batch.select(sorted(kept)).join(found.select(useful))
                batch.resampled += len(useful)
        return batch

    def _groups(self, step: int, utterances: Sequence[Utterance], phases: Phases) -> Batch:
        """Groups of new hypotheses; while some are rewarded, the next are drawn.

        With `rollout_prompts` below the prompts of a step, neither a vocoder nor a server of
        rewards is waited for but after the last of them. Of several processes each draws its
        share, and returns the groups of all.
        """
        own = ranks.share(utterances)
        size = self.config.rollout_prompts or max(1, len(own))
        with whole(self.sampler.engine.policy):
            drawn = [self._draw(step, own[i : i + size], phases) for i in range(0, len(own), size)]
        with phases("reward"):
            found = [functools.reduce(Batch.join, (finish() for finish in drawn))] if drawn else []
            if ranks.size() > 1:
                found = _gather(found)
        batch = functools.reduce(Batch.join, found)
        _tell_left_out(step, batch)
        return batch

    def _draw(
        self, step: int, utterances: Sequence[Utterance], phases: Phases
    ) -> Callable[[], Batch]:
        """Samples the groups of a few prompts; the function returned waits for their rewards."""
        with phases("encode"):
            conditions = self.conditions.get(utterances)
        with phases("rollout"):
            rollout = self.sampler.groups(utterances, conditions, step)
            self._refuse_broken_policy(step, rollout)
            given = self._give_silence(step, utterances, conditions, rollout)
        scored = self.aside.submit(self._reward, utterances, rollout)
        best = None
        if self.config.baseline == "greedy":
            with phases("rollout"):
                greedy = self.sampler.greedy(conditions)
            best = self.aside.submit(self._reward, utterances, greedy)

        def finish() -> Batch:
            samples, earned = scored.result()
            batch = Batch(list(utterances), conditions, rollout, samples, earned(), given=given)
            if best:
                batch.compare_with(best.result()[1]())
            self._add_overlong(batch)
            return batch

        return finish

    def _reward(
        self, utterances: Sequence[Utterance], rollout: Rollout
    ) -> tuple[list[Sample], Callable[[], BatchRewards]]:
        """Return the samples of a rollout and a function that waits for their rewards."""
        samples = self.interpret(utterances, rollout)
        return samples, self.rewards.submit(samples)

    def _give_silence(
        self,
        step: int,
        utterances: Sequence[Utterance],
        conditions: Sequence[Tensor],
        rollout: Rollout,
    ) -> list[bool]:
        """Put the empty response into groups without speech that have none; return which.

        It takes the place of the group's last, with its own log-probability (`rl.give_silence`).
        """
        group, given = self.config.num_generations, [False] * len(utterances)
        silent = [i for i, u in enumerate(utterances) if not u.has_speech]
        if not self.config.give_silence or not silent:
            return given
        rows = [i * group + g for i in silent for g in range(group)]
        drawn = self.interpret([utterances[i] for i in silent], rollout.select(rows))
        for place, i in enumerate(silent):
            said = drawn[place * group : (place + 1) * group]
            given[i] = all(sample.text or not sample.finished for sample in said)
        lacking = [i for i in silent if given[i]]
        if not lacking:
            return given
        logps = self.sampler.silence([conditions[i] for i in lacking])
        rows = torch.tensor(lacking) * group + group - 1
        rollout.tokens[rows, 0] = self.sampler.engine.policy.stop_ids[0]
        rollout.mask[rows] = False
        rollout.mask[rows, 0] = True
        rollout.logps[rows] = 0.0
        rollout.logps[rows, 0] = logps
        rollout.finished[rows] = True
        log.info(
            "step %d: the empty response, log-probability %.1f on average, was given to %d of %d "
            "groups without speech",
            step + 1,
            logps.mean().item(),
            len(lacking),
            len(silent),
        )
        return given

    def _add_overlong(self, batch: Batch) -> None:
        if self.config.overlong_buffer:
            lengths = batch.rollout.mask.sum(1).tolist()
            values = [overlong(n, self.config) for n in lengths]
            batch.earned.add("overlong", values, weight=1.0)

    def _flat(self, batch: Batch) -> Tensor:
        """Mark groups [B] without a gradient; for gdpo, equal sums of unlike rewards have one."""
        if self.config.reward_combination != "gdpo":
            return flat_groups(batch.rewards)
        parts = [batch.part(name) for name, weight in batch.earned.weights.items() if weight]
        return torch.stack([flat_groups(part) for part in parts]).all(0)

    def _refuse_broken_policy(self, step: int, rollout: Rollout) -> None:
        # Broken weights sample one token for ever: all groups are flat, and no gradient would tell.
        if not rollout.logps.isfinite().all():
            raise UserError(
                f"step {step + 1}: what the policy gives a token is no number; lower "
                "rl.learning_rate and train again."
            )

    def _refuse_failed_rewards(self, step: int, failed: Sequence[str]) -> None:
        refuse_failed_rewards(f"step {step + 1}", failed, self.config.max_unscorable)


def _gather(own: list[Batch]) -> list[Batch]:
    """Return the groups of all processes; of those of others, neither conditions nor waves."""
    own = [replace(batch, rollout=batch.rollout.to(torch.device("cpu"))) for batch in own]
    told = [
        replace(
            batch,
            conditions=[None] * len(batch.conditions),
            samples=[replace(sample, wave=None) for sample in batch.samples],
        )
        for batch in own
    ]
    found = ranks.gather(told)
    found[ranks.rank()] = own
    return [batch for part in found for batch in part]


def refuse_failed_rewards(where: str, failed: Sequence[str], most: float) -> None:
    """UserError if rewards failed on more than the share `most` of the samples.

    failed: of each sample, the reward that failed and why (see `BatchRewards`).
    """
    why = Counter(filter(None, failed))
    share = why.total() / len(failed)
    if share > most:
        ((reward, _),) = why.most_common(1)
        raise UserError(
            f"{where}: {share:.0%} of the samples could not be rewarded, more than "
            f"rl.max_unscorable ({most:.0%}); the log has the reasons, fix reward {reward}."
        )


def _tell_left_out(step: int, batch: Batch) -> None:
    """Log which samples are left out for want of a reward."""
    group = len(batch.samples) // len(batch.utterances)
    lost = Counter(
        f"{sample.utterance.id}, {why or 'no reward applies'}"
        for sample, why, reward in zip(
            batch.samples, batch.earned.failed, batch.rewards.flatten().tolist(), strict=True
        )
        if math.isnan(reward)
    )
    if lost:
        told = "; ".join(f"{n} of {group} of {what}" for what, n in lost.items())
        log.info("step %d: samples without a reward are left out: %s", step + 1, told)


def overlong(length: int, rl: RLConfig) -> float:
    """DAPO's shaping: 0, then over the last `overlong_buffer` tokens linearly to -1."""
    return -max(0, length - (rl.max_completion_length - rl.overlong_buffer)) / rl.overlong_buffer
