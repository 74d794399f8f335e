"""Finite scalar quantisation: rounding, tokens, and the gradient that ignores the rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiorl.models.codec.quantiser import FiniteScalarQuantiser

SHAPES = [(5, 3), (3, 5), (1, 7)]


def quantiser(size: int, dims: int, levels: int) -> FiniteScalarQuantiser:
    """A random one, with statistics of some batch."""
    torch.manual_seed(0)
    made = FiniteScalarQuantiser(size, dims, levels)
    hidden = 3 + torch.randn(8, 100, size)
    for _ in range(50):
        made.train()(hidden, everything(hidden))
    return made.eval()


def everything(hidden: Tensor) -> Tensor:
    return torch.ones(hidden.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize(("dims", "levels"), SHAPES)
def test_tokens_are_sums_of_powers(dims: int, levels: int) -> None:
    """Against the formula, number by number."""
    made = quantiser(8, dims, levels)
    hidden = 3 + 2 * torch.randn(2, 50, 8)
    codes, tokens = made(hidden, everything(hidden))
    bound = (levels - 1) // 2
    projected = (made.projection(hidden) - made.norm.running_mean) / made.norm.running_var.sqrt()
    for b in range(2):
        for t in range(50):
            digits = [round(bound * torch.tanh(x).item()) for x in projected[b, t]]
            expected = [digit / bound for digit in digits]
            assert codes[b, t].tolist() == pytest.approx(expected, abs=1e-6)
            assert tokens[b, t].item() == sum(
                (digit + bound) * levels**j for j, digit in enumerate(digits)
            )


@pytest.mark.parametrize(("dims", "levels"), SHAPES)
def test_each_token_has_its_code(dims: int, levels: int) -> None:
    made = quantiser(4, dims, levels)
    tokens = torch.arange(made.codebook_size)
    codes = made.codes(tokens)
    assert len({tuple(code) for code in codes.tolist()}) == levels**dims == len(tokens)
    assert codes.min() == -1 and codes.max() == 1
    made.projection = made.norm = torch.nn.Identity()
    again, same = made(torch.atanh(0.99 * codes)[None], torch.ones(1, len(codes), dtype=torch.bool))
    assert torch.equal(same[0], tokens)
    torch.testing.assert_close(again[0], codes)


def test_what_is_encoded_can_be_looked_up() -> None:
    made = quantiser(8, 4, 5)
    hidden = 3 + 2 * torch.randn(3, 20, 8)
    codes, tokens = made(hidden, everything(hidden))
    torch.testing.assert_close(made.codes(tokens), codes)


@pytest.mark.parametrize("levels", [3, 5])
def test_all_codes_are_used_though_the_mean_is_large(levels: int) -> None:
    """Hidden states that differ little beside what they have in common."""
    torch.manual_seed(1)
    made = FiniteScalarQuantiser(16, 3, levels)
    hidden = 10 * torch.randn(16) + torch.randn(4, 2000, 16)
    _, tokens = made(hidden, everything(hidden))
    counts = torch.bincount(tokens.flatten(), minlength=levels**3)
    assert (counts > 0).all()


def test_padding_is_no_part_of_the_statistics() -> None:
    hidden = torch.randn(2, 9, 8)
    real = torch.arange(9) < torch.tensor([9, 4])[:, None]
    found = []
    for padding in (0.0, 1000.0):
        torch.manual_seed(2)
        made = FiniteScalarQuantiser(8, 3, 3)
        codes, _ = made(torch.where(real[..., None], hidden, padding), real)
        found.append((codes[real], made.norm.running_mean))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_the_gradient_is_that_of_the_bounded_numbers() -> None:
    made = quantiser(6, 3, 5)
    hidden, weights = 3 + torch.randn(1, 4, 6), torch.randn(4, 3)
    (made(hidden, everything(hidden))[0][0] * weights).sum().backward()
    rounded = made.projection.weight.grad.clone()
    made.zero_grad()
    (made.norm(made.projection(hidden[0])).tanh() * weights).sum().backward()
    assert rounded.abs().min() > 0
    torch.testing.assert_close(rounded, made.projection.weight.grad)
