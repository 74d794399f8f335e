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


def recogniser(name: str, **shape: object) -> str:
    """The files of a recogniser that are looked at; its weights are none."""
    place = folder(name, **shape)
    for file in ("preprocessor_config.json", "tokenizer.json", "model.safetensors"):
        (Path(place) / file).write_text("{}")
    return place


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
    recogniser("hub", model_type="qwen2_audio")
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


def lose(*files: str) -> Callable[[Path], None]:
    return lambda place: [(place / file).unlink() for file in files]


def have(file: str, content: object) -> Callable[[Path], None]:
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda place: (place / file).write_text(text)


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda place: [change(place) for change in changes]


def shape(**values: object) -> Callable[[Path], None]:
    return have("config.json", values)


AS_IT_IS = lambda place: None  # noqa: E731
WHISPER, LORA = shape(model_type="whisper"), "lora: {rank: 8, "
INDEX = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
BUILT = "encoder: {pretrained: hub}\nllm: {pretrained: gpt2}\ntokenizer: {type: pretrained}\n"
OWN = "model: {pretrained: hub}\nsft: {schedule: {max_steps: 0}, ctc_weight: 0}\n"
HEARS = OWN + "rl: {train: [llm]}\n"  # a Whisper's
LANGUAGES = {"lang_to_id": {f"<|{name}|>": 1 for name in ("en", "zh", "de", "es")}}
OF_FOLDERS = [  # what is wrong with the folder `hub`, the recipe, what is said
    (shape(model_type="qwen3"), OWN, "hub is a qwen3, and known recognisers are "),
    (shape(model_type="moonshine"), OWN, "hub is a moonshine, and known recognisers are "),
    (shape(), OWN, "hub is a model without model_type, and known"),
    (lose("config.json"), OWN, "hub holds no config.json; give a folder with"),
    (have("config.json", "{"), OWN, "hub has a config.json that is broken; fetch"),
    (have("config.json", "[]"), OWN, "hub has a config.json that is broken; fetch"),
    (
        both(lose("config.json"), have("adapter_config.json", {})),
        OWN,
        "hub holds adapters alone; give the model merged with them",
    ),
    (lose("preprocessor_config.json"), OWN, "hub has no preprocessor_config.json, so is no"),
    (lose("tokenizer.json"), OWN, "hub has no tokenizer.json, or other tokenizer; fetch"),
    (lose("model.safetensors"), OWN, "hub has no weights as safetensors (others may run"),
    (
        both(lose("model.safetensors"), have("pytorch_model.bin", "")),
        OWN,
        "hub has no weights as safetensors (others may run",
    ),
    (have("model.safetensors", POINTER), OWN, "hub has a pointer of Git LFS for model.safe"),
    (
        have("model.safetensors.index.json", INDEX),
        OWN,
        "hub lacks 1 of 2 files of weights, model-2.safetensors first; fetch it",
    ),
    (have("model.safetensors.index.json", "{"), OWN, "hub has a model.safetensors.index.json that"),
    (AS_IT_IS, OWN.replace("hub", "hub/config.json"), "config.json is a file; give the folder"),
    (AS_IT_IS, OWN.replace("hub", "~/hub"), "no such folder, and it is not a hub name; fix"),
    (AS_IT_IS, OWN + "whisper: {window: utterance}", "window: this is no Whisper; remove it"),
    (AS_IT_IS, OWN + "rl: {train: [llm, embeddings]}", "the recogniser has no part embeddings; "),
    (WHISPER, OWN, "rl.train: the recogniser has no part adaptor; name some of llm, encoder"),
    (WHISPER, OWN + "rl: {train: [llm]}\nllm: {prompt: 'x{audio}'}", "a Whisper reads no prompt"),
    (
        WHISPER,
        OWN + "rl: {train: [llm], max_completion_length: 447}",
        "rl.max_completion_length: a Whisper of 448 positions, 2 or 4 for its start; set 444 or",
    ),
    (
        shape(model_type="whisper", max_target_positions=100),
        OWN + "rl: {train: [llm], max_completion_length: 98}",
        "decode.max_completion_length: a Whisper of 100 positions",
    ),
    (
        shape(model_type="qwen2_audio"),
        OWN + "decode: {window_seconds: 60}",
        "decode.window_seconds: the recogniser hears 30 s; set at most that",
    ),
    (
        shape(model_type="whisper", max_source_positions=100),
        HEARS + "decode: {window_seconds: 3}",
        "decode.window_seconds: the recogniser hears 2 s; set at most that",
    ),
    (
        both(WHISPER, have("generation_config.json", LANGUAGES)),
        HEARS + "whisper: {language: klingon}",
        "whisper.language: the Whisper knows no klingon; set en, zh, de, ...",
    ),
    (
        both(WHISPER, have("generation_config.json", {"is_multilingual": False})),
        HEARS + "whisper: {language: de}",
        "whisper.language: the Whisper knows no de; set en.",
    ),
    (
        both(WHISPER, have("generation_config.json", {"is_multilingual": False})),
        HEARS + "whisper: {task: translate}",
        "whisper.task: an English-only Whisper cannot; remove it, or take a multilingual one",
    ),
    (
        WHISPER,
        "llm: {pretrained: hub}\ntokenizer: {type: pretrained}",
        "hub is a whisper, which hears by",
    ),
    (
        shape(model_type="qwen3_asr", quantization_config={"quant_method": "gptq"}),
        OWN,
        "hub is quantised, and such weights do not learn; take the model as it was before",
    ),
    (AS_IT_IS, BUILT, "hub is a qwen3_asr, which writes by itself; name it in model.pretrained"),
    (
        both(shape(model_type="gpt2"), lose("preprocessor_config.json")),
        BUILT,
        "hub has no preprocessor_config.json, so is no model that hears",
    ),
]
OF_RECIPES = [  # beside the above: where no folder is needed
    (BUILT.replace("hub", "openai/whisper-small") + "frontend: {n_mels: 128}", "brings its own"),
    (BUILT.replace("hub}", "openai/whisper-small, num_blocks: 8}"), "brings its own; remove it"),
    (BUILT.replace("hub}", "openai/whisper-small, init: a.pth}"), "brings its own; remove it"),
    (RECIPE + LORA + "targets: [encoder]}", "encoder does not learn in RL, so its adapters"),
    (RECIPE + LORA + "targets: [q_proj]}", "q_proj does not learn in RL, so its adapters would"),
    (RECIPE + LORA + "targets: []}", "nothing would get adapters; name llm, say"),
    (RECIPE + LORA + "targets: [llm, llm.q_proj]}", "llm has all its linear layers; take out"),
    (RECIPE + "lora: {r: 8}", "lora.r: unknown key"),
    (RECIPE + "llm: {prompt: '<|audio_pad|>'}", "where the audio goes, once (got 0); fix it"),
    (RECIPE + "llm: {prompt: '{audio}{audio}'}", "where the audio goes, once (got 2); fix it"),
    (RECIPE + "llm: {dtype: float16}", "llm.dtype: expected one of float32, bfloat16 (got float16"),
    (RECIPE + "llm: {dtype: bf16}", "llm.dtype: expected one of float32, bfloat16 (got bf16"),
    (RECIPE + "rl: {train: [projector]}", "projector is not a part of the model; name some of"),
    (RECIPE + "gradient_checkpointing: full", "gradient_checkpointing: expected true or false"),
]


@pytest.mark.parametrize(("change", "text", "sentence"), OF_FOLDERS)
def test_mistakes_about_a_folder_are_a_sentence_before_weights_are_read(
    change: Callable[[Path], None], text: str, sentence: str, write: Callable
) -> None:
    name = write(text)
    change(Path(recogniser("hub", model_type="qwen3_asr")))
    with pytest.raises(UserError) as refusal:
        check_recipe(name)
    assert sentence in str(refusal.value) and len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("generation", [LANGUAGES, "{", "[]", None])
def test_a_language_that_is_known_or_not_told_passes(generation: object, write: Callable) -> None:
    name = write(HEARS + "whisper: {language: de, task: translate}\ndecode: {window_seconds: 30}")
    hub = Path(recogniser("hub", model_type="whisper"))
    if generation:
        have("generation_config.json", generation)(hub)
    check_recipe(name)


@pytest.mark.parametrize(("text", "sentence"), OF_RECIPES)
def test_mistakes_of_recipes_are_a_sentence(text: str, sentence: str, problems: Callable) -> None:
    assert any(sentence in problem for problem in problems(text))
