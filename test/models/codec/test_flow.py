"""Conditional flow matching: the path, its velocity, and independence from the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiorl.config.codec import FlowConfig
from audiorl.models.codec import flow as flow_module
from audiorl.models.codec.flow import FlowDecoder
from audiorl.models.codec.speaker import SPEAKER_SIZE

STRIDE, MELS, DIMS = 4, 16, 3


def decoder(seed: int = 0, **keys) -> FlowDecoder:
    """A small one whose last layer is not 0, as it is before training."""
    config = FlowConfig(hidden_size=24, num_blocks=2)
    for name, value in keys.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    flow = FlowDecoder(config, DIMS, MELS, STRIDE).eval()
    for parameter in (flow.output.weight, *(b.modulation.weight for b in flow.blocks)):
        torch.nn.init.normal_(parameter, std=0.3)
    return flow


def inputs(lengths: list[int]) -> tuple[list[Tensor], Tensor]:
    """Codes of these lengths, and a speaker for each."""
    generator = torch.Generator().manual_seed(3)
    codes = [torch.randint(-1, 2, (n, DIMS), generator=generator).float() for n in lengths]
    return codes, torch.randn(len(lengths), SPEAKER_SIZE, generator=generator)


def test_frames_do_not_depend_on_the_batch() -> None:
    flow = decoder()
    codes, speakers = inputs([7, 1, 4])
    with torch.no_grad():
        together = flow.sample(codes, speakers, seed=1)
        alone = [flow.sample([c], s[None], seed=1)[0] for c, s in zip(codes, speakers, strict=True)]
    for row, single, code in zip(together, alone, codes, strict=True):
        assert row.shape == single.shape == (STRIDE * len(code), MELS)
        torch.testing.assert_close(row, single, rtol=0, atol=1e-5)


def test_a_seed_gives_the_noise() -> None:
    flow = decoder()
    codes, speakers = inputs([5, 5])
    with torch.no_grad():
        first, again, other = (flow.sample(codes, speakers, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 0.1


def test_temperature_scales_the_noise() -> None:
    """Without noise a seed says nothing."""
    flow = decoder(temperature=0.0)
    codes, speakers = inputs([5, 5])
    with torch.no_grad():
        first, other = (flow.sample(codes, speakers, seed)[0] for seed in (1, 2))
        assert torch.equal(first, other)
        flow.config.temperature = 0.1
        near = flow.sample(codes, speakers, seed=1)[0]
        flow.config.temperature = 1.0
        far = flow.sample(codes, speakers, seed=1)[0]
    assert 0 < (near - first).abs().mean() < (far - first).abs().mean()


def test_codes_and_speaker_are_heard() -> None:
    flow = decoder()
    (codes, *_), speakers = inputs([5, 5])
    with torch.no_grad():
        plain = flow.sample([codes], speakers[:1], seed=1)[0]
        for other in (
            flow.sample([-codes], speakers[:1], 1),
            flow.sample([codes], speakers[1:], 1),
        ):
            assert (plain - other[0]).abs().max() > 1e-2


def test_euler_steps_follow_a_straight_path_to_its_end(monkeypatch) -> None:
    """With the true velocity of the path, one step or many arrive where it leads."""
    target = torch.randn(1, 3 * STRIDE, MELS)
    codes, speakers = inputs([3])
    for steps in (1, 4, 10):
        flow = decoder(euler_steps=steps)
        monkeypatch.setattr(
            flow,
            "_velocity",
            lambda mel, times, *_: (target - mel) / (1 - times[:, None, None]),
        )
        torch.testing.assert_close(
            flow.sample(codes, speakers, seed=4)[0], target[0], rtol=0, atol=1e-5
        )


def test_the_losses_are_errors_of_velocity_and_draft_on_real_frames(monkeypatch) -> None:
    """Against a loop over frames, with the same random times and noise."""
    monkeypatch.setattr(flow_module, "UNINFORMED", 0.0)
    flow = decoder()
    codes, speakers = inputs([2, 3])
    padded = torch.nn.utils.rnn.pad_sequence(codes, batch_first=True)
    lengths, frames = torch.tensor([2, 3]), torch.tensor([6, 11])
    mel = torch.randn(2, 3 * STRIDE, MELS)
    seen = {}

    def velocity(at: Tensor, times: Tensor, *_) -> Tensor:
        seen.update(at=at, times=times)
        return torch.full_like(at, 0.25)

    monkeypatch.setattr(flow, "_velocity", velocity)
    monkeypatch.setattr(flow, "_draft", lambda *_: torch.full_like(mel, 0.5))
    torch.manual_seed(6)
    loss, drafting = (part.item() for part in flow.loss(mel, frames, padded, lengths, speakers))
    torch.manual_seed(6)
    times, noise = torch.rand(2), torch.randn_like(mel)
    total = drafted = count = 0.0
    for b in range(2):
        t = times[b]
        torch.testing.assert_close(seen["at"][b], (1 - t) * noise[b] + t * mel[b])
        for n in range(frames[b]):
            total += ((0.25 - (mel[b, n] - noise[b, n])) ** 2).sum().item()
            drafted += ((0.5 - mel[b, n]) ** 2).sum().item()
            count += MELS
    assert loss == pytest.approx(total / count, rel=1e-5)
    assert drafting == pytest.approx(drafted / count, rel=1e-5)
    assert torch.equal(seen["times"], times)


def test_a_share_is_learnt_without_condition(monkeypatch) -> None:
    monkeypatch.setattr(flow_module, "UNINFORMED", 0.5)
    flow = decoder()
    codes, speakers = inputs([2] * 64)
    heard = []

    def velocity(at: Tensor, times: Tensor, draft: Tensor, voice: Tensor, real: Tensor) -> Tensor:
        informed = draft.flatten(1).abs().sum(1) > 0
        assert torch.equal(informed, voice.abs().sum(1) > 0)
        heard.append(informed)
        return torch.zeros_like(at)

    monkeypatch.setattr(flow, "_velocity", velocity)
    torch.manual_seed(0)
    full = torch.full((64,), 2)
    flow.loss(torch.zeros(64, 8, MELS), STRIDE * full, torch.stack(codes), full, speakers)
    assert 20 < heard[0].sum() < 44


def test_it_learns_what_each_code_and_voice_sounds_like() -> None:
    """Two codes with a spectrum each, which one of two voices turns upside down."""
    torch.manual_seed(0)
    flow = FlowDecoder(
        FlowConfig(hidden_size=32, num_blocks=2),
        dims=1,
        n_mels=8,
        stride=STRIDE,
    )
    optimizer = torch.optim.AdamW(flow.parameters(), lr=1e-2)
    spectra = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat_interleave(4, 1)  # [2, 8]
    voices = torch.eye(2, SPEAKER_SIZE)

    def batch(size: int) -> tuple[Tensor, Tensor, Tensor]:
        tokens, speakers = torch.randint(2, (size, 3)), torch.randint(2, (size,))
        sign = 1.0 - 2.0 * speakers
        mel = spectra[tokens].repeat_interleave(STRIDE, 1) * sign[:, None, None]
        return mel, 2.0 * tokens[..., None] - 1, voices[speakers]

    lengths = torch.full((16,), 3)
    for _ in range(300):
        mel, codes, speakers = batch(16)
        optimizer.zero_grad()
        sum(flow.loss(mel, STRIDE * lengths, codes, lengths, speakers)).backward()
        optimizer.step()
    mel, codes, speakers = batch(16)
    with torch.no_grad():
        spoken = torch.stack(flow.eval().sample(list(codes), speakers, seed=1))
    assert (spoken - mel).abs().mean() < 0.35  # 1.0 or more for the wrong code or voice
