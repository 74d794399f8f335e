"""Hypotheses of a policy, greedy and sampled, with their rewards: the slow part of stage 4."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch

from audiorl.data.utterance import Utterance
from audiorl.infer.transcribe import encode_utterances
from audiorl.rewards import BatchRewards, Sample
from audiorl.rl.collect import Rewarder, refuse_failed_rewards
from audiorl.rl.groups import Sampler, read_text
from audiorl.runtime import ranks
from audiorl.runtime.files import atomic_write, disk_errors, progress
from audiorl.runtime.stamps import Stamp

PROBE_STEP = 2**31  # no step of a training run draws the same random numbers


@dataclass(frozen=True)
class Probe:
    """The hypotheses of a policy for one utterance."""

    greedy: str
    samples: list[str]  # G
    finished: list[bool]  # of the samples; False: the length limit cut it
    rewards: list[float]  # of the samples; NaN: a reward failed, or none applies
    failed: list[str]  # of the samples: the reward that failed, and why; empty: none did


PROBED = [field.name for field in fields(Probe)]


class ProbeFile:
    """Probes as JSON lines, below a line with what they follow from.

    It only grows, a batch at a time, so that a prober that was killed goes on behind the last
    batch; of several lines for an utterance the last counts. When anything changed it begins anew.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, object], inputs: Mapping[str, Path]
    ) -> None:
        """`settings` and `inputs`: as of a `Stamp`, which the first line is."""
        self.path = path
        self._found: dict[tuple[str, str], Probe] = {}
        stamp = Stamp(path, {**settings, "columns": PROBED}, inputs)
        begun = list(_whole_lines(path))
        changed = stamp.changes(begun[0] if begun else {})
        if begun and not changed:
            for line in begun[1:]:
                self._found[line["id"], line["utterance"]] = _read_probe(line)
            lost = sum(any(probe.failed) for probe in self._found.values())
            again = f", {lost} of which are to be rewarded again" if lost else ""
            print(f"{path}: going on after {len(self._found)} utterances{again}")
        elif begun:
            print(f"{path} is out of date: {', '.join(changed)} changed; probing anew")
        with atomic_write(path) as stream:
            stream.write(_json_line(stamp.content))
            stream.writelines(_probe_line(*key, probe) for key, probe in self._found.items())

    def get(self, utterances: Sequence[Utterance]) -> dict[str, Probe] | None:
        """The probes of a batch by utterance id; None unless all of them are there."""
        found = {u.id: self._found.get((u.id, _fingerprint(u))) for u in utterances}
        return None if None in found.values() else found

    def add(self, utterances: Sequence[Utterance], probes: dict[str, Probe]) -> None:
        """Appends the probes of a batch."""
        if not ranks.is_main():
            return
        with disk_errors(self.path), open(self.path, "a", encoding="utf-8") as stream:
            for u in utterances:
                stream.write(_probe_line(u.id, _fingerprint(u), probes[u.id]))


def probe(
    sampler: Sampler, utterances: Sequence[Utterance], rewards: Rewarder, file: ProbeFile
) -> dict[str, Probe]:
    """Return the policy's hypotheses of each utterance: greedy, and `rl.num_generations` samples.

    Batches are as large as the rollouts of RL, and of utterances of like length. Those that `file`
    has whole are taken from there, the others are added to it. They are the same in every call, and
    so are the results: the last bits of a log-probability depend on its batch. What rewards failed
    on is rewarded again, without being said again. Raises UserError if rewards fail on more than
    `rl.max_unscorable` of a batch, which a step of training would not bear either. Of several
    processes each probes some of the batches.
    """
    found: dict[str, Probe] = {}
    row = sorted(utterances, key=lambda u: (-u.duration, u.id))
    size = sampler.rl.rollout_prompts or sampler.rl.num_prompts
    with progress(desc="probing difficulty", total=len(row), unit="utt") as bar:
        batches = [row[i : i + size] for i in range(0, len(row), size)]
        for turn in (batches[i : i + ranks.size()] for i in range(0, len(batches), ranks.size())):
            fresh: dict[str, Probe] = {}
            for batch in ranks.dealt(turn):
                known = file.get(batch)
                if known is None:
                    fresh |= _probe_batch(sampler, batch, rewards)
                else:
                    fresh |= _reward_again(batch, known, rewards)
            fresh = ranks.merged(fresh)
            for batch in turn:
                file.add([u for u in batch if u.id in fresh], fresh)
                found |= file.get(batch) or {}
                found |= {u.id: fresh[u.id] for u in batch if u.id in fresh}
                failed = [why for u in batch for why in found[u.id].failed]
                refuse_failed_rewards(str(file.path), failed, sampler.rl.max_unscorable)
                bar.update(len(batch))
    return found


@torch.no_grad()
def _probe_batch(
    sampler: Sampler, batch: Sequence[Utterance], rewards: Rewarder
) -> dict[str, Probe]:
    model, group = sampler.engine.policy, sampler.rl.num_generations
    frames = encode_utterances(model, batch)
    rollout = sampler.groups(batch, frames, PROBE_STEP, with_greedy=True)
    said = read_text(model.tokenizer)(batch, rollout)
    groups = [said[i : i + group] for i in range(0, len(said), group + 1)]
    greedy = [sample.text for sample in said[group :: group + 1]]
    scores = rewards.submit([sample for samples in groups for sample in samples])()
    rows = zip(batch, greedy, groups, _parts(scores, len(batch)), strict=True)
    return {
        u.id: Probe(
            text,
            [sample.text for sample in samples],
            [sample.finished for sample in samples],
            earned.total,
            earned.failed,
        )
        for u, text, samples, earned in rows
    }


def _reward_again(
    batch: Sequence[Utterance], known: dict[str, Probe], rewards: Rewarder
) -> dict[str, Probe]:
    """The probes that a reward failed on, rewarded anew."""
    lost = [u for u in batch if any(known[u.id].failed)]
    if not lost:
        return {}
    samples = [
        Sample(u, text, finished)
        for u in lost
        for text, finished in zip(known[u.id].samples, known[u.id].finished, strict=True)
    ]
    parts = zip(lost, _parts(rewards.submit(samples)(), len(lost)), strict=True)
    return {u.id: replace(known[u.id], rewards=e.total, failed=e.failed) for u, e in parts}


def _parts(scores: BatchRewards, count: int) -> list[BatchRewards]:
    """Split rewards by utterance."""
    group = len(scores.total) // count
    return [scores.select(range(i * group, (i + 1) * group)) for i in range(count)]


def _whole_lines(path: Path) -> Iterable[dict]:
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                return  # being written when the prober was killed
            yield found


def _read_probe(line: dict) -> Probe:
    values = {name: line[name] for name in PROBED}
    values["rewards"] = [math.nan if r is None else r for r in line["rewards"]]
    return Probe(**values)


def _probe_line(name: str, fingerprint: str, probe: Probe) -> str:
    line = {"id": name, "utterance": fingerprint, **asdict(probe)}
    line["rewards"] = [None if math.isnan(r) else r for r in line["rewards"]]
    return _json_line(line)


def _json_line(value: dict) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _fingerprint(utterance: Utterance) -> str:
    """Of all that the probe of an utterance depends on, but for the samples of its audio."""
    return hashlib.sha256(json.dumps(asdict(utterance)).encode()).hexdigest()[:16]
