"""Tiny models and a tiny sung language, for tests that encode, sample and learn in moments.

Each word of the language is a chord of its own, so that a model of a few thousand parameters can
tell words apart, and so that no two utterances sound alike.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.engines.engine import Rollout
from audiorl.engines.native import PolicyEngine
from audiorl.engines.sampling import Sampling
from audiorl.models.audio_llm import AudioLLM, AudioLLMSettings
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.models.lora import is_adapter
from audiorl.models.policy import Policy
from audiorl.models.tokenizer import SentencePieceTokenizer
from audiorl.rl.groups import Sampler

torch.set_num_threads(1)

RATE = 16000
WORDS = "ba do ki lu me no pa ri so tu".split()
SIZES = {
    "device": "cpu",
    "num_threads": 1,
    "tokenizer.vocab_size": 50,
    "frontend.n_mels": 16,
    "frontend.freq_mask_width": 4,
    "encoder.output_size": 16,
    "encoder.attention_heads": 2,
    "encoder.linear_units": 32,
    "encoder.num_blocks": 1,
    "encoder.kernel_size": 5,
    "adaptor.hidden_size": 32,
    "llm.hidden_size": 32,
    "llm.intermediate_size": 64,
    "llm.num_hidden_layers": 2,
    "llm.num_attention_heads": 4,
    "llm.num_key_value_heads": 2,
    "llm.prompt": "say {audio} :",
    "rl.num_prompts": 3,
    "rl.num_generations": 4,
    "rl.max_completion_length": 8,
    "decode.max_completion_length": 8,
    "score.normalizer": "none",
}


def tiny_config(keys: dict[str, Any] | None = None) -> Config:
    """A config of tiny sizes; `keys` are dotted, as on a command line."""
    config = Config()
    set_keys(config, {**SIZES, **(keys or {})})
    return config


def set_keys(config: Config, keys: dict[str, Any]) -> None:
    """Sets dotted keys of a config."""
    for path, value in keys.items():
        *sections, name = path.split(".")
        section = config
        for part in sections:
            section = getattr(section, part)
        assert hasattr(section, name), path
        setattr(section, name, value)


@functools.cache
def tiny_tokenizer() -> SentencePieceTokenizer:
    return SentencePieceTokenizer.train(tiny_config().tokenizer, [*sentences(200, seed=9), "say :"])


def tiny_model(keys: dict[str, Any] | None = None, seed: int = 0, spread: float = 1.0) -> AudioLLM:
    """A random model in evaluation mode. A larger `spread` makes its predictions less uniform."""
    config = tiny_config(keys)
    torch.manual_seed(seed)
    settings = AudioLLMSettings.of(config, "audio_llm")
    model = AudioLLM(settings, tiny_tokenizer()).eval()
    model.recipe = config  # for tests alone: models know their own sections only
    with torch.no_grad():
        for parameter in model.llm.parameters():
            if parameter.dim() > 1:
                parameter.mul_(spread)
    return model


def generate(
    policy: Policy,
    prefix: Prefix,
    *,
    group: int,
    max_length: int,
    sampling: Sampling,
    uniforms: torch.Tensor | None = None,
    **others: Any,
) -> Rollout:
    """A rollout of the native engine by given random numbers [B * group, max_length].

    others: attributes that the policy has meanwhile, `forbidden` and `pad_id` say.
    """
    before = {name: getattr(policy, name) for name in others}
    for name, value in others.items():
        setattr(policy, name, value)
    try:
        return PolicyEngine(policy)._sample(prefix, group, max_length, sampling, uniforms)
    finally:
        for name, value in before.items():
            setattr(policy, name, value)


def plain_lm(llm: LanguageModel) -> PreTrainedModel:
    """The model of transformers with these weights."""
    lm = AutoModelForCausalLM.from_config(llm.config, dtype=llm.lm_head.weight.dtype)
    lm.load_state_dict(llm.state_dict())
    return lm.eval()


def sampler(policy: Policy) -> Sampler:
    """Groups of the native engine, by the recipe of a tiny model."""
    return Sampler(PolicyEngine(policy), policy.recipe.rl, policy.recipe.seed)


def sentences(count: int, seed: int = 0, longest: int = 5) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, longest + 1))) for _ in range(count)]


def sing(text: str, seed: int = 0) -> np.ndarray:
    """A text as audio [S]: 0.15 s and a chord for each word, and a little noise."""
    time = np.arange(int(0.15 * RATE)) / RATE
    noise = np.random.default_rng(seed)
    chords = [
        np.sin(2 * np.pi * 200 * 1.3**place * time)
        + np.sin(2 * np.pi * (3000 - 200 * place) * time)
        for place in (WORDS.index(word) for word in re.findall("[a-z]+", text.lower()))
    ]
    wave = np.concatenate(chords) * 0.2
    return (wave + 0.01 * noise.standard_normal(len(wave))).astype(np.float32)


def write_set(folder: Path, texts: list[str], seed: int = 0) -> list[Utterance]:
    """A formatted data directory with a wav file for each text; returns its utterances."""
    folder.mkdir(parents=True)
    rows: dict[str, list[str]] = {n: [] for n in ("wav.scp", "text", "utt2spk", "utt2dur")}
    for i, text in enumerate(texts):
        name, speaker = f"s{i % 3}-{folder.name}{i:03d}", f"s{i % 3}"
        wave = sing(text, seed + i)
        soundfile.write(folder / f"{name}.wav", wave, RATE)
        rows["wav.scp"].append(f"{name} {(folder / name).absolute()}.wav")
        rows["text"].append(f"{name} {text}")
        rows["utt2spk"].append(f"{name} {speaker}")
        rows["utt2dur"].append(f"{name} {len(wave) / RATE:.4f}")
    speakers: dict[str, list[str]] = {}
    for row in rows["utt2spk"]:
        name, speaker = row.split()
        speakers.setdefault(speaker, []).append(name)
    rows["spk2utt"] = [f"{s} {' '.join(sorted(names))}" for s, names in speakers.items()]
    for file, lines in rows.items():
        (folder / file).write_text("".join(line + "\n" for line in sorted(lines)))
    return read_utterances(folder)


def random_prefix(hidden_size: int, lengths: list[int], seed: int = 0) -> Prefix:
    """Prefixes of these lengths made of random embeddings."""
    generator = torch.Generator().manual_seed(seed)
    rows = [0.5 * torch.randn(n, hidden_size, generator=generator) for n in lengths]
    return Prefix.join(rows)


@torch.no_grad()
def move_adapters(model: Policy, spread: float) -> Policy:
    """Make the adapters of a model, which begin at nothing, as if they had learnt something."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            parameter += spread * torch.randn(parameter.shape, generator=generator)
    return model
