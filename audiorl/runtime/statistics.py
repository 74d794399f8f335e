"""Running statistics of batch norms where the batches of an update are dealt out to processes."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from audiorl.runtime import ranks


@contextlib.contextmanager
def running_statistics(model: nn.Module) -> Iterator[Callable[[int], None]]:
    """Update running statistics at the end as one process would that sees all batches in turn.

    Yield a function that is told the number of the batch that comes next.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    if ranks.size() == 1 or not norms:
        yield lambda number: None
        return
    before = [(m.running_mean.clone(), m.running_var.clone(), m.momentum) for m in norms]
    counts = [m.num_batches_tracked.clone() for m in norms]
    seen: dict[int, list[tuple[int, Tensor, Tensor]]] = defaultdict(list)
    present = 0

    def begin(number: int) -> None:
        nonlocal present
        present = number

    def look(place: int) -> Callable[..., None]:
        def hook(norm: _BatchNorm, *_: object) -> None:
            found = (norm.running_mean.cpu().clone(), norm.running_var.cpu().clone())
            seen[present].append((place, *found))

        return hook

    for norm in norms:
        norm.momentum = 1.0  # the statistics of a batch itself, after its pass
    hooks = [norm.register_forward_hook(look(place)) for place, norm in enumerate(norms)]
    yield begin
    for hook in hooks:
        hook.remove()
    for norm, (mean, var, momentum), count in zip(norms, before, counts, strict=True):
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
        norm.num_batches_tracked.copy_(count)
        norm.momentum = momentum
    for _, found in sorted(ranks.merged(dict(seen)).items()):
        for place, mean, var in found:
            norm = norms[place]
            with torch.no_grad():
                norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
                norm.running_var.lerp_(var.to(norm.running_var), norm.momentum)
            norm.num_batches_tracked += 1
