"""A saved model is the model; one that is broken says so in a sentence."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest
import torch
from pretrained_llm import save_pretrained_llm
from safetensors import safe_open
from tiny import sing, tiny_config, tiny_model

from audiorl.errors import UserError
from audiorl.models import load_weights, save_weights
from audiorl.models.audio_llm import AudioLLM, AudioLLMSettings
from audiorl.models.policy import load_policy
from audiorl.models.tokenizer import PretrainedTokenizer


def outputs(model: AudioLLM) -> torch.Tensor:
    """Hidden states that predict two transcripts of two songs."""
    waves = [torch.from_numpy(sing(text)) for text in ("ba do", "ki lu me no")]
    tokens, _ = model.responses(["ba do", "ki"])
    with torch.no_grad():
        hidden = model.llm.response_states(model.prefix(model.encode(waves)), tokens, share=False)
        return model.llm.lm_head(hidden)


def pretrained_model(tmp_path: Path, architecture: str) -> AudioLLM:
    save_pretrained_llm(tmp_path, architecture)
    keys = {"tokenizer.type": "pretrained", "llm.pretrained": str(tmp_path)}
    return AudioLLM(
        AudioLLMSettings.of(tiny_config(keys), "audio_llm"), PretrainedTokenizer(str(tmp_path))
    ).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tiny_model().save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2", "llama"])
def test_round_trip(architecture: str, tmp_path: Path) -> None:
    model = tiny_model({"llm.architecture": architecture, "llm.dropout": 0.1})
    model.save(tmp_path)
    loaded = load_policy(tmp_path)
    assert not loaded.training
    assert torch.equal(outputs(loaded), outputs(model))
    assert loaded.settings.llm == model.recipe.llm
    tied = loaded.llm.lm_head.weight is loaded.llm.model.get_input_embeddings().weight
    assert tied


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_round_trip_of_a_pretrained_llm(architecture: str, tmp_path: Path) -> None:
    """Tied (qwen2) and untied (llama) heads; nothing of the original folder is needed later."""
    original = tmp_path / "hub"
    model = pretrained_model(original, architecture)
    model.save(tmp_path / "model")
    expected = outputs(model)
    original.rename(tmp_path / "gone")
    loaded = load_policy(tmp_path / "model")
    assert torch.equal(outputs(loaded), expected)
    assert loaded.tokenizer.encode("ba do") == model.tokenizer.encode("ba do")


def test_pretrained_weights_are_the_start(tmp_path: Path) -> None:
    model = pretrained_model(tmp_path, "qwen2")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as stored:
        weight = stored.get_tensor("model.embed_tokens.weight")
    assert torch.equal(model.llm.model.get_input_embeddings().weight, weight)


def test_rows_that_pad_a_pretrained_table_are_forbidden(tmp_path: Path) -> None:
    model = pretrained_model(tmp_path, "qwen2")
    size = model.tokenizer.vocab_size
    assert len(model.forbidden) == size + 9
    assert model.forbidden[size:].all()
    assert int(model.forbidden[:size].sum()) == len(model.tokenizer.forbidden_ids)


def test_a_model_trained_on_loads_as_that(tmp_path: Path) -> None:
    """What differs from the new model: running statistics of normalisations too."""
    model = tiny_model().train()
    waves = [torch.from_numpy(sing(text)) for text in ("ba do", "ki lu")]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(2):
        loss = model.supervised_loss(model.encode(waves), ["ba do", "ki lu"], ctc_weight=0.3)
        loss.total.backward()
        optimizer.step()
    before = outputs(tiny_model())
    model.eval().save(tmp_path)
    assert torch.equal(outputs(load_policy(tmp_path)), outputs(model))
    assert not torch.equal(outputs(model), before)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_weights_cut_short(saved: Path, share: float) -> None:
    weights = saved / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be loaded .*; restore") as e:
        load_policy(saved)
    assert "\n" not in str(e.value)


def test_weights_of_another_model(saved: Path, tmp_path: Path) -> None:
    other = tiny_model({"llm.hidden_size": 64})
    save_weights(other, saved / "model.safetensors")
    with pytest.raises(UserError, match="size mismatch for llm"):
        load_policy(saved)
    save_weights(tiny_model({"llm.num_hidden_layers": 1}), saved / "model.safetensors")
    with pytest.raises(UserError, match=r"\d+ tensors differ from the model's, llm.*1.*first"):
        load_policy(saved)


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no model; run stage 3"):
        load_policy(tmp_path)
    with pytest.raises(UserError, match="there is no model"):
        load_weights(tiny_model(), tmp_path / "none.safetensors")


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.model", "config.json"])
def test_a_part_is_missing(saved: Path, file: str) -> None:
    (saved / file).unlink()
    with pytest.raises(UserError, match=str(saved)) as raised:
        load_policy(saved)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("file", ["tokenizer.model", "config.json"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_part_is_cut_short(saved: Path, file: str, share: float) -> None:
    content = (saved / file).read_bytes()
    (saved / file).write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=str(saved)) as raised:
        load_policy(saved)
    assert "\n" not in str(raised.value)


def test_an_llm_that_cannot_be_loaded(tmp_path: Path) -> None:
    pretrained_model(tmp_path, "llama")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    keys = {"tokenizer.type": "pretrained", "llm.pretrained": str(tmp_path)}
    with pytest.raises(UserError, match=r"llm\.pretrained: .* cannot be loaded") as raised:
        AudioLLM(
            AudioLLMSettings.of(tiny_config(keys), "audio_llm"), PretrainedTokenizer(str(tmp_path))
        )
    assert "\n" not in str(raised.value)


def test_a_full_disk_leaves_the_old_weights(saved: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk])
    if mounted.returncode != 0:
        pytest.skip("no tmpfs can be mounted here: mounting needs root")
    try:
        weights = disk / "model.safetensors"
        save_weights(tiny_model(), weights)
        before = weights.read_bytes()
        (disk / "ballast").write_bytes(bytes(250_000 - len(before)))
        with pytest.raises(UserError, match=r"model\.safetensors: cannot be written") as raised:
            for seed in range(3):
                save_weights(tiny_model({"llm.hidden_size": 64}, seed), weights)
        assert "\n" not in str(raised.value)
        assert weights.read_bytes() == before
        assert sorted(p.name for p in disk.iterdir()) == ["ballast", "model.safetensors"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_refused_write_leaves_the_old_weights(saved: Path, monkeypatch) -> None:
    before = (saved / "model.safetensors").read_bytes()

    def refuse(tensors: dict, path: str, metadata: dict) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", refuse)
    with pytest.raises(UserError, match="No space left on device"):
        save_weights(tiny_model(seed=1), saved / "model.safetensors")
    assert (saved / "model.safetensors").read_bytes() == before
    assert not list(saved.glob(".*"))
