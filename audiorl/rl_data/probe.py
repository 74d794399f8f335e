"""What a policy says to utterances, greedily and sampled, and what that earns: the slow part."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from audiorl.data.utterance import Utterance
from audiorl.files import atomic_write, disk_errors, progress
from audiorl.models.audio_llm import AudioLLM
from audiorl.rl.collect import Scorer
from audiorl.rollout.groups import greedy_group, read_text, sample_groups
from audiorl.rollout.transcribe import encode_utterances

PROBE_STEP = 2**31  # no step of a training run draws the same random numbers


@dataclass(frozen=True)
class Probe:
    """The hypotheses of a policy for one utterance."""

    greedy: str
    samples: list[str]  # G
    rewards: list[float]  # of the samples; NaN: unscorable


class ProbeFile:
    """Probes as JSON lines, below a line with the settings that they follow from.

    It only grows, a batch at a time, so that a prober that was killed goes on behind the last
    batch. With other settings it begins anew.
    """

    def __init__(self, path: Path, settings: dict[str, object]) -> None:
        self.path = path
        self._found: dict[tuple[str, str], Probe] = {}
        lines = [{"settings": json.loads(json.dumps(settings))}]
        begun = list(_whole_lines(path))
        if begun[:1] == lines:
            lines = begun
            print(f"{path}: going on after {len(lines) - 1} utterances")
        elif begun:
            print(f"{path} was made with other settings or weights: probing anew")
        for line in lines[1:]:
            rewards = [math.nan if r is None else r for r in line["rewards"]]
            probe = Probe(line["greedy"], line["samples"], rewards)
            self._found[line["id"], line["utterance"]] = probe
        with atomic_write(path) as stream:
            stream.writelines(map(_json_line, lines))

    def get(self, utterances: Sequence[Utterance]) -> dict[str, Probe] | None:
        """The probes of a batch by utterance id; None unless all of them are there."""
        found = {u.id: self._found.get((u.id, _fingerprint(u))) for u in utterances}
        return None if None in found.values() else found

    def add(self, utterances: Sequence[Utterance], probes: dict[str, Probe]) -> None:
        """Appends the probes of a batch."""
        with disk_errors(self.path), open(self.path, "a", encoding="utf-8") as stream:
            for u in utterances:
                line = {"id": u.id, "utterance": _fingerprint(u), **asdict(probes[u.id])}
                line["rewards"] = [None if math.isnan(r) else r for r in line["rewards"]]
                stream.write(_json_line(line))


def probe(
    model: AudioLLM, utterances: Sequence[Utterance], rewards: Scorer, file: ProbeFile
) -> dict[str, Probe]:
    """What `model` says to each utterance: greedily, and `rl.num_generations` samples.

    Batches are as large as the rollouts of RL, and of utterances of like length. Those that `file`
    has whole are taken from there, the others are added to it. They are the same in every call, and
    so are the results: the last bits of a log-probability depend on its batch.
    """
    found: dict[str, Probe] = {}
    row = sorted(utterances, key=lambda u: (-u.duration, u.id))
    size = model.config.rl.rollout_prompts or model.config.rl.num_prompts
    with progress(desc="probing difficulty", total=len(row), unit="utt") as bar:
        for batch in (row[i : i + size] for i in range(0, len(row), size)):
            known = file.get(batch)
            if known is None:
                known = _probe_batch(model, batch, rewards)
                file.add(batch, known)
            found |= known
            bar.update(len(batch))
    return found


@torch.no_grad()
def _probe_batch(model: AudioLLM, batch: Sequence[Utterance], rewards: Scorer) -> dict[str, Probe]:
    frames, group = encode_utterances(model, batch), model.config.rl.num_generations
    read = read_text(model.tokenizer)
    samples = read(batch, sample_groups(model, batch, frames, PROBE_STEP))
    scores = rewards.submit(samples)
    greedy = read(batch, greedy_group(model, frames))
    total = scores().total
    return {
        u.id: Probe(
            greedy[i].text,
            [sample.text for sample in samples[i * group : (i + 1) * group]],
            total[i * group : (i + 1) * group],
        )
        for i, u in enumerate(batch)
    }


def _whole_lines(path: Path) -> Iterable[dict]:
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                yield json.loads(line)
            except ValueError:
                return  # being written when the prober was killed


def _json_line(value: dict) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _fingerprint(utterance: Utterance) -> str:
    """Of all that the probe of an utterance depends on, but for the samples of its audio."""
    return hashlib.sha256(json.dumps(asdict(utterance)).encode()).hexdigest()[:16]
