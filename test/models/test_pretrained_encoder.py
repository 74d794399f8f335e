"""Encoders of transformers before an adaptor and any LM, alone as in a batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pretrained_encoders import ENCODERS, save_encoder
from pretrained_llm import save_pretrained_llm
from tiny import RATE, SIZES, set_keys, sing, write_set
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoModel

from audiorl.config.lora import LoRAConfig
from audiorl.config.schema import Config
from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer.transcribe import transcribe
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.policy import load_policy
from audiorl.models.pretrained_encoder import PretrainedEncoder

TEXTS = ["ba", "do ki lu me no", "pa ri so"]


@pytest.fixture(scope="module", params=ENCODERS)
def folder(request, tmp_path_factory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("hub") / request.param, request.param)


def waves() -> list[Tensor]:
    return [torch.from_numpy(sing(text)) for text in TEXTS]


def model_of(folder: Path, tmp_path: Path, keys: dict | None = None) -> AudioLLM:
    """The usual build: a pretrained encoder, an adaptor, a pretrained LM."""
    save_pretrained_llm(tmp_path / "llm", "qwen3")
    sizes = {
        k: v for k, v in SIZES.items() if not k.startswith(("encoder", "frontend", "llm.", "tok"))
    }
    own = {
        "encoder.pretrained": str(folder),
        "llm.pretrained": str(tmp_path / "llm"),
        "tokenizer.type": "pretrained",
        "adaptor.stack": 4,
    }
    config = Config()
    set_keys(config, {**sizes, **own, **(keys or {})})
    torch.manual_seed(0)
    return AudioLLM.create(config, []).eval()


def test_frames_are_those_of_transformers(folder: Path) -> None:
    encoder = PretrainedEncoder.of(str(folder)).eval()
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    model = model.get_encoder() if folder.name == "whisper" else model
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    for wave in waves():
        inputs = extractor(wave.numpy(), sampling_rate=RATE, return_tensors="pt")
        with torch.no_grad():
            own = model(**inputs).last_hidden_state[0]
            (frames,) = encoder([wave])
        assert abs(len(frames) - len(wave) / RATE * 50) < 2
        torch.testing.assert_close(frames, own[: len(frames)])


def test_alone_as_in_a_batch(folder: Path) -> None:
    encoder = PretrainedEncoder.of(str(folder)).eval()
    everything = [*waves(), torch.zeros(5)]
    with torch.no_grad():
        for together, wave in zip(encoder(everything), everything, strict=True):
            torch.testing.assert_close(together, encoder([wave])[0], rtol=0, atol=1e-5)


def test_saved_with_the_model(folder: Path, tmp_path: Path) -> None:
    model = model_of(folder, tmp_path)
    model.save(tmp_path / "model")
    (tmp_path / "llm").rename(tmp_path / "gone")
    hidden = folder.rename(tmp_path / "hidden")
    try:
        loaded = load_policy(tmp_path / "model")
        with torch.no_grad():
            mine, its = (m.prefix(m.encode(waves())).embeds for m in (model, loaded))
    finally:
        hidden.rename(folder)
    assert torch.equal(mine, its) and loaded.sample_rate == RATE


def test_training_and_its_random_numbers(folder: Path, tmp_path: Path) -> None:
    """Of the masks and dropped layers of training, none but torch's seeded numbers decide."""
    model = model_of(folder, tmp_path, {"sft.ctc_weight": 0.3}).train()
    losses = []
    for _ in range(2):
        torch.manual_seed(4)
        loss = model.supervised_loss(model.encode(waves()), TEXTS, ctc_weight=0.3)
        losses.append(loss.total.item())
    assert losses[0] == losses[1]
    loss.total.backward()
    for name in ("encoder", "adaptor", "llm"):
        (part,) = model.part(name)
        assert any(p.grad is not None and p.grad.any() for p in part.parameters()), name


def test_audio_beyond_a_window_is_refused(tmp_path: Path) -> None:
    model = model_of(save_encoder(tmp_path / "hub", "whisper"), tmp_path)
    assert model.seconds == (0.0, 2.0)
    with pytest.raises(UserError, match=r"it hears 2 s, and audio of 2\.50 s would be cut"):
        model.encode([torch.zeros(round(2.5 * RATE))])


def test_a_test_set_is_decoded(folder: Path, tmp_path: Path) -> None:
    """Its audio may be long: an encoder of transformers keeps no scores of attention."""
    utterances = write_set(tmp_path / "test", TEXTS)
    model = model_of(folder, tmp_path)
    assert model.encoding_bytes(3600.0) == 0
    found = transcribe(PolicyEngine(model), utterances, max_length=3)
    assert found.keys() == {u.id for u in utterances}


def test_no_encoder_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"encoder\.pretrained: .* cannot be loaded"):
        PretrainedEncoder.of(str(tmp_path))


def test_what_transformers_freezes_does_not_learn(folder: Path, tmp_path: Path) -> None:
    model = model_of(folder, tmp_path)
    constant = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert constant == {"encoder.model.embed_positions.weight"} & set(model.state_dict())
    for _ in range(2):
        model.adapt(LoRAConfig(rank=2, targets=["llm"]), 0)
        model.train_only(["encoder", "adaptor", "llm"])
        encoder = {n for n, p in model.named_parameters() if n.startswith("encoder")}
        learning = {n for n, p in model.named_parameters() if p.requires_grad}
        assert encoder - learning == constant
