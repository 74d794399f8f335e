"""Recipes that name a pretrained recogniser: what contradicts it, and what it may be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from audiorl.config import load_config
from audiorl.config.check import check_recipe
from audiorl.errors import UserError

RECIPE = "model: {pretrained: Qwen/Qwen3-ASR-0.6B-hf}\nsft: {schedule: {max_steps: 0}}\n"


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("tokenizer: {vocab_size: 500}", "tokenizer.vocab_size", "brings its own; remove it"),
        ("frontend: {n_mels: 128}", "frontend.n_mels", "brings its own; remove it"),
        ("encoder: {num_blocks: 2}", "encoder.num_blocks", "brings its own; remove it"),
        ("encoder: {init: a.pth}", "encoder.init", "brings its own; remove it"),
        ("adaptor: {stack: 3}", "adaptor.stack", "brings its own; remove it"),
        ("llm: {hidden_size: 64}", "llm.hidden_size", "brings its own; remove it"),
        ("rl: {cache_frames: true}", "rl.cache_frames", "an adaptor that learns changes them"),
        ("llm: {prompt: transcribe}", "llm.prompt", "{audio}, where the audio goes, once (got 0)"),
    ],
)
def test_what_it_brings_cannot_be_set(
    text: str, key: str, message: str, problems: Callable
) -> None:
    (problem,) = problems(RECIPE + text)
    assert problem.startswith(f"c.yaml:3: {key}: ") and message in problem


def test_the_lm_of_another_is_refused_with_its_units(problems: Callable) -> None:
    found = problems(RECIPE + "llm: {pretrained: gpt2}\ntokenizer: {type: pretrained}")
    assert [line.split(": ")[1] for line in found] == ["tokenizer.type", "llm.pretrained"]


@pytest.mark.parametrize("family", ["audio_llm", "qwen3_asr"])
def test_its_family_is_not_named(family: str, problems: Callable) -> None:
    text = RECIPE.replace("{pretrained", f"{{family: {family}, pretrained")
    (problem,) = problems(text)
    assert problem.startswith("c.yaml:1: model.family: is ")


def test_ctc_is_refused_where_it_would_be_trained(problems: Callable, load: Callable) -> None:
    steps = RECIPE.replace("max_steps: 0", "max_steps: 5")
    (problem,) = problems(steps)
    assert "sft.ctc_weight" in problem and "has no CTC head; set 0" in problem
    load(steps.replace("sft: {", "sft: {ctc_weight: 0, "))


def test_its_prompt_and_type_of_numbers_may_be_set(load: Callable) -> None:
    config = load(RECIPE + 'llm: {prompt: "say\\n{audio}\\n", dtype: bfloat16}')
    assert config.llm.prompt == "say\n{audio}\n"


def test_a_new_model_is_not_taken_as_it_is(problems: Callable) -> None:
    (problem,) = problems("sft: {schedule: {max_steps: 0}}")
    assert "sft.schedule.max_steps: only a pretrained model can be taken as it is" in problem


def test_synthesis_has_no_such_key(problems: Callable) -> None:
    found = problems("task: tts\nmodel: {pretrained: x}")
    assert any("model.pretrained: is a key of task asr" in problem for problem in found)


def folder(name: str, **shape: object) -> str:
    Path(name).mkdir()
    (Path(name) / "config.json").write_text(json.dumps(shape))
    return os.path.abspath(name)


@pytest.mark.parametrize(
    ("key", "shape", "sentence"),
    [
        ("model.pretrained", {"model_type": "qwen3"}, "is a qwen3, and known recognisers are "),
        ("model.pretrained", {"model_type": "gemma3n", "audio_config": {}}, "is a gemma3n, and"),
        (
            "model.pretrained",
            {"model_type": "qwen3_asr", "thinker_config": {}},
            "is laid out for the package qwen-asr; take the one for transformers, named ...-hf",
        ),
        (
            "llm.pretrained",
            {"model_type": "phi4_multimodal", "audio_config": {}},
            "is a phi4_multimodal, which hears by itself; name it in model.pretrained instead",
        ),
        (
            "llm.pretrained",
            {"model_type": "gemma3n", "audio_config": {}},
            "is a gemma3n, which hears by itself, and not as audiorl knows; take a text LM",
        ),
    ],
)
def test_a_folder_is_looked_at_before_any_weights(
    key: str, shape: dict, sentence: str, write: Callable
) -> None:
    name = write("sft: {ctc_weight: 0}\n")
    keys = [f"{key}=hub"]
    if key == "llm.pretrained":
        keys.append("tokenizer.type=pretrained")
    path = folder("hub", **shape)
    with pytest.raises(UserError) as refusal:
        check_recipe(name, keys)
    assert f"{key}=hub: {path} {sentence}" in str(refusal.value)


def test_known_ones_and_those_of_a_hub_pass(write: Callable) -> None:
    name = write(RECIPE)
    folder("hub", model_type="qwen2_audio")
    check_recipe(name, ["model.pretrained=hub"])
    check_recipe(name)
    with pytest.raises(UserError, match="no such folder, and it is not a hub name"):
        check_recipe(name, ["model.pretrained=./gone"])
    assert load_config(name).model.family == ""


def test_an_lm_that_hears_is_not_loaded_in_silence(write: Callable) -> None:
    from audiorl.config.model import LLMConfig
    from audiorl.models.language_model import build_lm

    write("")
    folder("hub", model_type="phi4_multimodal")
    with pytest.raises(UserError, match="is a phi4_multimodal, which hears by itself; name it in"):
        build_lm(LLMConfig(pretrained="hub"), vocab_size=8, end_id=1)
