"""Pretrained recognisers leave with their card, for transformers alone."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file
from tiny_families import TEXTS, heard, load_family, logits
from tiny_whisper import save_whisper, tiny_whisper

from audiorl.bin import export as command
from audiorl.bin.export import export
from audiorl.bin.pack import keep_card
from audiorl.config.dump import dump_config
from audiorl.config.lora import LoRAConfig
from audiorl.config.schema import Config
from audiorl.errors import UserError
from audiorl.models.lora import is_adapter
from audiorl.models.policy import Policy
from audiorl.report.card import model_card
from audiorl.runtime.files import write_json

CARD = "---\nlicense: apache-2.0\nlanguage: [en]\n---\n# A model\n"
RUN = "#!/bin/sh\nexec /usr/bin/python -m audiorl.bin.train_rl --out /home/me/exp/grpo\n"


@pytest.fixture
def exp(tmp_path: Path) -> Callable[..., Path]:
    """Return an experiment of a policy, as training leaves it; with `lora`, of adapters alone."""

    def make(model: Policy, hub: Path, lora: bool) -> Path:
        (hub / "README.md").write_text(CARD)
        config = Config()
        config.model.pretrained, config.sft.schedule.max_steps = str(hub), 0
        folder = tmp_path / "exp" / "grpo"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(dump_config(config))
        (folder / "run.sh").write_text(RUN)
        if not lora:
            model.save(folder / "model")
            return folder
        model.save(tmp_path / "exp" / "sft" / "model")
        model.adapt(LoRAConfig(rank=4, alpha=8), seed=1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if is_adapter(name):
                    parameter.add_(0.05 * torch.randn_like(parameter))
        model.save_adapters(folder / "model", tmp_path / "exp" / "sft" / "model")
        return folder

    return make


def no_audiorl(out: Path) -> None:
    assert not (out / "config.yaml").exists() and not list(out.glob("adapter*"))
    assert "audiorl" not in (out / "config.json").read_text()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "lora"), [("qwen3_asr", True), ("granite_speech", True), ("qwen2_audio", False)]
)
def test_a_family_is_exported_to_its_own_layout(
    name: str, lora: bool, family_folder: Callable[[str], Path], exp: Callable, tmp_path: Path
) -> None:
    hub = Path(shutil.copytree(family_folder(name), tmp_path / name))
    model = load_family(hub)
    out = tmp_path / "out"
    folder = exp(model, hub, lora)
    export(folder, out)
    no_audiorl(out)
    assert (
        load_file(out / "model.safetensors").keys() == load_file(hub / "model.safetensors").keys()
    )
    found, own = logits(model, type(model.hf).from_pretrained(out).eval())
    torch.testing.assert_close(found, own, rtol=0, atol=1e-4)
    again = load_family(out)  # and audiorl goes on with it
    assert torch.equal(logits(again, again.hf)[1], own)
    if lora:
        assert (logits(load_family(hub), again.hf)[0] - own).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("lora", [False, True])
def test_whisper_is_exported_to_its_own_layout(lora: bool, exp: Callable, tmp_path: Path) -> None:
    hub = save_whisper(tmp_path / "tiny")
    model = tiny_whisper(hub)
    out = tmp_path / "out"
    export(exp(model, hub, lora), out)
    no_audiorl(out)
    hf = transformers.WhisperForConditionalGeneration.from_pretrained(out).eval()
    transformers.WhisperProcessor.from_pretrained(out)
    waves = heard()[:1]
    tokens, _ = model.responses(TEXTS[:1])
    states = model.llm.response_states(model.prefix(model.encode(waves)), tokens, False)
    features = model.extractor(waves[0].numpy(), sampling_rate=16000, return_tensors="pt")
    ids = torch.cat([torch.tensor([model._start]), tokens[:, :-1]], 1)
    own = hf(input_features=features.input_features, decoder_input_ids=ids).logits
    found = model.llm.logits(states[0])
    torch.testing.assert_close(found, own[0, -tokens.size(1) :], rtol=0, atol=1e-4)


def test_the_card(family_folder: Callable[[str], Path], exp: Callable, tmp_path: Path) -> None:
    hub = Path(shutil.copytree(family_folder("glm_asr"), tmp_path / "base"))
    folder = exp(load_family(hub), hub, lora=False)
    keep_card(folder)
    card = (folder / "model" / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "apache-2.0" and head["library_name"] == "transformers"
    assert "base_model" not in head  # a folder of this machine
    assert "base (glm_asr), trained by grpo (RL of " in card
    assert "|wer|1|sample|" in card and "|train|prompts of RL|" in card
    assert "It has not been scored." in card
    assert "python -m audiorl.bin.train_rl --out " in card and "/home/me" not in card
    (folder / "checkpoints").mkdir()
    for step, said in ((0, "none was better on the dev set"), (20, "the mean of steps 0, 20")):
        (folder / "checkpoints" / f"best_{step:08}.safetensors").touch()
        assert said in model_card(folder)
    (folder / "run.sh").write_text(RUN.replace("train_rl", "train_sft"))
    assert "base (glm_asr), not trained further, by audiorl" in model_card(folder)
    (folder / "run.sh").unlink()
    assert "base (glm_asr), trained by audiorl" in model_card(folder)  # nobody knows how
    write_json(
        folder / "decode_greedy" / "result.json",
        {
            "task": "asr",
            "scoring": {"normalizer": "english", "unit": "word"},
            "sets": {"test": {"speech": True, "metric": "WER", "wer": {"rate": 0.125}}},
            "against": {"system": "sft", "sets": {"test": {"difference": -0.025}}},
        },
    )
    (hub / "README.md").unlink()
    (hub / "LICENSE").write_text("MIT License\n\nCopyright")
    assert yaml.safe_load(model_card(folder).split("---\n")[1])["license"] == "mit"
    (hub / "LICENSE").unlink()
    keep_card(folder)
    card = (folder / "model" / "README.md").read_text()
    assert "|test|WER 12.50 %|-2.50|" in card and "points from sft" in card
    assert "states no licence, or is not here" in card and str(tmp_path) not in card
    (folder / "meta.json").write_text("{}")  # unpacked: it keeps the card that it came with
    (folder / "decode_greedy" / "result.json").unlink()
    keep_card(folder)
    assert (folder / "model" / "README.md").read_text() == card


def test_what_cannot_be_exported_is_a_sentence(
    exp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = save_whisper(tmp_path / "tiny")
    folder = exp(tiny_whisper(hub), hub, lora=False)
    with pytest.raises(UserError, match="is not an empty folder; name a new one"):
        export(folder, folder)
    settings = folder / "model" / "config.yaml"
    text = settings.read_text()
    settings.write_text(re.sub("family: whisper", "family: audio_llm", text))
    with pytest.raises(UserError, match=r"of the family audio_llm, for which transformers has no"):
        export(folder, tmp_path / "out")
    assert not list(tmp_path.glob(".out*")) and not (tmp_path / "out").exists()
    settings.write_text(text)
    monkeypatch.setattr(sys, "argv", ["export", str(folder), "--out", str(tmp_path / "out")])
    command.main()
    assert (tmp_path / "out" / "README.md").is_file()
