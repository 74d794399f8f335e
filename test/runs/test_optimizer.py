"""Learning rates as functions of the step, and optimizers that step together."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from tiny import tiny_model
from torch import nn

from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.runs.optimizer import Optimizers, warmup_cosine, warmup_then

SOME = [Utterance(f"u{i}", "", "", "s") for i in range(5)]


def test_warmup_and_cosine() -> None:
    rates = [warmup_cosine(step, 10, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.02 + 0.98 * 0.5)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert 0.02 <= rates[-1] < 0.03
    assert warmup_cosine(0, 0, 10) == pytest.approx(1.0)
    assert all(0 < warmup_cosine(step, 50, 20) <= 1 for step in range(20))


def test_warmup_and_what_follows() -> None:
    def rates(kind: str, warmup: int, total: int) -> list[float]:
        return [warmup_then(kind, step, warmup, total) for step in range(total)]

    assert rates("constant", 4, 6) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert rates("constant", 0, 3) == [1, 1, 1]
    assert rates("linear", 2, 6) == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])
    assert rates("linear", 0, 4) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert all(0 < rate <= 1 for rate in rates("linear", 5, 5) + rates("linear", 9, 5))


def a_module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3))


def train(module: nn.Module, optimizer: Optimizers, scales: list[float], norm: float = 1e9) -> None:
    for scale in scales:
        optimizer.zero_grad()
        module(torch.tensor([1, 2, 3])).square().sum().backward()
        optimizer.step(scale, norm, SOME)


def test_it_is_adamw_without_decay_of_vectors() -> None:
    ours, theirs = a_module(), a_module()
    train(ours, Optimizers([ours], 0.1, weight_decay=0.5), [0.5, 1.0, 0.2])
    matrices = [p for p in theirs.parameters() if p.dim() > 1]
    vectors = [p for p in theirs.parameters() if p.dim() <= 1]
    plain = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.5}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    for scale in (0.5, 1.0, 0.2):
        plain.zero_grad()
        theirs(torch.tensor([1, 2, 3])).square().sum().backward()
        for group in plain.param_groups:
            group["lr"] = 0.1 * scale
        plain.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_gradient_is_cut_to_its_norm() -> None:
    module = a_module()
    optimizer = Optimizers([module], 0.1, weight_decay=0.0)
    module(torch.tensor([1, 2, 3])).square().sum().backward()
    expected = torch.cat([p.grad.flatten() for p in module.parameters()]).norm().item()
    assert optimizer.step(1.0, 0.01, SOME) == pytest.approx(expected, rel=1e-5)
    cut = torch.cat([p.grad.flatten() for p in module.parameters()]).norm().item()
    assert cut == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_changes_nothing(value: float) -> None:
    module = a_module()
    before = copy.deepcopy(module.state_dict())
    optimizer = Optimizers([module], 0.1, weight_decay=0.1, muon_learning_rate=0.1)
    module(torch.tensor([1, 2, 3])).sum().backward()
    module[1].weight.grad[0, 0] = value
    with pytest.raises(UserError, match=r"update on 5 utterances, u0, u1, u2 first; look at them"):
        optimizer.step(1.0, 1.0, SOME)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_muon_takes_the_matrices_of_layers_only() -> None:
    model = tiny_model()
    optimizer = Optimizers([model], 1e-3, 0.01, muon_learning_rate=1e-2)
    (adamw, _), (muon, _) = optimizer._peaks
    by_muon = {id(p) for group in muon.param_groups for p in group["params"]}
    by_adamw = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert not by_muon & by_adamw
    assert by_muon | by_adamw == {id(p) for p in model.parameters()}
    named = dict(model.named_parameters())
    assert id(named["llm.model.embed_tokens.weight"]) in by_adamw  # the head too: it is tied
    assert id(named["llm.model.layers.0.self_attn.q_proj.weight"]) in by_muon
    assert all(p.dim() == 2 for p in named.values() if id(p) in by_muon)


def test_frozen_parameters_are_left_out_and_shared_ones_counted_once() -> None:
    module = a_module()
    module[1].requires_grad_(False)
    optimizer = Optimizers([module, module[3]], 0.1, 0.0)
    assert len(optimizer.parameters) == len(list(module.parameters())) - 2


@pytest.mark.parametrize("muon", [0.0, 0.05])
def test_a_saved_state_goes_on_as_before(muon: float) -> None:
    whole, first = a_module(), a_module()
    train(whole, Optimizers([whole], 0.1, 0.1, muon), [0.3, 0.6, 1.0, 1.0])
    begun = Optimizers([first], 0.1, 0.1, muon)
    train(first, begun, [0.3, 0.6])
    second = a_module()
    second.load_state_dict(first.state_dict())
    resumed = Optimizers([second], 0.1, 0.1, muon)
    resumed.load_state_dict(copy.deepcopy(begun.state_dict()))
    train(second, resumed, [1.0, 1.0])
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_state_of_another_kind_is_refused() -> None:
    module = a_module()
    both = Optimizers([module], 0.1, 0.1, 0.1).state_dict()
    with pytest.raises(ValueError):
        Optimizers([module], 0.1, 0.1).load_state_dict(both)


def drift(dtype: torch.dtype, lr: float, muon: float = 0.0) -> tuple[nn.Linear, Optimizers]:
    """A matrix of an LLM's spread of weights after 100 steps along one direction and noise."""
    torch.manual_seed(1)
    module = nn.Linear(64, 64, bias=False)
    nn.init.normal_(module.weight, std=0.02)
    module.to(torch.bfloat16).to(dtype)
    optimizer = Optimizers([module], lr, 0.0, muon)
    generator = torch.Generator().manual_seed(2)
    common = torch.randn(64, 64, generator=generator)
    for _ in range(100):
        optimizer.zero_grad()
        noise = torch.randn(64, 64, generator=generator)
        (module.weight * (1e-3 * (common + noise)).to(dtype)).sum().backward()
        optimizer.step(1.0, 1e9, [])
    return module, optimizer


@pytest.mark.parametrize(("lr", "muon"), [(1e-6, 0.0), (1e-5, 0.0), (1e-6, 1e-6)])
def test_small_steps_move_bf16_weights_as_fp32(lr: float, muon: float) -> None:
    start, _ = drift(torch.float32, 1e-30)
    whole, wide = drift(torch.float32, lr, muon)
    rounded, optimizer = drift(torch.bfloat16, lr, muon)
    assert not wide.masters and rounded.weight.grad is None
    master = optimizer.masters[rounded.weight]
    assert master.dtype == torch.float32 and torch.equal(rounded.weight, master.bfloat16())
    moved, expected = ((w - start.weight).detach().flatten() for w in (master, whole.weight))
    assert torch.cosine_similarity(moved, expected, 0) > 0.99
    assert moved.norm() == pytest.approx(expected.norm().item(), rel=0.01)
    assert (moved != 0).all()


def test_gradients_of_bf16_weights_are_summed_in_fp32() -> None:
    """In bf16, 1 + 2 ** -9 is 1."""
    weight = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    former = Optimizers([weight], 0.1, 0.0)
    optimizer = Optimizers([weight], 0.1, 0.0)
    del former
    for value in [1.0] + [2.0**-9] * 8:
        weight(torch.full((1, 1), value, dtype=torch.bfloat16)).sum().backward()
    assert optimizer.step(1.0, 1e9, []) == 1 + 2.0**-6
    optimizer.zero_grad()
    assert optimizer.parameters[0].grad is None
