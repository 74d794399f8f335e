"""Weights that several processes share (FSDP2), and gradients that they add.

    data_parallel_shard_degree 1       each process has all weights; gradients are added once an
                                       update, so passes need not agree in number or kind
    -1, reshard_after_forward never    shared; whole from an update's first pass to its end, where
                                       gradients are added and given back: passes need not agree
    -1, reshard_after_forward always   whole a layer at a time, in each pass: all processes have to
                                       make the same passes, and `backward` fills in those missing

Frozen weights are whole everywhere, and so configs with adapters are not shared.

FSDP2 has rules that it does not enforce. Each is kept here:
- The policy is the root, and its own weights are whole in what `within` calls alone.
- A first pass decides who is the root; after it the root is given back, or an optimizer would be
  made for tensors that are thrown away.
- Forward passes without a backward pass are remembered, for prefetching in the next one. Rollouts
  of processes differ in passes, so these would wait for different layers: `whole` forgets them.
- Our losses are shares of an update's, so gradients are added, not averaged.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from audiorl.config.parallelism import ParallelismConfig
from audiorl.errors import UserError
from audiorl.runtime import ranks

Loss = Callable[[], tuple[Tensor, dict[str, Tensor]]]
BUCKET = 16 << 20  # numbers that are added at once


def shard(model: nn.Module, layers: Sequence[nn.Module], keys: ParallelismConfig) -> bool:
    """Share what learns in `model`, whose `layers` are gathered one at a time; return if it is.

    Call it before an optimizer is made, and after the model is copied.
    """
    if ranks.size() == 1 or not keys.shards:
        return False
    from torch.distributed.fsdp import (
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    always = keys.fsdp_reshard_after_forward == "always"
    if always and any(hasattr(layer, "encoder_attn") for layer in layers):
        raise UserError(
            "parallelism.fsdp_reshard_after_forward: layers with cross attention are read outside "
            "of their passes; set never."
        )
    if any(p.dtype != torch.float32 for p in model.parameters() if p.requires_grad):
        raise UserError(
            "parallelism.data_parallel_shard_degree: weights that processes share are kept in "
            "fp32, and this model was made in bf16; set 1, or make it with llm.dtype: float32."
        )
    compute, reduce = (
        getattr(torch, name) for name in (keys.mixed_precision_param, keys.mixed_precision_reduce)
    )
    device = next(model.parameters()).device.type
    frozen = {p for p in model.parameters() if not p.requires_grad}
    shared = {
        "mesh": torch.distributed.init_device_mesh(device, (ranks.size(),)),
        "ignored_params": frozen,
    }
    for layer in layers:
        narrow = compute if next(layer.parameters()).dtype == torch.float32 else None
        policy = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=reduce)
        fully_shard(layer, reshard_after_forward=always, mp_policy=policy, **shared)
    # Weights of the root that a pass does not reach have gradients of their own type.
    fully_shard(model, reshard_after_forward=False, mp_policy=MixedPrecisionPolicy(), **shared)
    model.sharing = keys.fsdp_reshard_after_forward
    for module in _shared_modules(model):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo knows no other with a factor
        module.set_reduce_scatter_unused_params(True, recurse=False)
    model.call = lambda function: function()
    register_fsdp_forward_method(model, "call")
    with torch.no_grad():
        within(model, lambda: torch.zeros(()))
    model.reshard()
    # Of shared weights without a gradient FSDP2 makes one of zeros, which moves a weight: the
    # optimizer's moments do. So it is noted which weights the passes of an update reach.
    model.names = {parameter: name for name, parameter in model.named_parameters()}
    model.reached = set()
    with whole(model):
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                note = functools.partial(_note, model.reached, name)
                parameter.register_post_accumulate_grad_hook(note)
    return True


def _note(reached: set[str], name: str, _: Tensor) -> None:
    reached.add(name)


def sharing(model: nn.Module) -> str:
    """Return how processes share the weights of a model: never or always given back; empty: not."""
    return getattr(model, "sharing", "")


def within(model: nn.Module, function: Callable[[], Any]) -> Any:
    """Call a function that is a forward pass of `model`; its tensors in tuples and dictionaries."""
    if not sharing(model):
        return function()
    return model.call(function)


@contextlib.contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Have all weights whole within the block, in which there is no backward pass."""
    modules = _shared_modules(model)
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        if modules:
            model.reset_iter_state()
        for module in modules:
            again = sharing(model) == "always" and module is not model
            module.set_reshard_after_forward(again, recurse=False)


def begin_update(model: nn.Module) -> None:
    """Get ready for the backward passes of an update."""
    if sharing(model):
        model.reached.clear()
    if sharing(model) != "never":
        return
    for module in _shared_modules(model):
        module.unshard()  # here, since a process may have no pass at all
        module.set_reshard_after_backward(False, recurse=False)
    model.set_requires_gradient_sync(False)


def end_update(model: nn.Module, moved: Mapping[Tensor, Tensor]) -> None:
    """Add the gradients of all processes; there is none where no pass of theirs reaches.

    moved: of each parameter, the tensor that has its gradient.
    """
    if ranks.size() == 1:
        return
    if sharing(model) == "never":
        model.set_requires_gradient_sync(True)
        for module in _shared_modules(model):
            module.set_reshard_after_backward(True, recurse=False)
        # The end of any backward pass of the root ends that of all layers.
        nothing = torch.zeros((), device=next(iter(moved)).device, requires_grad=True)
        within(model, lambda: 0.0 * nothing).backward()
        for module in _shared_modules(model):
            module.reshard()
    if sharing(model):
        reached = [model.names[parameter] in model.reached for parameter in moved]
    else:
        reached = [owner.grad is not None for owner in moved.values()]
    counts = ranks.total(torch.tensor(reached, dtype=torch.int)).tolist()
    owners = list(zip(moved.values(), counts, strict=True))
    for owner in (o for o, count in owners if not count):
        owner.grad = None
    if not sharing(model):
        _add_gradients([o for o, count in owners if count])


def _add_gradients(parameters: Sequence[Tensor]) -> None:
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    bucket: list[Tensor] = []
    for parameter in parameters:
        bucket.append(parameter.grad)
        if sum(g.numel() for g in bucket) >= BUCKET or parameter is parameters[-1]:
            added = ranks.total(torch.cat([g.flatten() for g in bucket]))
            for g, part in zip(bucket, added.split([g.numel() for g in bucket]), strict=True):
                g.copy_(part.view_as(g))
            bucket = []


def backward(
    model: nn.Module,
    losses: Sequence[Loss],
    nothing: Callable[[], Tensor],
    sums: dict[str, Tensor],
) -> None:
    """Add the gradients of this process's losses, and to `sums` what they tell beside them.

    `nothing` is a pass of the same kind whose loss is 0.
    """
    missing = 0
    if sharing(model) == "always":
        missing = max(ranks.gather(len(losses))) - len(losses)
    for loss in losses:
        value, seen = within(model, loss)
        value.backward()
        for name, part in seen.items():
            sums[name] = sums.get(name, 0) + part
    for _ in range(missing):
        within(model, nothing).backward()


def full(tensor: Tensor) -> Tensor:
    """Return a tensor in one piece; all processes have to ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "placements") else tensor


def like(value: Tensor, own: Tensor) -> Tensor:
    """Return a tensor shared as `own` is, if it has that shape."""
    if value.shape != own.shape or hasattr(value, "placements") or not hasattr(own, "placements"):
        return value
    from torch.distributed.tensor import distribute_tensor

    value = value.to(own.device)
    return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)


@torch.no_grad()
def put(own: Tensor, value: Tensor) -> None:
    """Take the values of a tensor, which may be in one piece."""
    own.copy_(like(value, own))


def _shared_modules(model: nn.Module) -> list[nn.Module]:
    if not sharing(model):
        return []
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]
