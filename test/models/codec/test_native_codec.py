"""The native codec: recordings and tokens line up, alone and in any batch, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import sing, tiny_config
from tiny_codecs import SIZES, fresh_codec, native_codec, waves

from audiorl.errors import UserError
from audiorl.models.codec import CodecSettings, codec_info, load_codec, new_codec
from audiorl.models.codec.base import in_voices
from audiorl.models.codec.native import BEFORE, STRIDE


def test_tokens_do_not_depend_on_the_batch() -> None:
    codec = native_codec()
    together = codec.encode(waves())
    for wave, tokens in zip(waves(), together, strict=True):
        assert torch.equal(tokens, codec.encode([wave])[0])
        assert tokens.dtype == torch.long and len(tokens) >= 1
        assert ((tokens >= 0) & (tokens < codec.codebook_size)).all()
    assert len(set(together[0].tolist())) > 3


def test_there_are_25_tokens_a_second() -> None:
    """One for 4 frames begun; and as many again for what is made of them."""
    codec = native_codec()
    assert codec.token_rate == 25
    frames = codec.frontend.num_frames(torch.tensor([len(wave) for wave in waves()])).tolist()
    tokens = codec.encode(waves())
    assert [len(row) for row in tokens] == [-(-n // STRIDE) for n in frames]
    again = codec.decode(tokens, in_voices(codec.speaker(waves())))
    assert [len(row) for row in codec.encode(again)] == [len(row) for row in tokens]
    for wave, other in zip(waves(), again, strict=True):
        hop, window = codec.frontend.hop, codec.frontend.fft_size  # what is shorter is padded
        assert -hop < len(other) - max(len(wave), window) <= (STRIDE - 1) * hop


def test_a_token_hears_its_frames_and_a_few_more(monkeypatch) -> None:
    """Token i is made of frames 4 i - 2 to 4 i + 4 and of nothing from beyond the recording."""
    codec = native_codec()
    seen = {}
    encoder = codec.encoder.forward
    monkeypatch.setattr(
        codec.encoder, "forward", lambda f, n: seen.update(f=f, n=n) or encoder(f, n)
    )
    tokens = codec.encode(waves())
    features, frames = codec.frontend(*codec.frontend.pad(waves(), 1, codec.device))
    assert seen["n"].tolist() == [STRIDE * len(row) + 3 for row in tokens]
    for read, row, n in zip(seen["f"], features, frames.tolist(), strict=True):
        assert torch.equal(read[BEFORE : BEFORE + n], row[:n])
        assert not read[:BEFORE].any() and not read[BEFORE + n :].any()


def test_waves_do_not_depend_on_the_batch() -> None:
    codec = native_codec(seed=1)
    tokens, speakers = codec.encode(waves()), codec.speaker(waves())
    together = codec.decode(tokens, in_voices(speakers))
    for row, speaker, wave in zip(tokens, speakers, together, strict=True):
        alone = codec.decode([row], in_voices(speaker[None]))[0]
        assert len(alone) == len(wave)
        # Griffin-Lim makes much of rounding, here and there.
        assert (wave - alone).abs().mean() < 1e-2 * wave.abs().mean()
        assert wave.isfinite().all() and wave.abs().max() <= 1


def test_speakers_do_not_depend_on_the_batch() -> None:
    codec = native_codec()
    together = codec.speaker(waves())
    assert together.shape == (5, codec.speaker_size)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(5))
    alone = torch.cat([codec.speaker([wave]) for wave in waves()])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_the_length_of_a_speaker_vector_means_nothing() -> None:
    codec = native_codec()
    tokens, speakers = codec.encode(waves()[:2]), codec.speaker(waves()[2:4])
    expected = codec.decode(tokens, in_voices(speakers))
    shorter = torch.tensor([[0.5], [0.25]])  # powers of 2 leave no rounding behind
    assert all(map(torch.equal, codec.decode(tokens, in_voices(shorter * speakers)), expected))


def test_no_tokens_make_no_sound() -> None:
    codec = native_codec()
    some, none = codec.encode(waves())[0], torch.zeros(0, dtype=torch.long)
    speakers = codec.speaker(waves()[:3])
    first, second, third = codec.decode([none, some, none], in_voices(speakers))
    assert len(first) == len(third) == 0
    assert torch.equal(second, codec.decode([some], in_voices(speakers[1:2]))[0])
    assert [len(w) for w in codec.decode([none], in_voices(speakers[:1]))] == [0]


def test_each_training_has_weights_of_its_own() -> None:
    """CTC's gradient goes through the codes to the encoder; the flow's reaches no token."""
    codec = native_codec().train()
    sound = {id(p) for part in (codec.flow, codec.voice) for p in part.parameters()}
    songs = [torch.from_numpy(sing(text)) for text in ("ba do ki", "lu me no pa")]

    def learning() -> set[int]:
        return {id(p) for p in codec.parameters() if p.grad is not None}

    sum(codec.tokens_loss(songs, ["ba do ki", "lu me no pa"])).backward()
    assert learning() == {id(p) for p in codec.parameters()} - sound
    codec.zero_grad()
    sum(codec.flow_loss(songs, codec.encode(songs), songs[::-1])).backward()
    assert learning() == sound


def test_the_losses_of_tokens_are_means() -> None:
    """CTC's over characters, the echo's over frames: of a batch, those of its utterances."""
    codec = native_codec()
    texts = ["ba do ki lu", "me no"]
    songs = [torch.from_numpy(sing(text)) for text in texts]
    frames = [len(codec._mel([song])[0][0]) for song in songs]
    both = codec.tokens_loss(songs, texts)
    parts = [codec.tokens_loss([song], [text]) for song, text in zip(songs, texts, strict=True)]
    for loss, alone, counts in zip(
        both, zip(*parts, strict=True), ([len(text) for text in texts], frames), strict=True
    ):
        mean = sum(p * n for p, n in zip(alone, counts, strict=True)) / sum(counts)
        torch.testing.assert_close(loss, mean)


def test_the_echo_is_compared_frame_by_frame() -> None:
    """Frame 4 t + i of a recording with the i-th quarter of what token t says."""
    codec = native_codec()
    song = torch.from_numpy(sing("ba do ki"))
    with torch.no_grad():
        codec.echo.weight.zero_()
        codec.echo.bias.copy_(torch.arange(4).repeat_interleave(16))
        _, echo = codec.tokens_loss([song], ["ba do ki"])
        (mel,), _ = codec._mel([song])
    expected = torch.arange(len(mel))[:, None] % 4
    torch.testing.assert_close(echo, ((mel - expected) ** 2).mean())


def test_the_mel_of_train_data_is_normal() -> None:
    codec = native_codec()
    songs = [torch.from_numpy(sing(text, i)) for i, text in enumerate(["ba do ki", "lu me no pa"])]
    codec.fit_mel(songs)
    mel, frames = codec._mel(songs)
    real = torch.cat([row[:n] for row, n in zip(mel, frames.tolist(), strict=True)])
    torch.testing.assert_close(real.mean(0), torch.zeros(16), rtol=0, atol=1e-4)
    torch.testing.assert_close(real.std(0), torch.ones(16), rtol=0, atol=1e-4)


def test_the_fingerprint_is_that_of_the_tokens() -> None:
    codec = native_codec()
    before = codec_info(codec)
    assert (
        before
        == codec_info(fresh_codec())
        == {
            "kind": "native",
            "fingerprint": codec.fingerprint(),
            "codebook_size": 27,
            "token_rate": 25.0,
        }
    )
    with torch.no_grad():
        codec.flow.output.weight.add_(1)
        codec.head.weight.add_(1)
    assert codec_info(codec) == before
    with torch.no_grad():
        codec.quantiser.projection.bias[0] += 1e-3
    assert codec_info(codec)["fingerprint"] != before["fingerprint"]
    assert fresh_codec(seed=1).fingerprint() != before["fingerprint"]


def test_round_trip(tmp_path: Path) -> None:
    codec = native_codec()
    codec.save(tmp_path)
    loaded = load_codec(tmp_path)
    assert not loaded.training
    assert codec_info(loaded) == codec_info(codec)
    tokens = codec.encode(waves())
    assert all(map(torch.equal, loaded.encode(waves()), tokens))
    speakers = codec.speaker(waves())
    assert torch.equal(loaded.speaker(waves()), speakers)
    assert all(
        map(
            torch.equal,
            loaded.decode(tokens, in_voices(speakers)),
            codec.decode(tokens, in_voices(speakers)),
        )
    )
    assert loaded.transcribe(waves()) == codec.transcribe(waves())


@pytest.mark.parametrize("file", ["config.yaml", "characters.json", "model.safetensors"])
def test_a_part_is_missing(file: str, tmp_path: Path) -> None:
    native_codec().save(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(UserError, match=str(tmp_path)) as raised:
        load_codec(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_new_codec_knows_the_characters_of_the_texts() -> None:
    codec = new_codec(CodecSettings.of(tiny_config(SIZES)), ["Ba, dó", "ki!"])
    assert codec.characters.symbols == list(" abdikó")
    assert codec.head.out_features == 8
