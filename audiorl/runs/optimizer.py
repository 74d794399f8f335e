"""Optimizers, and learning rates as functions of the step."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.runtime import sharding

BETAS = (0.9, 0.98)
# On matrices, in supervised training; RL has none.
WEIGHT_DECAY = 0.01
# Gradients are clipped to these norms.
SUPERVISED_NORM, RL_NORM = 5.0, 1.0


class Optimizers:
    """Several optimizers that step together, each with its own peak learning rate.

    AdamW for everything; with `muon_learning_rate`, Muon for the weight matrices of the layers
    (embeddings, convolutions, norms and biases stay with AdamW).

    A bf16 weight has 8 significant bits, more than most steps of RL move it by. So each weight
    narrower than fp32 has a master in fp32 in `masters`, which sums the gradients of backward
    passes and takes the steps; the weight is the master rounded.
    """

    def __init__(
        self,
        parts: list[nn.Module],
        learning_rate: float,
        weight_decay: float,
        muon_learning_rate: float = 0.0,
        model: nn.Module | None = None,
    ) -> None:
        """`model`: that the parts belong to, where they are not models by themselves."""
        self.model = model or parts[0]
        tables = {
            id(p)
            for part in parts
            for m in part.modules()
            if isinstance(m, nn.Embedding)
            for p in m.parameters()
        }
        every = {id(p): p for part in parts for p in part.parameters() if p.requires_grad}.values()
        self.masters = {p: p.detach().float() for p in every if p.dtype.itemsize < 4}
        summed = weakref.WeakMethod(self._add_gradient)
        for parameter in self.masters:
            parameter.register_post_accumulate_grad_hook(lambda p: (add := summed()) and add(p))
        self.moved = moved = {p: self.masters.get(p, p) for p in every}
        chosen = [p for p in every if muon_learning_rate and p.dim() == 2 and id(p) not in tables]
        taken = {id(p) for p in chosen}
        muon = [moved[p] for p in chosen]
        rest = [moved[p] for p in every if id(p) not in taken]
        groups = [
            {"params": [p for p in rest if p.dim() > 1], "weight_decay": weight_decay},
            {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.parameters = list(moved.values())
        self._peaks = [(torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS), learning_rate)]
        if muon:
            optimizer = torch.optim.Muon(muon, lr=muon_learning_rate, weight_decay=weight_decay)
            self._peaks.append((optimizer, muon_learning_rate))

    def zero_grad(self) -> None:
        for optimizer, _ in self._peaks:
            optimizer.zero_grad(set_to_none=True)
        sharding.begin_update(self.model)

    def step(self, scale: float, max_norm: float, utterances: Sequence[Utterance]) -> float:
        """Steps at `scale` times the peak learning rates, the gradient's norm cut to `max_norm`.

        Returns the norm before that. Raises UserError, with all weights as they were, if it is
        not finite; `utterances` are what the gradient comes from.
        """
        sharding.end_update(self.model, self.moved)
        norm = sharding.full(nn.utils.clip_grad_norm_(self.parameters, max_norm)).item()
        if not math.isfinite(norm):
            ids = ", ".join(u.id for u in utterances[:3])
            raise UserError(
                f"the gradient is {norm} in the update on {len(utterances)} utterances, {ids} "
                "first; look at them, or lower the learning rate."
            )
        for optimizer, peak in self._peaks:
            for group in optimizer.param_groups:
                group["lr"] = scale * peak
            optimizer.step()
        self._round()
        return norm

    @torch.no_grad()
    def load_masters(self, exact: dict[nn.Parameter, Tensor]) -> None:
        """Take the values of weights that have masters; unrounded, where they are."""
        for parameter, master in self.masters.items():
            sharding.put(master, exact[parameter])
        self._round()

    @torch.no_grad()
    def _round(self) -> None:
        for parameter, master in self.masters.items():
            parameter.copy_(master)

    def _add_gradient(self, parameter: nn.Parameter) -> None:
        """Move the gradient of a backward pass to the master."""
        if parameter.grad is not None:
            gradient, master = parameter.grad.float(), self.masters[parameter]
            master.grad = gradient if master.grad is None else master.grad + gradient
            parameter.grad = None

    def tensors(self) -> list[Tensor]:
        """Return all that it keeps beside the weights."""
        states = [s for optimizer, _ in self._peaks for s in optimizer.state.values()]
        kept = [t for state in states for t in state.values() if isinstance(t, Tensor) and t.dim()]
        return [*kept, *self.masters.values()]

    def rows(self) -> list[list[Tensor]]:
        """Return the parameters of each optimizer as its state numbers them."""
        return [
            [p for group in optimizer.param_groups for p in group["params"]]
            for optimizer, _ in self._peaks
        ]

    def state_dict(self) -> list[dict]:
        return [optimizer.state_dict() for optimizer, _ in self._peaks]

    def load_state_dict(self, states: list[dict]) -> None:
        """Take a state, whose tensors may be in one piece where processes share the parameters."""
        for (optimizer, _), own, state in zip(self._peaks, self.rows(), states, strict=True):
            state["state"] = {
                row: {name: sharding.like(value, own[row]) for name, value in values.items()}
                for row, values in state["state"].items()
            }
            optimizer.load_state_dict(state)


def warmup_cosine(step: int, warmup: int, total: int, floor: float = 0.02) -> float:
    """Share of the peak: linear warm-up to 1, then a cosine to `floor` at the last step."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_then(kind: str, step: int, warmup: int, total: int) -> float:
    """Share of the peak: linear warm-up to 1, then `constant`, or `linear` to 0 after `total`."""
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 if kind == "constant" else (total - step) / max(1, total - warmup)
