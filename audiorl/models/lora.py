"""Low-rank adapters on the parts of a policy, through peft (Hu et al. 2021, arXiv 2106.09685).

    y = W x + (alpha / rank) B A x

A and B learn, in fp32 whatever the type of W; B begins at 0, so that a policy with new adapters is
the policy without. The base weights W are frozen.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from audiorl.config.field import key
from audiorl.config.lora import LoRAConfig
from audiorl.errors import UserError
from audiorl.models import save_tensors

log = logging.getLogger(__name__)

ADAPTED = "adapted.yaml"
PEFT_WEIGHTS = "adapter_model.safetensors"
NAME = "default"  # peft's, of the only adapter of a layer


@dataclass
class Adapted:
    """Description of a model that is saved as adapters alone."""

    base: str = key("", "folder of the model that they adapt, seen from theirs")
    lora: LoRAConfig = key(LoRAConfig, "the adapters")


def is_adapter(name: str) -> bool:
    """Return whether a parameter of this name belongs to an adapter."""
    return ".lora_" in f".{name}"  # which may be seen from the layer itself


def learning_parameters(part: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Return what learns of a part, made of modules: its adapters, else all parameters."""
    named = [pair for module in part for pair in module.named_parameters()]
    return [p for name, p in named if is_adapter(name)] or [p for _, p in named]


def add_adapters(root: nn.Module, layers: list[nn.Linear], lora: LoRAConfig, seed: int) -> None:
    """Give linear layers within `root` adapters in fp32, in place; `seed` decides about A."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.functional import cast_adapter_dtype

    chosen = {id(layer) for layer in layers}
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=[name for name, m in root.named_modules() if id(m) in chosen],
    )
    learning = [p for p in root.parameters() if p.requires_grad]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, root)
    cast_adapter_dtype(root, NAME)
    for parameter in learning:  # peft freezes all that is no adapter
        parameter.requires_grad_(True)


def chosen_layers(
    policy: nn.Module, part: str, modules: Iterable[nn.Module], head: nn.Module, lora: LoRAConfig
) -> list[nn.Linear]:
    """Return the linear layers of a policy's part, made of `modules`, that `lora.targets` names.

    Raises UserError for a name that no layer of the part has.
    """
    inside = {id(layer) for module in modules for layer in module.modules()}
    named = policy.named_modules()
    linear = [(n, m) for n, m in named if isinstance(m, nn.Linear) and id(m) in inside]
    if part in lora.targets:
        return [layer for _, layer in linear if layer is not head]
    found = []
    for target in lora.targets:
        owner, _, wanted = target.partition(".")
        if owner != part:
            continue
        named = [layer for name, layer in linear if f".{name}".endswith(f".{wanted}")]
        if not named:
            known = sorted({re.search(r"[^.]+(\.\d+)?$", name)[0] for name, _ in linear})
            raise UserError(
                f"lora.targets: {target} is no linear layer; {part} has {', '.join(known)}."
            )
        found += named
    return found


@torch.no_grad()
def merge_adapters(model: nn.Module) -> None:
    """Add the adapters to their weights and take them out, in place; says what rounding loses."""
    kept, whole = 0.0, 0.0
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if hasattr(layer, "original_module"):  # peft's modules_to_save: learnt as a whole
                setattr(parent, name, layer.modules_to_save[NAME])
            if not hasattr(layer, "lora_A"):
                continue
            base = layer.get_base_layer()
            if not layer.merged:
                before = base.weight.detach().clone()
                change = layer.get_delta_weight(NAME)
                layer.merge()
                if base.weight.dtype != torch.float32:
                    kept += ((base.weight.float() - before.float()) * change).sum().item()
                    whole += change.square().sum().item()
            setattr(parent, name, base)
    for module in model.modules():
        if "peft_config" in vars(module):
            del module.peft_config
    if whole:
        log.info("merged: %.0f %% of the adapters' change outlasts rounding", 100 * kept / whole)


@torch.no_grad()
def merged_weights(root: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters of `root` as if its adapters were merged, which they stay without."""
    for name, parameter in root.named_parameters():
        owner, adapted, _ = name.partition(".base_layer.")
        if adapted and name.endswith(".weight"):
            change = root.get_submodule(owner).get_delta_weight(NAME)
            parameter = (parameter.float() + change.float()).to(parameter.dtype)
        if not is_adapter(name):
            yield name.replace(".base_layer.", "."), parameter.detach()


def save_for_peft(root: nn.Module, base: Path, folder: Path) -> None:
    """Write the adapters of `root` as plain peft loads them onto the model of `base`."""
    from peft import get_peft_model_state_dict

    if "peft_config" not in vars(root):  # only parts that transformers does not know have any
        return
    tensors = get_peft_model_state_dict(root, save_embedding_layers=False)
    config = root.peft_config[NAME]
    config.base_model_name_or_path = os.path.relpath(base, folder)
    config.inference_mode = True
    config.save_pretrained(folder)
    save_tensors(
        {f"base_model.model.{n}": t.contiguous() for n, t in tensors.items()}, folder / PEFT_WEIGHTS
    )


def head_adapter(head: nn.Module, hidden: Tensor) -> Tensor | None:
    """Return the logits [..., V] in fp32 that an adapter adds to a head's, if it has one."""
    if not hasattr(head, "lora_A"):
        return None
    a, b = head.lora_A[NAME], head.lora_B[NAME]
    return b(a(head.lora_dropout[NAME](hidden.float()))) * head.scaling[NAME]
