"""The door of the models: a policy is a language model that continues the prefixes of its task.

Rollout and RL know nothing else of a model. `find_policy` finds an implementation by name: the two
of this package, or `families/<name>.py`, which defines a class `Family`.
"""

from __future__ import annotations

import copy
import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from audiorl.config.dump import dump_section
from audiorl.config.loader import load_section
from audiorl.errors import UserError, reason
from audiorl.models import WEIGHTS, load_weights, save_weights
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.models.tokenizer import Tokenizer
from audiorl.runtime.files import atomic_write

SETTINGS = "config.yaml"
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
        with atomic_write(folder / SETTINGS) as stream:
            stream.write(dump_section(self.settings))
        self.save_vocabulary(folder)
        self.llm.config.save_pretrained(folder)
        save_weights(self, folder / WEIGHTS)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def find_policy(name: str) -> type[Policy]:
    """Return the class of a policy family; UserError if there is none of this name."""
    module = KNOWN.get(name, f"audiorl.models.families.{name}")
    try:
        found = getattr(importlib.import_module(module), "Family", None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        found = None
    if found is None:
        raise UserError(
            f"model.family: there is no policy family {name}; take one of {', '.join(KNOWN)}, or "
            "put yours into the folder families/ of AUDIORL_PLUGINS."
        )
    return found


def load_policy(folder: str | Path, device: str = "cpu") -> Policy:
    """Return the policy saved in `folder`, in evaluation mode.

    Raises UserError if it is not there, not whole, or was written by an older audiorl.
    """
    folder = Path(folder)
    name = saved_family(folder)
    family = find_policy(name)
    try:
        settings = load_section(family.settings_type, folder / SETTINGS)
        policy = family.from_settings(settings, folder)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{folder}: the model is not whole ({reason(error)}); restore the folder or train "
            "again."
        ) from error
    load_weights(policy, folder / WEIGHTS)
    return policy.to(device).eval()


def saved_family(folder: Path) -> str:
    """Return the family of the policy saved in `folder`; UserError if there is no such model."""
    path = folder / SETTINGS
    if not path.is_file():
        raise UserError(f"{folder}: there is no model; run the training stage that writes it.")
    found = re.search(r"^family: ([\w.-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise UserError(
            f"{path}: the model was written by an audiorl before 0.2, which kept the whole recipe "
            "there; train it again, or decode it with that version."
        )
    return found[1]
