"""The door of the models: a policy is a language model that continues the prefixes of its task.

Rollout and RL know nothing else of a model. `find_policy` finds an implementation by name: the two
of this package, or `families/<name>.py`, which defines a class `Family`.
"""

from __future__ import annotations

import copy
import functools
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from audiorl.config.dump import dump_section
from audiorl.config.loader import load_section
from audiorl.config.lora import LoRAConfig
from audiorl.config.parallelism import ParallelismConfig
from audiorl.config.variants import definition
from audiorl.errors import UserError, reason
from audiorl.models import (
    WEIGHTS,
    fill_weights,
    learning_tensors,
    read_weights,
    save_tensors,
    weights_of,
)
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.models.lora import (
    ADAPTED,
    Adapted,
    add_adapters,
    chosen_layers,
    is_adapter,
    learning_parameters,
    merge_adapters,
    save_for_peft,
)
from audiorl.models.settings import FILE, load_model, read_settings, save_model, save_settings
from audiorl.models.tokenizer import Tokenizer
from audiorl.runtime.files import atomic_write
from audiorl.runtime.sharding import shard
from audiorl.runtime.stamps import folder_files

KNOWN = {
    "audio_llm": "audiorl.models.audio_llm",
    "speech_lm": "audiorl.models.speech_lm",
}


class Policy(nn.Module, ABC):
    """A model that learns: an encoder of inputs, a prefix, and a language model that continues it.

    A condition is what a response depends on, kept on the host from rollout to update: encoder
    frames [T, D] in recognition, the token ids [T] of a text in synthesis. An utterance's condition
    is the same alone and in any batch.
    """

    family: ClassVar[str]  # the name that finds the class again
    task: ClassVar[str]  # asr or tts
    settings_type: ClassVar[type]  # dataclass: the family's name, and the sections it is made of
    part_names: ClassVar[tuple[str, ...]] = ("llm",)  # what `rl.train` may name
    condition_parts: ClassVar[tuple[str, ...]] = ()  # those that `encode` runs

    settings: Any
    llm: LanguageModel
    tokenizer: Tokenizer
    stop_ids: tuple[int, ...]  # ids that end a response; training writes the first
    pad_id: int
    forbidden: Tensor  # [V] bool, ids that are never sampled
    lora: LoRAConfig | None = None  # of its adapters, if it has any

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Any, folder: Path) -> Policy:
        """Return the shape of the model saved in `folder`; its weights are filled in later."""

    @abstractmethod
    def encode(self, inputs: Sequence[Any]) -> list[Tensor]:
        """Return the condition of each input, with gradient where gradients are on."""

    @abstractmethod
    def prefix(self, conditions: Sequence[Tensor]) -> Prefix:
        """Return what the language model reads before it responds."""

    @abstractmethod
    def prefix_length(self, condition: Tensor) -> int:
        """Return the positions of one prefix, to a few tokens."""

    @abstractmethod
    def save_vocabulary(self, folder: Path) -> None:
        """Write the tokenizer and whatever else `from_settings` reads."""

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.forbidden.device

    def forbid(self, ids: Iterable[int], rows: int) -> None:
        """Register `forbidden`: `ids`, and rows of the head from `rows` on, which pad its table."""
        forbidden = torch.zeros(self.llm.vocab_size, dtype=torch.bool)
        forbidden[[i for i in ids if i < len(forbidden)]] = True
        forbidden[rows:] = True
        self.register_buffer("forbidden", forbidden, persistent=False)

    def pad_responses(self, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return rows of ids [R_i] as a batch [B, R], padded on the right, and its mask [B, R]."""
        tokens = pad_sequence(list(rows), batch_first=True, padding_value=self.pad_id)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(tokens.size(1)) < lengths[:, None]
        return tokens.to(self.device), mask.to(self.device)

    def part(self, name: str) -> list[nn.Module]:
        """Return the modules of one of `part_names`; no two parts share any."""
        return [getattr(self, name)]

    def parts(self, names: Sequence[str]) -> list[nn.Module]:
        """Return the modules of `names`, of which `part_names` are known."""
        for name in names:
            if name not in self.part_names:
                raise UserError(
                    f"rl.train: {name} is not a part of {self.family}; name some of "
                    f"{', '.join(self.part_names)}."
                )
        return [module for name in names for module in self.part(name)]

    def condition_learns(self, names: Sequence[str]) -> bool:
        """Return whether `encode` changes when the parts `names` learn."""
        return any(name in self.condition_parts for name in names)

    def train_only(self, names: Sequence[str]) -> list[nn.Module]:
        """Freeze everything but the parts of `names`, or their adapters; return the parts.

        Constants stay frozen: what transformers makes so, as the sinusoids of Whisper's encoder.
        """
        learning = self._learning(names)
        self.requires_grad_(False)
        for parameter in learning:
            parameter.requires_grad_(True)
        return self.parts(names)

    def _learning(self, names: Sequence[str]) -> list[nn.Parameter]:
        found = [p for name in names for p in learning_parameters(self.parts([name]))]
        return [p for p in found if id(p) not in self._constants]

    @functools.cached_property
    def _constants(self) -> frozenset[int]:
        """Ids of the parameters that are frozen before anything is frozen here."""
        return frozenset(id(p) for p in self.parameters() if not p.requires_grad)

    def adapt(self, lora: LoRAConfig, seed: int) -> None:
        """Give the layers that `lora` names new adapters; those that it has already stay.

        Adapters of other sizes or places are merged before, and all if the rank is 0. A policy with
        new adapters is the policy without. Raises UserError for layers that are not there.
        """
        if self.lora is not None and lora.makes_the_same(self.lora):
            return
        _ = self._constants  # noted before peft freezes the rest
        merge_adapters(self)
        self.lora = lora if lora.rank else None
        if self.lora is None:
            return
        head, root = self.llm.lm_head, self.adapted_module
        roots: dict[nn.Module, list[nn.Linear]] = {}
        for part in lora.parts():
            modules = self.parts([part])
            for layer in chosen_layers(self, part, modules, head, lora):
                if layer is head and head.weight is self.llm.model.get_input_embeddings().weight:
                    raise UserError(
                        "lora.targets: the head's weights are those of the embeddings, which an "
                        "adapter would leave as they are; take out llm.lm_head."
                    )
                inside = any(layer is module for module in root.modules())
                roots.setdefault(root if inside else modules[0], []).append(layer)
        place = next((name for name, module in root.named_modules() if module is head), None)
        for module, layers in roots.items():
            add_adapters(module, layers, lora, seed)
        self.llm.lm_head = root.get_submodule(place)
        for part in lora.parts():
            for module in self.parts([part]):
                for name, parameter in module.named_parameters():
                    parameter.requires_grad_(is_adapter(name))
        self.train(self.training)  # the dropout of new adapters, too

    def share_weights(self, keys: ParallelismConfig) -> None:
        """Share what learns among processes (see `runtime.sharding`)."""
        shard(self, self.llm.layers, keys)

    @property
    def adapted_module(self) -> nn.Module:
        """The module that transformers has too; saved adapters are named as in it."""
        return self.llm

    def reference(self, names: Sequence[str]) -> Policy:
        """Return a frozen copy for the KL term; it shares all tensors that do not learn.

        Of parts with adapters these alone are copied, so it stays the policy as it is now.
        """
        learning = {id(p) for p in self._learning(names)}
        learning |= {id(b) for part in self.parts(names) for b in part.buffers()}
        tensors = (*self.parameters(), *self.buffers())
        shared = {id(t): t for t in tensors if id(t) not in learning}
        return copy.deepcopy(self, shared).requires_grad_(False)

    def save(self, folder: Path) -> None:
        """Write everything that decoding needs: settings, tokenizer, LM sizes; the weights last."""
        folder.mkdir(parents=True, exist_ok=True)
        self.save_vocabulary(folder)
        self.llm.config.save_pretrained(folder)
        save_model(self, folder)

    def save_adapters(self, folder: Path, base: Path) -> None:
        """Write what learns, to be read onto the model of the folder `base`; the weights last.

        The adapters lie there in peft's layout too, for the LM (or model) of transformers.
        """
        folder.mkdir(parents=True, exist_ok=True)
        save_settings(self, folder)
        save_for_peft(self.adapted_module, base, folder)
        with atomic_write(folder / ADAPTED) as stream:
            stream.write(dump_section(Adapted(os.path.relpath(base, folder), self.lora)))
        save_tensors(learning_tensors(self), folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Policy:
        """Return the policy saved in `folder`, in evaluation mode; UserErrors of `load_model`."""
        return load_model(
            folder, "model", cls.settings_type, lambda s: cls.from_settings(s, folder), device
        )


def find_policy(name: str) -> type[Policy]:
    """Return the class of a policy family; UserError if there is none of this name."""
    found = definition(KNOWN.get(name, f"audiorl.models.families.{name}"), "Family")
    if found is None:
        raise UserError(
            f"model.family: there is no policy family {name}; take one of {', '.join(KNOWN)}, or "
            "put yours into the folder families/ of AUDIORL_PLUGINS."
        )
    return found


def load_policy(folder: str | Path, device: str = "cpu") -> Policy:
    """Return the policy saved in `folder`, in evaluation mode; UserErrors of `load_model`.

    Adapters that were saved alone are read onto their base, not merged.
    """
    folder = Path(folder)
    if (folder / ADAPTED).is_file():
        return _load_adapters(folder, device)
    return find_policy(saved_family(folder)).load(folder, device)


def _load_adapters(folder: Path, device: str) -> Policy:
    adapted = load_section(Adapted, folder / ADAPTED)
    policy = load_policy(folder / adapted.base, device)
    policy.adapt(adapted.lora, 0)
    tensors = read_weights(folder / WEIGHTS)
    own = weights_of(policy).keys()
    adapters = {name for name in own if is_adapter(name)}
    try:
        fill_weights(policy, tensors, adapters | (own & tensors.keys()))
    except RuntimeError as error:
        raise UserError(
            f"{folder}: its adapters do not fit the model {folder / adapted.base} "
            f"({reason(error)}); restore that model or train again."
        ) from error
    return policy.eval()


def model_files(folder: Path) -> dict[str, Path]:
    """Return the files of a saved policy by name; of adapters, those of what they adapt, too."""
    found = folder_files(folder)
    if (folder / ADAPTED).is_file():
        base = model_files(folder / load_section(Adapted, folder / ADAPTED).base)
        found |= {f"base/{name}": file for name, file in base.items()}
    return found


def saved_family(folder: Path) -> str:
    """Return the family of the policy saved in `folder`; UserError if there is no such model."""
    found = re.search(r"^family: ([\w.-]+)", read_settings(folder, "model"), re.MULTILINE)
    if not found:
        raise UserError(f"{folder / FILE}: names no family of policies; train the model again.")
    return found[1]
