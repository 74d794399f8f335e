"""The door of the models: a policy is a language model that continues the prefixes of its task.

Rollout and RL know nothing else of a model. `find_policy` finds an implementation by name: the two
of this package, or `families/<name>.py`, which defines a class `Family`.
"""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from audiorl.config.variants import definition
from audiorl.errors import UserError
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.models.settings import FILE, load_model, read_settings, save_model
from audiorl.models.tokenizer import Tokenizer

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

    settings: Any
    llm: LanguageModel
    tokenizer: Tokenizer
    stop_ids: tuple[int, ...]  # ids that end a response; training writes the first
    pad_id: int
    forbidden: Tensor  # [V] bool, ids that are never sampled

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
        forbidden[list(ids)] = True
        forbidden[rows:] = True
        self.register_buffer("forbidden", forbidden, persistent=False)

    def pad_responses(self, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return rows of ids [R_i] as a batch [B, R], padded on the right, and its mask [B, R]."""
        tokens = pad_sequence(list(rows), batch_first=True, padding_value=self.pad_id)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(tokens.size(1)) < lengths[:, None]
        return tokens.to(self.device), mask.to(self.device)

    def parts(self, names: Sequence[str]) -> list[nn.Module]:
        """Return the modules of `names`, of which `part_names` are known."""
        for name in names:
            if name not in self.part_names:
                raise UserError(
                    f"rl.train: {name} is not a part of {self.family}; name some of "
                    f"{', '.join(self.part_names)}."
                )
        return [getattr(self, name) for name in names]

    def train_only(self, names: Sequence[str]) -> list[nn.Module]:
        """Freeze everything but the parts of `names`, which are returned."""
        self.requires_grad_(False)
        return [part.requires_grad_(True) for part in self.parts(names)]

    def reference(self, names: Sequence[str]) -> Policy:
        """Return a frozen copy for the KL term; it shares whatever is not in the parts `names`."""
        learning = {
            id(t) for part in self.parts(names) for t in (*part.parameters(), *part.buffers())
        }
        tensors = (*self.parameters(), *self.buffers())
        shared = {id(t): t for t in tensors if id(t) not in learning}
        return copy.deepcopy(self, shared).requires_grad_(False)

    def save(self, folder: Path) -> None:
        """Write everything that decoding needs: settings, tokenizer, LM sizes; the weights last."""
        folder.mkdir(parents=True, exist_ok=True)
        self.save_vocabulary(folder)
        self.llm.config.save_pretrained(folder)
        save_model(self, folder)


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
    """Return the policy saved in `folder`, in evaluation mode; UserErrors of `load_model`."""
    folder = Path(folder)
    family = find_policy(saved_family(folder))
    return load_model(
        folder, "model", family.settings_type, lambda s: family.from_settings(s, folder), device
    )


def saved_family(folder: Path) -> str:
    """Return the family of the policy saved in `folder`; UserError if there is no such model."""
    found = re.search(r"^family: ([\w.-]+)", read_settings(folder, "model"), re.MULTILINE)
    if not found:
        raise UserError(f"{folder / FILE}: names no family of policies; train the model again.")
    return found[1]
