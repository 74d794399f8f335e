"""Trainings of all kinds, by one process and by several that keep weights in each way.

By hand, every pair of choices: python test/train/ranks_grid.py
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as pytest does

from forked import forked
from runs import Corpus
from test_rl_synthesis import World
from torch import Tensor

from audiorl.config.lora import LoRAConfig
from audiorl.config.rewards import reward_options
from audiorl.config.rl import RLConfig
from audiorl.config.schema import Config
from audiorl.data.rl_set import read_rl_set
from audiorl.engines.native import PolicyEngine
from audiorl.models import learning_tensors
from audiorl.models.policy import Policy, load_policy
from audiorl.rewards import build_rewards
from audiorl.rl.groups import Sampler
from audiorl.rl.prompts import Prompts
from audiorl.runs.optimizer import Optimizers
from audiorl.runtime import ranks, sharding
from audiorl.tasks.task import Task

Keys = dict[str, Any]

SHARED = {"parallelism.data_parallel_shard_degree": -1}
SHARING: dict[str, Keys] = {
    "replicate": {},
    "never": SHARED,
    "always": {**SHARED, "parallelism.fsdp_reshard_after_forward": "always"},
}
STEPS = 5
# What is added to all keys changes no attention: the gradient is rounding, which AdamW scales up.
IGNORED = "linear_k.bias"


def every(name: str, **more: Keys) -> list[Keys]:
    """All choices of a key of RL, the default first, with the keys that some of them need."""
    field = next(field for field in fields(RLConfig) if field.name == name)
    choices = sorted(field.metadata["choices"], key=lambda choice: choice != field.default)
    return [{f"rl.{name}": choice, **more.get(choice, {})} for choice in choices]


def on(**keys: Any) -> list[Keys]:
    """Without and with some keys, whose first _ is a dot."""
    return [{}, {name.replace("_", ".", 1): value for name, value in keys.items()}]


UPDATES = [
    on(rl_num_iterations=2),
    on(rl_mini_batch_prompts=2),
    [{}, {"gradient_checkpointing": True}],
]
KL = [
    *on(rl_beta=0.05, rl_kl_estimator="k3"),
    {"rl.beta": 0.05, "rl.kl_estimator": "k2"},
    {"rl.beta": 0.05, "rl.kl_estimator": "exact"},
    {"rl.beta": 0.05, "rl.kl_estimator": "k1", "rl.kl_in_reward": True},
]
LOSSES = [
    every("loss_type"),
    every("baseline"),
    every("scale_rewards"),
    every("policy_loss", cispo={"rl.epsilon_high": 5.0}),
    every("importance_sampling_level"),
    every("reward_combination"),
    every("rollout_correction"),
    every("share_prefix"),
    KL,
    on(rl_entropy_coef=0.01),
    on(rl_dynamic_sample=True, rl_num_prompts=4),  # of six: two can take the place of others
    on(rl_rollout_prompts=1),
]
TRAINED = [{}, {"rl.train": ["adaptor", "llm", "encoder"]}]
TEXT = {"rl.rewards": [reward_options("wer_exp"), reward_options("length")]}
SPEECH = {
    "rl.rewards": [reward_options("likelihood"), reward_options("length")],
    "rl.early_stop": "never",
}
BASE: Keys = {
    "rl.max_steps": STEPS,
    "rl.num_iterations": 1,
    "rl.beta": 0.0,
    "rl.learning_rate": 1e-4,
    "rl.num_prompts": 5,
    "rl.micro_batch_tokens": 150,  # so that processes have unequal numbers of passes
}
# By kind of training: the keys of all, and choices that are crossed.
KINDS: dict[str, tuple[Keys, list[list[Keys]]]] = {
    "asr": (TEXT, [*LOSSES, *UPDATES, TRAINED]),
    "control": ({"rl.algorithm": "supervised"}, [*UPDATES, TRAINED]),
    "adapters": ({**TEXT, "lora.rank": 4}, [KL, *UPDATES, TRAINED]),
    "tts": (
        SPEECH,
        [
            *LOSSES, *UPDATES,
            [{"rl.algorithm": name} for name in ("grpo", "both")],
            [{"diffro.sample_filter": name} for name in ("none", "positive_advantage")],
        ],
    ),
    "diffro": (
        {**SPEECH, "rl.algorithm": "diffro"},
        [
            *UPDATES, on(rl_beta=0.05), on(diffro_hard=True),
            [{"diffro.history": name} for name in ("fixed", "rollout")],
        ],
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Cell:
    """A training."""

    kind: str
    keys: Keys

    @property
    def ways(self) -> list[str]:
        """How its weights can be kept: adapters are not shared."""
        return ["replicate"] if self.keys.get("lora.rank") else list(SHARING)

    def __str__(self) -> str:
        told = (f"{key.partition('.')[2] or key}={value}" for key, value in self.keys.items())
        return f"{self.kind}: {', '.join(told)}"


def allowed(keys: Keys, task: str) -> bool:
    """Return whether the sections of RL and of adapters take these keys together."""
    given: dict[str, Keys] = defaultdict(dict)
    for key, value in keys.items():
        section, _, name = key.rpartition(".")
        given[section][name] = value
    config = Config(
        task=task,
        rl=replace(RLConfig(), **given["rl"]),
        lora=replace(LoRAConfig(), **given["lora"]),
    )
    return not [*config.rl.rules(config), *config.lora.rules(config)]


def cells(kind: str, strength: int, tries: int = 60) -> list[Cell]:
    """Return few trainings in which each choice meets each of any `strength - 1` other axes.

    Those that the rules of a config refuse together are left out.
    """
    base, axes = KINDS[kind]
    task = "tts" if kind in ("tts", "diffro") else "asr"
    draw = random.Random(1)
    wanted = {
        tuple(zip(chosen, places, strict=True)): True
        for chosen in itertools.combinations(range(len(axes)), strength)
        for places in itertools.product(*(range(len(axes[axis])) for axis in chosen))
    }
    found = []
    while wanted:
        target = dict(next(iter(wanted)))
        best: tuple[int, Keys, list] = (0, {}, [next(iter(wanted))])
        for _ in range(tries):
            row = {n: draw.randrange(len(axis)) for n, axis in enumerate(axes)} | target
            keys = {k: v for n, axis in enumerate(axes) for k, v in axis[row[n]].items()}
            if allowed({**BASE, **base, **keys}, task):
                met = [c for c in itertools.combinations(row.items(), strength) if c in wanted]
                best = max(best, (len(met), keys, met), key=lambda item: item[0])
        for combination in best[2]:
            del wanted[combination]
        if best[0]:
            found.append(Cell(kind, {**base, **best[1]}))
    return found


Kept = tuple[Cell, str]  # a training, and how its weights are kept


@dataclass
class Learnt:
    """What is left of a few steps."""

    metrics: list[dict[str, float]]
    completions: list[list[tuple]]
    advantages: list[list[float]]
    weights: dict[str, Tensor]


class Trainings:
    """Trains a cell for a few steps, without a folder of its own."""

    def __init__(self, root: Path, corpus: Corpus) -> None:
        self.root, self.corpus, self.world = root, corpus, World(root / "world")

    def all_of(self, wanted: Sequence[Kept]) -> dict[Kept, Learnt]:
        """Return what is learnt in each training and way."""
        found = {(cell, way): self.learn(cell, way) for cell, way in wanted}
        return found if ranks.is_main() else {}

    def several(self, size: int, wanted: Sequence[Kept]) -> dict[Kept, Learnt]:
        """The same by `size` processes."""
        found, *_ = forked(size, lambda: list(self.all_of(wanted).values()), 400.0)
        return dict(zip(wanted, found, strict=True))

    def learn(self, cell: Cell, way: str) -> Learnt:
        keys = {**BASE, **cell.keys, **SHARING[way]}
        if cell.kind in ("tts", "diffro"):
            world = self.world
            return _learn(world.task(keys), world.exp / "sft", world.data, self.root)
        return _learn(self.corpus.task(keys), self.corpus.init, self.corpus.data, self.root)


def _learn(task: Task, init: Path, data: Path, folder: Path) -> Learnt:
    config = task.config
    model: Policy = load_policy(init / "model")
    model.adapt(config.lora, config.seed)
    model.llm.gradient_checkpointing = config.gradient_checkpointing
    model.eval()
    items = read_rl_set(data, task.texts_alone)
    prompts, utterances = Prompts(items, config), [item.utterance for item in items]
    rewards = build_rewards(config, task.prepare(model, utterances, utterances[:2]))
    reference = model.reference(task.parts) if config.rl.beta else None
    learning = model.train_only(task.parts)
    model.share_weights(config.parallelism)
    optimizer = Optimizers(learning, config.rl.learning_rate, 0.0, model=model)
    sampler = Sampler(PolicyEngine(model), config.rl, config.seed)
    learner = task.learner(sampler, reference, rewards, optimizer, prompts, folder)
    learnt = Learnt([], [], [], {})
    for step in range(STEPS):
        output = learner.step(step, prompts.draw(step), 1.0)
        prompts.learn(output.spreads)
        learnt.metrics.append(
            {k: v for k, v in output.metrics.items() if not k.startswith(("timing_s", "perf"))}
        )
        said = output.completions
        learnt.completions.append([(c["id"], c["completion"], c["finished"]) for c in said])
        learnt.advantages.append([c["advantage"] for c in said])
    tensors = learning_tensors(model)
    learnt.weights = {name: sharding.full(t).detach().clone() for name, t in tensors.items()}
    return learnt


@dataclass
class Apart:
    """How far two trainings are from each other."""

    completions: int  # that differ
    metrics: float  # largest difference, in millionths of the metric or of 0.1
    weights: float  # largest difference

    @classmethod
    def of(cls, found: Learnt, expected: Learnt) -> Apart:
        said = _together(found.completions, expected.completions)
        pairs, weights = [*_pairs(found, expected)], found.weights
        assert weights.keys() == expected.weights.keys()
        return cls(
            sum(one != other for one, other in said),
            max(1e6 * abs(one - other) / max(0.1, abs(other)) for one, other in pairs),
            max(
                (weights[name] - value).abs().max().item()
                for name, value in expected.weights.items()
                if not name.endswith(IGNORED)
            ),
        )

    @property
    def is_rounding(self) -> bool:
        return not self.completions and self.metrics <= 20 and self.weights <= 1e-5


def _pairs(found: Learnt, expected: Learnt) -> Iterator[tuple[float, float]]:
    for ours, theirs in zip(found.metrics, expected.metrics, strict=True):
        assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
        yield from ((ours[name], value) for name, value in theirs.items() if value == value)
        assert all(ours[name] != ours[name] for name, value in theirs.items() if value != value)
    yield from _together(found.advantages, expected.advantages)


def _together(found: list[list], expected: list[list]) -> Iterator[tuple]:
    return zip(itertools.chain(*found), itertools.chain(*expected), strict=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares 1, 2 and 4 processes.")
    parser.add_argument("kinds", nargs="*", default=list(KINDS), metavar="KIND")
    parser.add_argument("--strength", type=int, default=2, help="choices that all meet")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trainings = Trainings(Path(folder), Corpus(Path(folder, "corpus")))
        for kind in args.kinds:
            chosen, start = cells(kind, args.strength), time.monotonic()
            one = trainings.all_of([(cell, "replicate") for cell in chosen])
            for size in (2, 4):
                wanted = [(cell, way) for way in SHARING for cell in chosen if way in cell.ways]
                found = trainings.several(size, wanted)
                for way in dict.fromkeys(kept for _, kept in found):
                    _tell(size, way, {
                        cell: Apart.of(learnt, one[cell, "replicate"])
                        for (cell, kept), learnt in found.items() if kept == way
                    })  # fmt: skip
            print(f"{kind}: {time.monotonic() - start:.0f} s", flush=True)


def _tell(size: int, way: str, found: dict[Cell, Apart]) -> None:
    kind = next(iter(found)).kind
    worst = max(apart.weights for apart in found.values())
    metrics = max(apart.metrics for apart in found.values())
    differ = sum(apart.completions > 0 for apart in found.values())
    print(f"| {kind} | {size} | {way} | {len(found)} | {differ} | {metrics:.1f} | {worst:.1e} |")
    for cell, apart in found.items():
        if not apart.is_rounding:
            print(f"  {apart}: {cell}")


if __name__ == "__main__":
    main()
