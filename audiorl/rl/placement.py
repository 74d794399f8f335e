"""Turns at the memory of the device, phase by phase of a step (`rl.placement: alternate`).

Models that rewards ask, the engine, the policy and the optimizer need it in turn. What a phase does
not need waits on the host, in memory that a GPU reaches directly; an engine that can, sleeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from audiorl.engines.engine import Engine
from audiorl.models.policy import Policy
from audiorl.runs.optimizer import Optimizers

EVALUATION = "evaluation"  # the phase between steps
Tensors = Callable[[], Iterable[Tensor]]


class Placement:
    """Moves what the phases of `GRPO` need; engines that can sleep do so in all but rollout."""

    def __init__(
        self,
        engine: Engine,
        reference: Policy | None,
        optimizer: Optimizers,
        rewards: Sequence[nn.Module],
        updates_ask_rewards: bool,
    ) -> None:
        """`updates_ask_rewards`: whether a loss differentiates a reward model (DiffRO)."""
        device, self.engine = engine.policy.device, engine
        policies = [engine.policy, *filter(None, [reference])]
        self.parts = {
            "policy": _Movable(lambda: tensors_of(policies), device),
            "optimizer": _Movable(optimizer.tensors, device),
            "rewards": _Movable(lambda: tensors_of(rewards), device),
        }
        update = {"policy", "optimizer", *(["rewards"] if updates_ask_rewards else [])}
        self.needs = {
            "encode": {"policy"},
            "rollout": {"policy"} if engine.exact else {"engine"},
            "reward": {"rewards"},
            "old_logps": update,
            "update": update,
            "sync": set(),  # weights go by the host
            EVALUATION: {"policy", "rewards", "engine"},
        }

    def enter(self, phase: str) -> None:
        """Make room first, then bring what the phase needs."""
        needed = self.needs[phase]
        if "engine" not in needed:
            self.engine.sleep()
        for name, part in self.parts.items():
            if name not in needed and needed:
                part.leave()
        for name in needed & self.parts.keys():
            self.parts[name].come()
        if "engine" in needed:
            self.engine.wake()


class _Movable:
    """Tensors that are on the device or, all of them, in buffers of the host."""

    def __init__(self, tensors: Tensors, device: torch.device) -> None:
        self.tensors, self.device = tensors, device
        self.buffers: dict[int, Tensor] = {}  # by the tensor's id
        self.is_away = False

    def leave(self) -> None:
        if self.is_away:
            return
        moved = [(t, self._buffer(t)) for t in self.tensors()]
        for tensor, buffer in moved:
            buffer.copy_(tensor.data, non_blocking=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        for tensor, buffer in moved:
            tensor.data = buffer
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # another process, the engine's, is to have it
        self.is_away = True

    def come(self) -> None:
        if self.is_away:
            for tensor in self.tensors():
                tensor.data = tensor.data.to(self.device, non_blocking=True, copy=True)
            self.is_away = False

    def _buffer(self, tensor: Tensor) -> Tensor:
        known = self.buffers.get(id(tensor))
        if known is None or known.shape != tensor.shape or known.dtype != tensor.dtype:
            pinned = self.device.type == "cuda"
            known = torch.empty_like(tensor.data, device="cpu", pin_memory=pinned)
            self.buffers[id(tensor)] = known
        return known


def tensors_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Return the parameters and buffers of modules, those that they share once."""
    found = [t for module in modules for t in (*module.parameters(), *module.buffers())]
    return list({id(t): t for t in found}.values())


class Later:
    """Does what is submitted when its result is asked for, in place of a thread that begins now."""

    def submit(self, function: Callable, *arguments: object) -> _Task:
        return _Task(function, arguments)


class _Task:
    def __init__(self, function: Callable, arguments: tuple) -> None:
        self.function, self.arguments = function, arguments

    def result(self) -> object:
        return self.function(*self.arguments)
