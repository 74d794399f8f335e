"""Checkpoints as they are published, and those that cannot be used."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_families import heard, load_family, logits
from tiny_whisper import save_whisper, tiny_whisper

from audiorl.config.model import LLMConfig
from audiorl.errors import UserError
from audiorl.models.families.pretrained import pretrained_family
from audiorl.models.language_model import build_lm
from audiorl.models.policy import load_policy
from audiorl.models.pretrained_encoder import PretrainedEncoder

WEIGHTS = "model.safetensors"
Folder = Callable[[str], Path]


@pytest.fixture
def copied(family_folder: Folder, tmp_path: Path) -> Folder:
    """Copy a family's folder, which the test may then change."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(family_folder(name), tmp_path / name))

    return copy


def change(folder: Path, file: str = "config.json", **values: Any) -> None:
    path = folder / file
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**found, **values}))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "subfolder", "targets", "whole"),
    [
        ("granite_speech", "", r".*language_model.*\.(q_proj|v_proj)", None),
        ("granite_speech", "", r".*language_model.*\.(q_proj|v_proj)", ["projector"]),
        ("phi4_multimodal", "speech-lora", r"model\.layers.*\.(qkv_proj|o_proj)", None),
    ],
)
def test_an_adapter_for_audio_is_merged(
    name: str,
    subfolder: str,
    targets: str,
    whole: list[str] | None,
    copied: Folder,
    tmp_path: Path,
) -> None:
    folder = copied(name)
    hf_class = type(load_family(folder).hf)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=targets, modules_to_save=whole)
    adapted = get_peft_model(hf_class.from_pretrained(folder), lora)
    for part, parameter in adapted.named_parameters():
        if "lora_B" in part or "modules_to_save" in part:
            parameter.normal_()
    adapted.save_pretrained(str(folder / subfolder))
    hf = hf_class.from_pretrained(folder).eval()
    if subfolder:
        hf.load_adapter(str(folder), adapter_kwargs={"subfolder": subfolder})
    model = load_family(folder)
    found, own = logits(model, hf)
    torch.testing.assert_close(found, own, rtol=0, atol=1e-4)
    hf.disable_adapters()
    assert (logits(model, hf)[1] - own).abs().max() > 1e-2
    model.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").glob("adapter*"))
    again = logits(model, hf_class.from_pretrained(tmp_path / "saved").eval())[1]
    torch.testing.assert_close(again, own, rtol=0, atol=1e-4)


def test_weights_under_an_adapter_are_not_random_ones(copied: Folder, tmp_path: Path) -> None:
    folder = copied("granite_speech")
    hf = transformers.GraniteSpeechForConditionalGeneration.from_pretrained(folder)
    hf.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    hf.save_pretrained(str(folder))  # names q_proj.base_layer.weight, which it does not read
    with pytest.raises(UserError, match=r"lacks 4 weights, .*q_proj\.weight first"):
        load_family(folder)


def test_a_whisper_with_adapters_beside_it_is_refused(tmp_path: Path) -> None:
    folder = save_whisper(tmp_path)
    hf = transformers.WhisperForConditionalGeneration.from_pretrained(folder)
    adapted = get_peft_model(hf, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    adapted.save_pretrained(str(folder))
    with pytest.raises(UserError, match="it comes with adapters; merge them"):
        tiny_whisper(folder)


def test_an_end_token_behind_ids_without_a_token_ends_a_response(copied: Folder) -> None:
    folder = copied("phi4_multimodal")
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    first = min(token["id"] for token in tokenizer["added_tokens"])
    for token in tokenizer["added_tokens"]:
        token["id"] += 5
        tokenizer["model"]["vocab"][token["content"]] = token["id"]
    path.write_text(json.dumps(tokenizer))
    for file in ("config.json", "generation_config.json"):
        change(folder, file, eos_token_id=[first + 5], pad_token_id=first + 5)
    audio = json.loads((folder / "config.json").read_text())["audio_config"]
    change(folder, audio_config={**audio, "audio_token_id": audio["audio_token_id"] + 5})
    model = load_family(folder)
    assert not model.forbidden[list(model.stop_ids)].any()
    assert model.forbidden[first : first + 5].all()
    assert model.forbidden[model.tokenizer.vocab_size :].all()


@torch.no_grad()
def test_a_voxtral_has_a_tekken_alone(copied: Folder) -> None:
    folder = copied("voxtral")
    special = transformers.AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(range(35))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    change(
        folder,
        "tekken.json",
        config={"pattern": r" ?\p{L}+|\s+|.", "default_vocab_size": 291},
        vocab=[
            {"rank": n, "token_bytes": base64.b64encode(bytes([n])).decode()} for n in range(256)
        ],
        special_tokens=[{"rank": n, "token_str": token} for n, token in enumerate(special)],
    )
    model = load_family(folder)
    around = [model.tokenizer.vocabulary()[token] for token in ("<s>", "[INST]", "[BEGIN_AUDIO]")]
    assert model._around[0] == around
    assert model.forbidden[:35].nonzero().flatten().tolist() == [0, 1, *range(3, 35)]
    alone = [model.encode([wave])[0] for wave in heard()]
    for one, both in zip(alone, model.encode(heard()), strict=True):
        torch.testing.assert_close(both, one, rtol=0, atol=1e-4)


def test_tokens_beyond_the_head_are_no_obstacle(copied: Folder) -> None:
    folder = copied("qwen2_audio")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<{place}>" for place in range(20)], special_tokens=True)
    tokenizer.save_pretrained(folder)
    model = load_family(folder)
    assert len(tokenizer) > model.llm.vocab_size == len(model.forbidden)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("qwen2_5_omni", transformers.Qwen2_5OmniConfig),
        ("qwen3_omni", transformers.Qwen3OmniMoeConfig),
    ],
)
def test_the_thinker_of_a_whole_omni_is_taken(name: str, whole: type, copied: Folder) -> None:
    folder = copied(name)
    expected = load_family(folder).encode(heard()[:1])[0]
    thinker = json.loads((folder / "config.json").read_text())
    whole(thinker_config=thinker, enable_audio_output=False).save_pretrained(folder)
    tensors = {f"thinker.{n}": tensor for n, tensor in load_file(folder / WEIGHTS).items()}
    save_file({**tensors, "talker.x": torch.ones(2)}, folder / WEIGHTS, {"format": "pt"})
    change(folder, "preprocessor_config.json", image_processor_type="Qwen2VLImageProcessor")
    model = load_family(folder)
    assert torch.equal(model.encode(heard()[:1])[0], expected)
    model.save(folder / "saved")
    kept = json.loads((folder / "saved" / "preprocessor_config.json").read_text())
    assert kept["image_processor_type"] == "Qwen2VLImageProcessor"


def test_granite_divides_its_logits(family_folder: Folder) -> None:
    """Else its samples are all alike, and RL has nothing to compare."""
    model = load_family(family_folder("granite_speech"))
    assert model.llm.scale == model.hf.config.text_config.logits_scaling == 8


def test_qwen3_asr_names_a_language_and_the_transcript_is_the_rest(family_folder: Folder) -> None:
    model = load_family(family_folder("qwen3_asr"), "<|im_start|>{audio}\n")
    ids = model.tokenizer.encode("language English<asr_text>ba do")
    assert not model.forbidden[ids].any()
    assert model.tokenizer.decode([*ids, model.stop_ids[1]]) == "ba do"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('The spoken content of the audio is "ba do".', "ba do"),
        ("The transcription of the audio is 'ba do'", "ba do"),
        ("ba do.", "ba do."),
    ],
)
def test_flamingos_quotes_are_taken_off(text: str, said: str, family_folder: Folder) -> None:
    model = load_family(family_folder("audio_flamingo3"))
    assert model.tokenizer.decode(model.tokenizer.encode(text)) == said


def test_a_recipes_prompt_is_read_to_its_last_line_feed(family_folder: Folder) -> None:
    model = load_family(family_folder("qwen2_audio"), " ba\n{audio}do\n")
    before, after = (model.processor.tokenizer.decode(ids) for ids in model._around)
    assert (before, after) == (" ba\n<|audio_bos|>", "<|audio_eos|>do\n")


def test_the_prompt_of_qwen2_audio_is_its_chat(family_folder: Folder) -> None:
    model = load_family(family_folder("qwen2_audio"))
    request = "Detect the language and recognize the speech: <|en|>"
    audio = {"type": "audio", "audio_url": "x"}
    content = [audio, {"type": "text", "text": request}]
    chat = model.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    assert model._text == chat


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_family(folder, **options)
    return str(caught.value)


def test_weights_that_are_missing_are_not_random_ones(copied: Folder) -> None:
    folder = copied("qwen3_asr")
    tensors = load_file(folder / WEIGHTS)
    lost = next(name for name in tensors if "proj" in name)
    del tensors[lost]
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    assert "cannot be loaded (it lacks 1 weights, " in refusal(folder)


def test_a_cut_file_and_a_missing_processor_are_a_sentence(copied: Folder) -> None:
    folder = copied("qwen2_audio")
    (folder / "tokenizer.json").rename(folder / "gone")
    assert f"model.pretrained: {folder} cannot be loaded (" in refusal(folder)
    (folder / "gone").rename(folder / "tokenizer.json")
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    assert f"model.pretrained: {folder} cannot be loaded (" in refusal(folder)


def test_a_saved_model_that_is_cut_is_not_whole(copied: Folder, tmp_path: Path) -> None:
    load_family(copied("qwen3_asr")).save(tmp_path / "model")
    content = (tmp_path / "model" / WEIGHTS).read_bytes()
    (tmp_path / "model" / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="the model is not whole"):
        load_policy(tmp_path / "model")


def test_a_tokenizer_of_another_model_is_refused(family_folder: Folder, copied: Folder) -> None:
    folder = copied("qwen3_asr")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(family_folder("glm_asr") / file, folder / file)
    assert "tokenizer" in refusal(folder) or "cannot be loaded" in refusal(folder)


def test_bins_are_not_unpickled(copied: Folder) -> None:
    folder = copied("qwen3_asr")
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    assert "cannot be loaded" in refusal(folder)


def test_odd_defaults_of_generation_are_no_obstacle_to_saving(copied: Folder) -> None:
    folder = copied("qwen2_audio")
    change(folder, "generation_config.json", do_sample=False, num_beams=1, temperature=0.5)
    model = load_family(folder)
    model.save(folder / "saved")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model_type": "wav2vec2"}, "is a wav2vec2, and known recognisers are audioflamingo3, "),
        ({"thinker_config": {}}, "is laid out for the package qwen-asr; take the one for"),
    ],
)
def test_other_models_are_refused(values: dict, sentence: str, copied: Folder) -> None:
    folder = copied("qwen3_asr")
    change(folder, **values)
    with pytest.raises(UserError, match=sentence):
        pretrained_family(str(folder))
    assert f"{folder} {sentence}" in refusal(folder)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    assert "has no config.json that can be read" in refusal(tmp_path)


def test_code_of_a_checkpoint_is_not_run(copied: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a user asked whether it may, which a job in the night could not answer."""
    monkeypatch.setattr("builtins.input", lambda prompt: "y")
    folder = copied("qwen3_asr")
    names = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoProcessor": "evil.P"}
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    change(folder, model_type="evil", auto_map=names)
    with pytest.raises(UserError, match=r"llm\.pretrained: .* cannot be loaded"):
        build_lm(LLMConfig(pretrained=str(folder)), vocab_size=8, end_id=1)
    assert "is a evil, and known recognisers are" in refusal(folder)
    change(folder, model_type="qwen3_asr")
    change(folder, "processor_config.json", auto_map=names, processor_class="Evil")
    change(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]})
    with contextlib.suppress(UserError):
        load_family(folder)
    assert not (folder / "ran").exists()


def encoder(folder: Path) -> object:
    return PretrainedEncoder.of(str(folder))


def llm(folder: Path) -> object:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    (folder / "config.json").write_text(json.dumps(text))
    return build_lm(LLMConfig(pretrained=str(folder)), vocab_size=8, end_id=1)


def text_config(**values: object) -> Callable[[Path], None]:
    def change_it(folder: Path) -> None:
        text = json.loads((folder / "config.json").read_text())["text_config"]
        change(folder, text_config={**text, **values})

    return change_it


SPOILT = [  # what reads the folder, what is wrong with it, what is said
    (load_family, text_config(hidden_size=64), "cannot be loaded ("),
    (load_family, text_config(hidden_size="x"), "Field 'hidden_size' expected int, got str"),
    (load_family, text_config(num_hidden_layers=3), "`num_hidden_layers` (3) must be equal to"),
    (load_family, lambda f: change(f, audio_token_id=3), "cannot read its prompt with audio"),
    (load_family, lambda f: (f / "tokenizer_config.json").write_text("[]"), "cannot be loaded ("),
    (load_family, lambda f: (f / "processor_config.json").write_text("{"), "cannot be loaded ("),
    (llm, lambda f: None, "llm.pretrained: {} cannot be loaded (it lacks "),
    (llm, text_config(hidden_size="x"), "llm.pretrained: {} cannot be loaded (TypeError: Field"),
    (encoder, lambda f: None, "encoder.pretrained: {} cannot be loaded ("),
]


@pytest.mark.parametrize(("reader", "spoil", "sentence"), SPOILT)
def test_spoilt_folders_are_a_sentence(
    reader: Callable, spoil: Callable, sentence: str, copied: Folder
) -> None:
    folder = copied("qwen3_asr")
    spoil(folder)
    with pytest.raises(UserError) as refusal:
        model = reader(folder)
        model.encode(heard()[:1])
    assert sentence.format(folder) in str(refusal.value)


@pytest.mark.parametrize("reader", [encoder, tiny_whisper])
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"encoder_layers": 4}, "cannot be loaded (it lacks "),  # not random ones
        ({"d_model": 64}, "cannot be loaded ("),
        ({"d_model": "x"}, "Field 'd_model' expected int, got str"),
    ],
)
def test_a_spoilt_whisper_is_a_sentence(
    reader: Callable, values: dict, sentence: str, tmp_path: Path
) -> None:
    folder = save_whisper(tmp_path / "tiny")
    change(folder, **values)
    with pytest.raises(UserError) as refusal:
        reader(folder)
    assert sentence in str(refusal.value)
