"""The door of rollout: an engine continues prefixes, and is told when the weights have changed.

`native` samples from the policy's own tensors. Another engine is a module `engines/<name>.py`, here
or in a folder of AUDIORL_PLUGINS, that defines a class `PolicyEngine`.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from audiorl.config.rl import RLConfig
from audiorl.config.variants import definition
from audiorl.engines.sampling import Sampling
from audiorl.errors import UserError
from audiorl.models.language_model import Prefix
from audiorl.models.policy import Policy
from audiorl.runtime import ranks


@dataclass
class Rollout:
    """Sampled responses, the G of a prompt in consecutive rows."""

    tokens: Tensor  # [B * G, R], padded on the right
    mask: Tensor  # [B * G, R] bool, True on sampled tokens, the stop token included
    logps: Tensor  # [B * G, R], log-probability of each token when it was sampled; 0 on padding
    finished: Tensor  # [B * G] bool, False if max_length cut the response

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, rows: list[int]) -> Rollout:
        """Return some of the rows."""
        return Rollout(*(value[rows] for value in vars(self).values()))

    def to(self, device: torch.device) -> Rollout:
        """Return the rows on a device."""
        return Rollout(*(value.to(device) for value in vars(self).values()))

    def join(self, other: Rollout) -> Rollout:
        """Return the rows of both, padded to the longer."""
        width = max(self.tokens.size(1), other.tokens.size(1))
        mine, others = self._widened(width), other._widened(width)
        return Rollout(*map(torch.cat, zip(mine, others, strict=True)))

    def _widened(self, width: int) -> list[Tensor]:
        # Padding is never read: the mask is False there.
        more = (0, width - self.tokens.size(1))
        return [F.pad(value, more) if value.dim() == 2 else value for value in vars(self).values()]


@dataclass(frozen=True)
class Draws:
    """Random numbers of a rollout: they depend on seed, step, id and group member alone.

    What an utterance draws depends neither on its batch nor on what else used random numbers.
    """

    seed: int
    step: int
    ids: Sequence[str]  # of the B prefixes

    def uniforms(self, group: int, length: int) -> Tensor:
        """Return numbers in [0, 1) as [B * group, length] (fp64)."""
        rows = [
            np.random.default_rng([self.seed, self.step, zlib.crc32(name.encode()), member])
            for name in self.ids
            for member in range(group)
        ]
        return torch.from_numpy(np.stack([row.random(length) for row in rows]))

    def seeds(self) -> list[int]:
        """Return a seed below 2^63 for each prefix, for engines that draw by themselves.

        They are 65,536 apart: members of a group may draw by what follows.
        """
        states = [
            np.random.SeedSequence([self.seed, self.step, zlib.crc32(name.encode())])
            for name in self.ids
        ]
        return [int(state.generate_state(1, np.uint64)[0]) >> 17 << 16 for state in states]


class Engine(ABC):
    """Whoever continues prefixes for collector, evaluation, probe and decoding.

    test/engines/contract.py holds what every engine must fulfil. It is closed at the end of a
    `with` block.
    """

    # Whether it samples from the policy's own tensors: its log-probabilities are the policy's, and
    # a resumed run goes on as if it had never stopped.
    exact = True
    repetition_aware = False  # whether it knows `Sampling.repetition_window`
    truncates = True  # whether it knows `Sampling.top_k` and `top_p`

    def __init__(self, policy: Policy, rl: RLConfig | None = None) -> None:
        """`rl`: settings of the engine, for one that has any."""
        self.policy = policy

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def generate(
        self,
        prefix: Prefix,
        *,
        group: int,
        max_length: int,
        sampling: Sampling,
        draws: Draws | None = None,
        with_greedy: bool = False,
    ) -> Rollout:
        """Continue each of B prefixes `group` times; return a rollout of B * group rows.

        Stop and forbidden ids are the policy's. `draws` are needed unless `sampling` is greedy.
        with_greedy: one greedy row follows the rows of each group: B * (group + 1) rows.
        """

    def sync(self) -> None:  # noqa: B027 (nothing to do is a right answer)
        """Take the policy's weights; called after each update and when a run is resumed."""

    def sleep(self) -> None:  # noqa: B027
        """Free the device's memory until `wake`, if the engine can."""

    def wake(self) -> None:  # noqa: B027
        """Make ready after `sleep`."""

    def close(self) -> None:  # noqa: B027
        """End whatever the engine has started."""


def make_engine(name: str, policy: Policy, rl: RLConfig) -> Engine:
    """Return the engine of a name for `policy`; UserError if there is none, or it cannot start."""
    found = definition(f"audiorl.engines.{name}", "PolicyEngine")
    if found is None:
        raise UserError(
            f"rl.engine: there is no engine {name}; set native, or put yours into the folder "
            "engines/ of AUDIORL_PLUGINS."
        )
    if ranks.size() > 1 and not found.exact:
        raise UserError(f"rl.engine: {name} samples for one process; set native, or start one.")
    return found(policy, rl)
