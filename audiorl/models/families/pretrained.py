"""Pretrained audio LLMs of transformers as policies: everything that the families share.

A family's own forward runs up to its language model, and the embeddings that it hands over, with
the audio in them, are taken there. So nothing of its encoder, projector or merging is written
again, and gradients reach all of it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.rnn import pad_sequence
from transformers.utils import cached_file

from audiorl.config.field import key
from audiorl.config.pretrained import MODEL_TYPES, read_shape, why_unknown
from audiorl.config.schema import Config
from audiorl.errors import UserError, reason
from audiorl.models import NO_CODE, WEIGHTS
from audiorl.models.hub import UNLOADABLE, load_whole
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.models.lora import merge_adapters
from audiorl.models.recogniser import Recogniser
from audiorl.models.settings import build_model, save_settings
from audiorl.models.tokenizer import FamilyTokenizer
from audiorl.runtime.files import atomic_path, disk_errors

NO_ADAPTER = {"subfolder": "none"}  # where transformers looks for one
NOT_NEEDED = {"_raise_exceptions_for_missing_entries": False}  # None for a file that is absent
Inputs = dict[str, Tensor]


@dataclass
class PretrainedSettings:
    """Settings of a pretrained audio LLM."""

    family: str = key("", "policy family")
    pretrained: str = key("", "folder or hub name that it comes from")
    prompt: str = key("", "the prefix; {audio} stands for audio embeddings and tokens around them")
    dtype: str = key("float32", "weights and activations", choices=("float32", "bfloat16"))


class PretrainedAudioLLM(Recogniser):
    """A pretrained audio LLM: base of the families, which are found by `model_type`.

    A condition is the embeddings [A, H] of an utterance's audio, as the language model reads them:
    its encoder and projector have run.
    """

    settings_type = PretrainedSettings
    condition_parts = ("encoder", "adaptor")
    sample_rate = 16000
    seconds = (0.1, math.inf)  # less leaves some families no embedding

    # A family's own; names of modules are those of its class.
    model_class: ClassVar[str]  # in transformers
    prompt: ClassVar[str]  # the chat that asks for a transcript; {audio} stands for `audio`
    audio: ClassVar[str]  # the placeholder, once, and the tokens around it
    placeholder: ClassVar[str]  # token of one audio embedding
    stops: ClassVar[tuple[str, ...]]  # tokens that end a response, first the one it is trained on
    allowed: ClassVar[tuple[str, ...]] = ()  # special tokens that belong in responses
    feature_names: ClassVar[tuple[str, ...]] = ("input_features", "input_features_mask")
    reads_alone: ClassVar[bool] = False  # its embeddings of an utterance depend on the batch
    own_adapter: ClassVar[str] = ""  # subfolder of an adapter for audio; empty: beside the weights
    encoder_name: ClassVar[str] = "model.audio_tower"
    adaptor_name: ClassVar[str] = "model.multi_modal_projector"
    body_name: ClassVar[str] = "model.language_model"
    entry_name: ClassVar[str] = ""  # the module that embeddings enter first; empty: the body

    def __init__(
        self, settings: PretrainedSettings, hf: transformers.PreTrainedModel, processor: Any
    ) -> None:
        super().__init__()
        self.settings, self.processor = settings, processor
        self.hf = hf
        self.correct(hf)
        body = hf.get_submodule(self.body_name)
        self.llm = LanguageModel(body, hf.lm_head, self.logits_scale(body.config))
        tokenizer, ends = processor.tokenizer, hf.generation_config.eos_token_id
        tokens = (self.placeholder, self.stops, self.allowed)
        self.tokenizer = FamilyTokenizer(tokenizer, self.family, *tokens, ends, self.clean)
        self.stop_ids, self.pad_id = self.tokenizer.stop_ids, self.tokenizer.pad_id
        self.forbid(self.tokenizer.forbidden_ids, self.tokenizer.vocab_size)
        self._placeholder = tokenizer.convert_tokens_to_ids(self.placeholder)
        self._text = settings.prompt.replace("{audio}", self.audio)
        # A second of silence shows the ids around the audio.
        ids = self.inputs([self._text], [np.zeros(self.sample_rate, np.float32)])["input_ids"]
        self._around = self._split(ids[0].tolist())

    @staticmethod
    def load_processor(name: str) -> Any:
        """Return what makes the inputs of the forward, of a folder or hub name."""
        return transformers.AutoProcessor.from_pretrained(name, **NO_CODE)

    def inputs(self, texts: list[str], waves: list[np.ndarray]) -> Inputs:
        """Return the inputs of the family's forward: `texts` with the placeholders of `waves`."""
        # Padding is asked of the text alone: extractors that must pad to 30 s would take it, too.
        made = self.processor(
            text=texts,
            audio=waves,
            text_kwargs={"padding": True, "padding_side": "left"},
            audio_kwargs={"sampling_rate": self.sample_rate},
            return_tensors="pt",
        )
        return {name: made[name] for name in ("input_ids", "attention_mask", *self.feature_names)}

    @staticmethod
    def correct(hf: transformers.PreTrainedModel) -> None:
        """Correct what transformers has wrong in a loaded model."""

    @staticmethod
    def clean(text: str) -> str:
        """Return the transcript in a response."""
        return text

    @staticmethod
    def logits_scale(config: Any) -> float:
        """Return the number that the head's outputs are divided by, of the LM's config."""
        return 1.0

    @classmethod
    def create(cls, config: Config, texts: Iterable[str]) -> PretrainedAudioLLM:
        """Return the recogniser `model.pretrained`; its text units are its own."""
        return cls._made(config, cls.from_settings)

    @classmethod
    def without_weights(cls, config: Config) -> PretrainedAudioLLM:
        """Return the same with its model on the meta device: no weights are read."""
        kind = getattr(transformers, cls.model_class)

        def shape(settings: PretrainedSettings, name: str) -> PretrainedAudioLLM:
            with torch.device("meta"):
                hf = kind(kind.config_class.from_pretrained(name))
            hf = hf.to(getattr(torch, settings.dtype))
            return cls(settings, hf, cls.load_processor(name))

        return cls._made(config, shape)

    @classmethod
    def _made(
        cls, config: Config, make: Callable[[PretrainedSettings, str], PretrainedAudioLLM]
    ) -> PretrainedAudioLLM:
        name, llm = config.model.pretrained, config.llm
        settings = PretrainedSettings(cls.family, name, llm.prompt or cls.prompt, llm.dtype)
        try:
            return make(settings, name)
        except UNLOADABLE as error:
            raise UserError(
                f"model.pretrained: {name} cannot be loaded ({reason(error)}); give a folder or a "
                f"hub name of a {cls.family} as transformers {transformers.__version__} reads it."
            ) from error

    @classmethod
    def from_settings(cls, settings: PretrainedSettings, folder: Path | str) -> PretrainedAudioLLM:
        """Return the model of a folder or hub name, with its weights."""
        kind, dtype = getattr(transformers, cls.model_class), getattr(torch, settings.dtype)
        # The adapter comes after: loaded with the weights, it hides that some of them are missing.
        alone = {"dtype": dtype, "use_safetensors": True, "adapter_kwargs": NO_ADAPTER}
        hf = load_whole(kind, str(folder), **alone)
        cls._merge_adapter(hf, str(folder))
        return cls(settings, hf, cls.load_processor(str(folder)))

    @classmethod
    def _merge_adapter(cls, hf: transformers.PreTrainedModel, name: str) -> None:
        """Merge the adapter for audio that a checkpoint may bring: here there is always audio."""
        options = {"subfolder": cls.own_adapter}
        if not cached_file(name, "adapter_config.json", **options, **NOT_NEEDED):
            return
        seen = hf.load_adapter(name, adapter_kwargs=options)
        if seen.missing_keys:
            raise ValueError(f"its adapter lacks {len(seen.missing_keys)} weights")
        merge_adapters(hf)
        hf._hf_peft_config_loaded = False
        hf._weight_conversions = None  # those of the adapter

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> PretrainedAudioLLM:
        model = build_model(
            folder, "model", cls.settings_type, lambda s: cls.from_settings(s, folder)
        )
        return model.to(device).eval()

    def save_vocabulary(self, folder: Path) -> None:
        self.processor.save_pretrained(folder)

    def save(self, folder: Path) -> None:
        """Write the family's own layout, which transformers reads alone; the weights last."""
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / ".unfinished"
        with disk_errors(folder):
            shutil.rmtree(unfinished, ignore_errors=True)
            self.save_vocabulary(folder)
            try:
                self.hf.save_pretrained(unfinished, max_shard_size="1000TB")
            except SafetensorError as error:  # it wraps the system's own error
                raise OSError(str(error)) from error
            with atomic_path(folder / WEIGHTS) as weights:
                (unfinished / WEIGHTS).replace(weights)
                for path in unfinished.iterdir():
                    path.replace(folder / path.name)
                save_settings(self, folder)
            unfinished.rmdir()

    def train(self, mode: bool = True) -> PretrainedAudioLLM:
        """Set the mode; batch norms keep the statistics that they were pretrained with."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    @property
    def adapted_module(self) -> nn.Module:
        return self.hf

    def part(self, name: str) -> list[nn.Module]:
        """Return the modules of a part, without those of another that lie within."""
        heads = {"encoder": [self.encoder_name], "adaptor": [self.adaptor_name]}
        own = heads.get(name, [self.body_name, "lm_head"])
        others = [self.hf.get_submodule(n) for n in (self.encoder_name, self.adaptor_name)]
        modules = [self.hf.get_submodule(n) for n in own]
        return [found for m in modules for found in _without(m, [o for o in others if o is not m])]

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the embeddings [A_i, H] of waves [S_i] at `sample_rate`.

        A wave that is too short to be heard is followed by silence; UserError for one too long.
        """
        waves = [self._audible(wave.cpu().numpy()) for wave in inputs]
        size = 1 if self.reads_alone else max(1, len(waves))
        found: list[Tensor] = []
        for first in range(0, len(waves), size):
            found += self._embed(waves[first : first + size])
        return found

    def _audible(self, wave: np.ndarray) -> np.ndarray:
        shortest, longest = (seconds * self.sample_rate for seconds in self.seconds)
        if len(wave) > longest:
            raise UserError(
                f"a {self.family} hears {self.seconds[1]:g} s, and audio of "
                f"{len(wave) / self.sample_rate:.2f} s would be cut; split it."
            )
        return np.pad(wave, (0, max(0, int(shortest) - len(wave))))

    def _embed(self, waves: list[np.ndarray]) -> list[Tensor]:
        inputs = {
            name: tensor.to(self.device, self.hf.dtype if tensor.is_floating_point() else None)
            for name, tensor in self.inputs([self._text] * len(waves), waves).items()
        }
        seen = self._before_lm(inputs)
        real, ids = inputs["attention_mask"].bool(), inputs["input_ids"]
        positions = seen.get("position_ids")
        # Rotary attention sees differences of positions alone, so padding may be counted, too.
        neighbours = real[:, 1:] & real[:, :-1]
        if positions is not None and ((positions.diff(dim=-1) != 1) & neighbours).any():
            raise UserError(f"a {self.family} gives audio positions of its own: not supported.")
        if any(
            self._split(row[m].tolist()) != self._around for row, m in zip(ids, real, strict=True)
        ):
            raise UserError(f"a {self.family} changes its prompt with the audio: not supported.")
        rows = zip(seen["inputs_embeds"], ids == self._placeholder, strict=True)
        return [row[audio] for row, audio in rows]

    def _before_lm(self, inputs: Inputs) -> dict[str, Any]:
        """Return the arguments that the family's forward hands to its language model."""
        seen: dict[str, Any] = {}

        def take(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            seen.update(kwargs)
            if self.entry_name:
                seen["inputs_embeds"] = args[0]
            raise _Enough

        entry = self.hf.get_submodule(self.entry_name or self.body_name)
        hook = entry.register_forward_pre_hook(take, with_kwargs=True)
        try:
            with contextlib.suppress(_Enough):
                self.hf(**inputs, use_cache=False)
        except ValueError as error:  # it counts placeholders
            raise UserError(
                f"a {self.family} cannot read its prompt with audio ({reason(error)}); give the "
                "tokenizer and the config.json of one model, and no placeholder beside {audio}."
            ) from error
        finally:
            hook.remove()
        return seen

    def prefix(self, conditions: Sequence[Tensor]) -> Prefix:
        """Return the prompt around audio embeddings [A_i, H]."""
        before, after = (
            self.llm.embed(torch.tensor(ids, dtype=torch.long, device=self.device))
            for ids in self._around
        )
        return Prefix.join(
            [torch.cat([before, row.to(self.device, before.dtype), after]) for row in conditions]
        )

    def prefix_length(self, condition: Tensor) -> int:
        return len(condition) + sum(map(len, self._around))

    def longest_prefix(self, seconds: float) -> tuple[int, int]:
        """Return the positions of the prefix of audio of that length, or of the longest; and 0."""
        wave = np.zeros(int(min(seconds, self.seconds[1]) * self.sample_rate), np.float32)
        return self.inputs([self._text], [wave])["input_ids"].size(1), 0

    def _split(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """The ids before and behind the placeholders."""
        first = ids.index(self._placeholder)
        behind = len(ids) - ids[::-1].index(self._placeholder)
        return ids[:first], ids[behind:]


class Parts:
    """A tokenizer and a feature extractor, where the whole processor needs further packages."""

    # Files of the whole processor: copied on saving, for programs that have those packages.
    FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")

    def __init__(self, name: str) -> None:
        # Mistral's own format finds no special tokens in a text.
        plain = {"mistral_format": False, **NO_CODE}
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(name, **plain)
        self.feature_extractor = transformers.AutoFeatureExtractor.from_pretrained(name, **NO_CODE)
        paths = {file: cached_file(name, file, **NOT_NEEDED) for file in self.FILES}
        self._files = {file: Path(path).read_bytes() for file, path in paths.items() if path}

    def ids(self, texts: list[str], mark: str, counts: list[int]) -> Inputs:
        """Return token ids of texts with `counts` placeholders each, padded on the left."""
        rows = [
            self.tokenizer.encode(
                text.replace(mark, mark * count), add_special_tokens=False, return_tensors="pt"
            )[0]
            for text, count in zip(texts, counts, strict=True)
        ]
        # By hand, since a tekken.json alone names no padding.
        padded = functools.partial(pad_sequence, batch_first=True, padding_side="left")
        return {
            "input_ids": padded(rows),
            "attention_mask": padded(list(map(torch.ones_like, rows))),
        }

    def save_pretrained(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)
        for name, content in self._files.items():
            (folder / name).write_bytes(content)


class _Enough(Exception):
    """Ends a forward where the language model would begin."""


def pretrained_family(name: str) -> str:
    """Return the family of a folder or hub name by its config.json; reads no weights.

    Raises UserError if it is no recogniser that is known.
    """
    try:
        local = os.path.isdir(name)
        shape = read_shape(name if local else os.path.dirname(cached_file(name, "config.json")))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{name} has no config.json that can be read ({reason(error)}); "
            "give a folder or a hub name of a recogniser."
        ) from error
    if why := why_unknown(shape):
        raise UserError(f"{name} {why}.")
    return MODEL_TYPES[shape["model_type"]]


def _without(module: nn.Module, others: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the largest modules within `module` that hold none of the others."""
    if module in others:
        return []
    if not any(other in module.modules() for other in others):
        return [module]
    return [found for child in module.children() for found in _without(child, others)]
