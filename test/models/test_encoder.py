"""An utterance's frames are its own: they do not depend on what it is batched with."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from tiny import RATE, WORDS, sing, tiny_config, tiny_model

from audiorl.config.model import FrontendConfig
from audiorl.errors import UserError
from audiorl.models.encoder import ENCODERS, Encoder
from audiorl.models.frontend import Frontend

ENCODER_TYPES = list(ENCODERS)
INPUT_LAYERS = ["conv2d", "conv2d6", "conv2d8"]


def waves() -> list[torch.Tensor]:
    """From 5 samples to 1.2 s; some just above and below the length of one encoder frame."""
    song = torch.from_numpy(sing(" ".join(WORDS[:8])))
    return [song[:n] for n in (19_200, 5, 11_333, 1_500, 2_000, 4_999)]


@pytest.mark.parametrize(("kind", "layer"), list(itertools.product(ENCODER_TYPES, INPUT_LAYERS)))
def test_frames_do_not_depend_on_the_batch(kind: str, layer: str) -> None:
    keys = {"encoder.type": kind, "encoder.input_layer": layer}
    model = tiny_model({**keys, "encoder.num_blocks": 2})
    with torch.no_grad():
        together = model.encode(waves())
        alone = [model.encode([wave])[0] for wave in waves()]
        pair = model.encode([waves()[1], waves()[4]])
    for i, (row, single) in enumerate(zip(together, alone, strict=True)):
        assert row.shape == single.shape
        assert len(row) >= 1
        torch.testing.assert_close(row, single, rtol=0, atol=1e-5, msg=lambda m, i=i: f"{i}: {m}")
    torch.testing.assert_close(pair[0], alone[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(pair[1], alone[4], rtol=0, atol=1e-5)


def test_the_hooks_are_needed() -> None:
    """Without them padding leaks, by much more than the tolerance of the test above."""
    model = tiny_model({"encoder.num_blocks": 2})
    for module in model.encoder.espnet.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    with torch.no_grad():
        together = model.encode(waves())
        alone = [model.encode([wave])[0] for wave in waves()]
    assert max(float((a - b).abs().max()) for a, b in zip(together, alone, strict=True)) > 1e-3


def test_number_of_frames_is_that_of_the_audio() -> None:
    """4x subsampling of 10 ms frames: 25 a second, from whole frames only."""
    model = tiny_model()
    samples = torch.tensor([RATE, 2 * RATE, RATE // 2])
    features = model.frontend.num_frames(samples)
    assert features.tolist() == [97, 197, 47]  # (S - 512) // 160 + 1
    assert model.encoder.num_frames(features).tolist() == [23, 48, 11]
    frames = model.encode([torch.zeros(int(n)) for n in samples])
    assert [len(row) for row in frames] == [23, 48, 11]


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100])
def test_log_mel_is_torchaudios(rate: int) -> None:
    wave = torch.from_numpy(sing(" ".join(WORDS)))
    frontend = Frontend(FrontendConfig(n_mels=20), rate).eval()
    reference = torchaudio.transforms.MelSpectrogram(
        rate,
        n_fft=frontend.fft_size,
        win_length=int(rate * 0.025),
        hop_length=rate // 100,
        n_mels=20,
        center=False,
    )
    mel = reference(wave).clamp(min=1e-10).log().T
    features, frames = frontend(wave[None], torch.tensor([len(wave)]))
    assert frames.tolist() == [len(mel)]
    torch.testing.assert_close(features[0], (mel - mel.mean(0)) / 4, rtol=0, atol=1e-5)


def test_features_do_not_depend_on_loudness() -> None:
    """Mean normalisation removes a constant gain (where the floor of the logarithm is far)."""
    wave = torch.from_numpy(sing("ba do ki"))[None]
    frontend = Frontend(FrontendConfig(n_mels=20), RATE).eval()
    samples = torch.tensor([wave.size(1)])
    loud, quiet = frontend(wave, samples)[0], frontend(0.3 * wave, samples)[0]
    torch.testing.assert_close(loud, quiet, rtol=0, atol=1e-4)


def test_specaug_masks_in_training_only() -> None:
    wave = torch.from_numpy(sing(" ".join(WORDS)))[None]
    samples = torch.tensor([wave.size(1)])
    frontend = Frontend(FrontendConfig(n_mels=20, freq_mask_width=8), RATE)
    plain = frontend.eval()(wave, samples)[0]
    assert torch.equal(frontend(wave, samples)[0], plain)
    torch.manual_seed(2)
    masked = frontend.train()(wave, samples)[0]
    changed = masked != plain
    assert 0 < changed.float().mean() < 0.9
    assert (masked[changed] == 0).all()
    torch.manual_seed(2)
    assert torch.equal(frontend(wave, samples)[0], masked)  # from torch's generator: resumable


@pytest.mark.parametrize(
    "keys", [{"freq_mask_width": 0}, {"time_masks": 0}, {"freq_masks": 0, "time_masks": 0}]
)
def test_specaug_can_be_switched_off(keys: dict) -> None:
    off = {"freq_mask_width": 0, "time_masks": 0, **keys}
    wave, samples = torch.rand(1, 8000), torch.tensor([8000])
    for settings in (keys, off):
        frontend = Frontend(FrontendConfig(n_mels=20, **settings), RATE).train()
        features, _ = frontend(wave, samples)
        assert features.isfinite().all()
    assert torch.equal(features, frontend.eval()(wave, samples)[0])


@pytest.fixture(scope="module", params=ENCODER_TYPES)
def espnet_checkpoint(request, tmp_path_factory) -> tuple[str, Path, dict]:
    """A checkpoint as ESPnet's ASR training writes it: the state of an ESPnetASRModel."""
    from espnet2.asr.ctc import CTC
    from espnet2.asr.espnet_model import ESPnetASRModel

    torch.manual_seed(7)
    encoder = Encoder(tiny_config({"encoder.type": request.param}).encoder, 16).espnet
    model = ESPnetASRModel(
        vocab_size=5,
        token_list=["<blank>", "<unk>", "a", "b", "<sos/eos>"],
        frontend=None,
        specaug=None,
        normalize=None,
        preencoder=None,
        encoder=encoder,
        postencoder=None,
        decoder=None,
        ctc=CTC(odim=5, encoder_output_size=16),
        joint_network=None,
        ctc_weight=1.0,
    )
    path = tmp_path_factory.mktemp(request.param) / "valid.acc.ave.pth"
    torch.save(model.state_dict(), path)
    return request.param, path, encoder.state_dict()


def test_an_espnet_encoder_is_the_start(espnet_checkpoint) -> None:
    kind, path, weights = espnet_checkpoint
    keys = {"encoder.type": kind, "encoder.init": str(path)}
    loaded = tiny_model(keys).encoder.espnet.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_an_espnet_training_checkpoint_will_do(espnet_checkpoint, tmp_path) -> None:
    """ESPnet's own checkpoint.pth holds the model beside optimizer and reporter."""
    kind, path, weights = espnet_checkpoint
    whole = tmp_path / "checkpoint.pth"
    torch.save({"model": torch.load(path), "reporter": {"epoch": 3}}, whole)
    loaded = tiny_model({"encoder.type": kind, "encoder.init": str(whole)}).encoder.espnet
    assert torch.equal(loaded.state_dict()["after_norm.weight"], weights["after_norm.weight"])


def test_an_encoder_of_other_sizes_is_refused(espnet_checkpoint) -> None:
    kind, path, _ = espnet_checkpoint
    for keys in ({"encoder.num_blocks": 2}, {"encoder.output_size": 32}, {"frontend.n_mels": 24}):
        with pytest.raises(UserError, match=r"encoder\.init: .*pth does not fit") as raised:
            tiny_model({"encoder.type": kind, "encoder.init": str(path), **keys})
        assert "\n" not in str(raised.value)


def test_encoder_init_that_is_no_checkpoint_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        tiny_model({"encoder.init": str(tmp_path / "none.pth")})
    broken = tmp_path / "broken.pth"
    torch.save(tiny_model().state_dict(), tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for content in (b"", b"not a checkpoint", whole[: len(whole) // 2]):
        broken.write_bytes(content)
        with pytest.raises(UserError, match=r"encoder\.init: .*broken\.pth") as raised:
            tiny_model({"encoder.init": str(broken)})
        assert "\n" not in str(raised.value)


def test_a_checkpoint_with_code_is_not_run(tmp_path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"encoder.x": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(UserError, match=r"encoder\.init"):
        tiny_model({"encoder.init": str(tmp_path / "bomb.pth")})
    assert not (tmp_path / "exploded").exists()


def test_silence_is_finite() -> None:
    frames = tiny_model().encode([torch.zeros(8000), torch.from_numpy(np.zeros(1, np.float32))])
    assert all(row.isfinite().all() for row in frames)
