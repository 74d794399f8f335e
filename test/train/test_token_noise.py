"""What disturbs a reward model's embeddings does what it says, and nothing when it is off."""

from __future__ import annotations

import pytest
import torch

from audiorl.train import token_noise
from audiorl.train.token_noise import disturbed, mixed, spans

LENGTHS = torch.tensor([40, 25, 3])


def table() -> torch.Tensor:
    return torch.randn(50, 8, generator=torch.Generator().manual_seed(1))


def tokens() -> torch.Tensor:
    return torch.randint(50, (3, 40), generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def without_noise(monkeypatch) -> None:
    for name in ("SWAPPED", "MIXED", "EMBEDDING_NOISE", "SPANS"):
        monkeypatch.setattr(token_noise, name, 0)


def noisy(seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return disturbed(tokens(), LENGTHS, table())


def test_without_noise_they_are_the_tables() -> None:
    assert torch.equal(noisy(), table()[tokens()])


@pytest.mark.parametrize(
    "sizes",
    [
        {"SWAPPED": 0.2},
        {"SPANS": 2, "SPAN_WIDTH": 0.3},
        {"MIXED": 0.3},
        {"EMBEDDING_NOISE": 0.2},
    ],
)
def test_a_step_can_be_drawn_again(sizes: dict, monkeypatch) -> None:
    for name, value in sizes.items():
        monkeypatch.setattr(token_noise, name, value)
    assert torch.equal(noisy(1), noisy(1))
    assert not torch.equal(noisy(1), noisy(2))


def test_a_share_of_the_tokens_is_random(monkeypatch) -> None:
    torch.manual_seed(0)
    many = torch.zeros(100, 100, dtype=torch.long)
    monkeypatch.setattr(token_noise, "SWAPPED", 0.2)
    changed = (disturbed(many, torch.full((100,), 100), table()) != table()[0]).any(-1)
    assert changed.float().mean().item() == pytest.approx(0.2 * 49 / 50, abs=0.01)


def test_noise_has_its_size(monkeypatch) -> None:
    monkeypatch.setattr(token_noise, "EMBEDDING_NOISE", 0.3)
    difference = noisy() - table()[tokens()]
    assert difference.std().item() == pytest.approx(0.3 * table().std().item(), rel=0.1)


def test_spans_are_inside_and_no_wider_than_allowed() -> None:
    torch.manual_seed(0)
    lengths = LENGTHS.repeat(200)
    hidden = spans(lengths, 40, 1, 0.25)
    inside = torch.arange(40) < lengths[:, None]
    assert not (hidden & ~inside).any()
    widths = hidden.sum(1).view(200, 3)
    assert widths.max(0).values.tolist() == [10, 6, 0]
    edges = (hidden.int().diff(dim=1) == 1).sum(1) + hidden[:, 0]
    assert edges.max() == 1  # one span
    assert hidden[::3].any(0).all()  # anywhere, the first and last place included
    assert spans(LENGTHS, 40, 3, 0.0).sum() == 0


def test_mixing_adds_another_utterance_while_it_lasts() -> None:
    torch.manual_seed(0)
    embedded = torch.randn(3, 40, 8)
    found = mixed(embedded, LENGTHS, 0.5)
    others = embedded.roll(1, 0)
    for row, ends in enumerate([3, 40, 25]):  # the lengths of the rows before
        share = (found[row] - embedded[row]) / (others[row] - embedded[row])
        first = share[:ends].flatten()
        torch.testing.assert_close(first, first[0].expand_as(first), rtol=1e-3, atol=1e-4)
        assert 0 < first[0] < 0.5
        assert torch.equal(found[row, ends:], embedded[row, ends:])
