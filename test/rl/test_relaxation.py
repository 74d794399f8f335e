"""Gumbel-Softmax: the draws are the distribution's, and their noise is nobody else's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy  # its `stats`, slow to import, come when first used
import torch

from audiorl.engines.engine import Draws
from audiorl.rl.relaxation import annealed, gumbel_noise, gumbel_softmax

DRAWS = 20_000


def noise(draws: int = DRAWS, size: int = 4) -> torch.Tensor:
    return gumbel_noise(1, 0, "u", 0, draws, size)


def test_noise_is_standard_gumbel() -> None:
    result = scipy.stats.kstest(noise().flatten().numpy(), "gumbel_r")
    assert result.pvalue > 0.01


@pytest.mark.parametrize("tau", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("hard", [True, False])
def test_the_likeliest_token_is_distributed_as_the_softmax(tau: float, hard: bool) -> None:
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0])
    drawn = gumbel_softmax(logits.expand(DRAWS, 4), noise(), tau, hard).argmax(-1)
    counts = torch.bincount(drawn, minlength=4).double()
    expected = DRAWS * logits.double().softmax(-1)
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert scipy.stats.chi2.sf(statistic, 3) > 0.01


def test_soft_and_hard_agree_as_tau_falls() -> None:
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0]).expand(DRAWS, 4)
    distances = [
        float(
            (
                gumbel_softmax(logits, noise(), tau, False)
                - gumbel_softmax(logits, noise(), tau, True)
            )
            .abs()
            .sum(1)
            .mean()
        )
        for tau in (2.0, 0.5, 0.1, 0.01)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.5 and distances[-1] < 0.02


def test_hard_has_the_gradient_of_soft() -> None:
    values = torch.randn(5, 4)
    gradients = []
    for hard in (True, False):
        logits = torch.zeros(5, 4, requires_grad=True)
        mixture = gumbel_softmax(logits, noise(5), 0.7, hard)
        if hard:
            assert set(mixture.detach().round(decimals=5).flatten().tolist()) == {0.0, 1.0}
        (mixture * values).sum().backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients)


def test_noise_depends_on_its_own_place_alone() -> None:
    here = gumbel_noise(1, 2, "u", 3, 8, 5)
    assert torch.equal(here[:6], gumbel_noise(1, 2, "u", 3, 6, 5))  # not on how long it goes on
    others = [(2, 2, "u", 3), (1, 3, "u", 3), (1, 2, "v", 3), (1, 2, "u", 4)]
    for other in others:
        assert (gumbel_noise(*other, 8, 5) != here).all()


def test_noise_is_not_the_rollouts() -> None:
    """The same seed, step, utterance and member: were they one stream, draws would repeat."""
    uniforms = Draws(1, 2, ["u"]).uniforms(1, 1000)[0]
    mine = gumbel_noise(1, 2, "u", 0, 1000, 1)[:, 0].double()
    assert abs(np.corrcoef(uniforms, mine)[0, 1]) < 0.1
    assert abs(np.corrcoef(uniforms[::2][:500], mine[:500])[0, 1]) < 0.15


def test_annealing_is_linear() -> None:
    assert [annealed(2.0, 0.5, step, 4) for step in range(4)] == pytest.approx([2.0, 1.5, 1.0, 0.5])
    assert annealed(1.0, 0.5, 0, 1) == 1.0
