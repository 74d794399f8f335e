"""DiffRO's loss and gradient, against slow code, finite differences and exact expectations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from steps import Recorder, close
from tiny_speaker import CODEC, TEXTS, TinySpeaker, tiny_recogniser, utterance
from torch import Tensor

from audiorl.config.diffro import DiffRORewardConfig
from audiorl.engines.engine import Rollout
from audiorl.errors import UserError
from audiorl.models import token_recogniser
from audiorl.rl.diffro import DiffROLoss, Histories
from audiorl.rl.diffro_learner import DiffRO
from audiorl.rl.relaxation import gumbel_noise, gumbel_softmax
from audiorl.runs.optimizer import Optimizers
from audiorl.text import detectors

UTTERANCES = [
    utterance("u0", "ab"),
    utterance("u1", "c a", "t"),
    utterance("u2", "a"),
    utterance("u3", "bc b"),
]
RECORDED = {"u0": [0, 3, 5], "u1": [2, 2, 4, 1, 0, 5], "u2": [1], "u3": [4, 0, 1, 2]}
TASKS = [DiffRORewardConfig(), DiffRORewardConfig("speaker", 0.5)]
KEYS = {
    "rl.beta": 0.3,
    "rl.max_steps": 5,
    "diffro.rewards": TASKS,
    "diffro.stop_weight": 0.7,
    "diffro.tau": 1.5,
    "diffro.tau_end": 0.5,
    "rl.temperature": 0.8,
    "reward_model.tasks": ["speaker"],
}


def speaker(keys: dict[str, Any] | None = None, seed: int = 0) -> TinySpeaker:
    return TinySpeaker({**KEYS, **(keys or {})}, seed=seed)


def learner(
    policy: TinySpeaker, reference: TinySpeaker | None = None, optimizer: Any = None
) -> DiffRO:
    recogniser = tiny_recogniser(spread=3.0)
    optimizer = optimizer or Recorder(policy)
    return DiffRO(policy, recogniser, reference, optimizer, policy, RECORDED, policy.recipe)


def histories(policy: TinySpeaker, rows: list[int] | None = None) -> Histories:
    chosen = [UTTERANCES[row] for row in rows or range(4)]
    return learner(policy)._fixed(chosen)


def slow_loss(policy: TinySpeaker, reference: TinySpeaker | None, step: int) -> Tensor:
    """The mean over the utterances, one at a time, from the LM's own forward on."""
    config, recogniser = policy.recipe, tiny_recogniser(spread=3.0)
    tau, total = 1.5 - step / 4, 0.0
    for u in UTTERANCES:
        ids = [TEXTS + token for token in RECORDED[u.id]]
        logp = slow_distribution(policy, u, ids)  # [n + 1, 7]: six tokens, and stop
        noise = gumbel_noise(config.seed, step, u.id, 0, len(ids), 6)
        mixture = gumbel_softmax(logp[:-1, :6], noise, tau, config.diffro.hard)
        found = recogniser.log_likelihoods(
            recogniser.embed_soft(mixture)[None],
            torch.tensor([len(ids)]),
            [u.text],
            {"speaker": [u.speaker]},
        )
        total = total - found["text"][0] / (len(u.text) + 1) - 0.5 * found["speaker"][0]
        going_on = (1 - logp[:-1, 6].exp()).log().sum()
        total = total - 0.7 * (logp[-1, 6] + going_on)
        if reference is not None:
            other = slow_distribution(reference, u, ids).detach()
            total = total + 0.3 * (logp.exp() * (logp - other)).sum(1).mean()
    return total / 4


def slow_distribution(policy: TinySpeaker, u, ids: list[int]) -> Tensor:
    read = torch.cat([policy.get([u])[0], torch.tensor(ids)])
    logits = policy.llm(policy.llm.embed(read[None]))[0, -len(ids) - 1 :, TEXTS:]
    return (logits / policy.recipe.rl.temperature).log_softmax(-1)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("step", [0, 3])
def test_a_step_is_the_slow_loss(hard: bool, with_reference: bool, step: int) -> None:
    policy = speaker({"diffro.hard": hard})
    reference = speaker(seed=1).requires_grad_(False) if with_reference else None
    diffro = learner(policy, reference)
    output = diffro.step(step, UTTERANCES, 1.0)
    policy.zero_grad()
    loss = slow_loss(policy, reference, step)
    loss.backward()
    expected = {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}
    close(diffro.optimizer.gradients[0], expected, limit=1e-4)
    assert output.metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert output.metrics["diffro/tau"] == 1.5 - step / 4
    assert ("kl" in output.metrics) == with_reference
    assert output.metrics["diffro/kept"] == 4
    assert output.completions == []


def test_no_gradient_reaches_the_reward_model_or_the_reference() -> None:
    policy, reference = speaker(), speaker(seed=1).requires_grad_(False)
    diffro = learner(policy, reference)
    before = {n: p.clone() for n, p in diffro.loss.recogniser.named_parameters()}
    diffro.step(0, UTTERANCES, 1.0)
    for model in (diffro.loss.recogniser, reference):
        assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[n], p) for n, p in diffro.loss.recogniser.named_parameters())


def test_the_loss_does_not_depend_on_micro_batches_or_padding() -> None:
    gradients, losses = [], []
    for limit in (1, 16, 100_000):
        policy = speaker({"rl.micro_batch_tokens": limit})
        diffro = learner(policy, speaker(seed=1).requires_grad_(False))
        losses.append(diffro.step(1, UTTERANCES, 1.0).metrics["loss"])
        gradients.append(diffro.optimizer.gradients[0])
        rows = diffro.loss._micro_batches(histories(policy), [0, 1, 2, 3])
        assert len(rows) == {1: 4, 16: 3, 100_000: 1}[limit]
    for other in gradients[1:]:
        close(other, gradients[0], limit=1e-4)
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_more_padding_changes_nothing() -> None:
    policy = speaker()
    loss = DiffROLoss(policy, tiny_recogniser(spread=3.0), policy.recipe)
    plain = histories(policy)
    wide = histories(policy)
    wide.tokens = torch.nn.functional.pad(wide.tokens, (0, 5), value=TEXTS + 2)
    wide.mask = torch.nn.functional.pad(wide.mask, (0, 5))
    one, two = (loss(h, 0, 4)[0].item() for h in (plain, wide))
    assert one == pytest.approx(two, rel=1e-5)


def test_mini_batches_are_updates_of_their_own() -> None:
    policy = speaker({"rl.mini_batch_prompts": 2, "rl.num_iterations": 2})
    diffro = learner(policy)
    diffro.step(0, UTTERANCES, 1.0)
    gradients = diffro.optimizer.gradients
    assert len(gradients) == 4
    # The weights stay, so only the noise makes the second pass another one.
    name = "llm.lm_head.weight"
    assert not torch.allclose(gradients[0][name], gradients[2][name])


def test_the_gradient_is_the_slope_of_the_expected_reward() -> None:
    """Finite differences of the mean over 400 draws, the same draws on both sides."""
    policy = speaker({"diffro.stop_weight": 0.0, "rl.num_iterations": 1, "rl.max_steps": 1})
    loss = DiffROLoss(policy, tiny_recogniser(spread=3.0), policy.recipe)
    u = UTTERANCES[0]
    draws = histories(policy, [0]).select([0] * 400)
    draws.members = list(range(400))
    assert len(set(loss._noise(draws, 0).flatten().tolist())) > 6000
    weight = policy.llm.lm_head.weight
    mean, _ = loss(draws, 0, 400)
    mean.backward()
    torch.manual_seed(5)
    direction = torch.randn_like(weight)
    direction /= direction.norm()
    sides = []
    with torch.no_grad():
        for sign in (1, -1):
            weight += sign * 1e-2 * direction
            sides.append(float(loss(draws, 0, 400)[0]))
            weight -= sign * 1e-2 * direction
    slope = (sides[0] - sides[1]) / 2e-2
    assert abs(slope) > 1e-3, u
    assert float((weight.grad * direction).sum()) == pytest.approx(slope, rel=2e-2)


def one_token(tau: float, hard: bool, draws: int = 40_000) -> tuple[Tensor, Tensor]:
    """Gradient in the logits of the mean reward of one token: relaxed, and the exact one."""
    recogniser = tiny_recogniser(spread=2.0)
    start = torch.tensor([0.3, -0.5, 0.8, 0.0, -1.0, 0.4])
    lengths, batch = torch.ones(6, dtype=torch.long), 2000

    def reward(embedded: Tensor) -> Tensor:
        ones = torch.ones(len(embedded), dtype=torch.long)
        return recogniser.log_likelihood(embedded[:, None], ones, ["a"] * len(embedded))

    exact = start.clone().requires_grad_()
    values = recogniser.log_likelihood(
        recogniser.embed(torch.arange(6)[:, None]), lengths, ["a"] * 6
    )
    (exact.softmax(-1) * values).sum().backward()
    logits = start.clone().requires_grad_()
    for part in range(draws // batch):
        noise = gumbel_noise(0, 0, "u", part, batch, 6)
        mixture = gumbel_softmax(logits.expand(batch, 6), noise, tau, hard)
        (reward(recogniser.embed_soft(mixture)).sum() / draws).backward()
    return logits.grad, exact.grad


def test_as_tau_falls_the_gradient_is_that_of_the_exact_expectation() -> None:
    """Of one token: the expected reward is sum_k p_k R(k), whose gradient needs no draws.

    A soft draw rewards mixtures, which are no tokens: the gradient is biased, the less the lower
    tau is, at the cost of its variance.
    """
    errors = {}
    for tau in (1.0, 0.1):
        relaxed, exact = one_token(tau, hard=False)
        errors[tau] = float((relaxed - exact).norm() / exact.norm())
    assert errors[0.1] < 0.12
    assert errors[1.0] > 3 * errors[0.1]


def test_straight_through_is_biased_and_no_less_so_for_a_low_tau() -> None:
    """It takes the reward's slope at a token for the difference between tokens.

    The reward is not linear in the mixture, so a lower tau does not help; the direction is right.
    """
    relaxed, exact = one_token(0.1, hard=True)
    assert float((relaxed - exact).norm() / exact.norm()) > 0.3
    assert float(torch.cosine_similarity(relaxed, exact, dim=0)) > 0.7


def test_reward_rises_and_stopping_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that follows it is understood better, and still ends where the recordings do."""
    # Random attention hardly looks at the tokens.
    monkeypatch.setattr(token_recogniser, "CTC_WEIGHT", 1.0)

    def train(stop_weight: float) -> tuple[list[float], list[float]]:
        policy = speaker({"diffro.stop_weight": stop_weight, "rl.beta": 0.0, "rl.max_steps": 60})
        diffro = learner(policy, optimizer=Optimizers([policy.llm], 3e-3, 0.0))
        seen = [diffro.step(step, UTTERANCES, 1.0).metrics for step in range(60)]
        return [m["diffro/text"] for m in seen], [m["diffro/stop_loss"] for m in seen]

    text, stop = train(0.5)
    assert sum(text[-5:]) / 5 > sum(text[:5]) / 5 + 0.1
    assert stop[-1] < 0.1 * stop[0]
    _, forgotten = train(0.0)
    assert forgotten[-1] > forgotten[0] + 0.1


def test_the_kl_holds_the_policy() -> None:
    distances = []
    for beta in (0.0, 5.0):
        policy = speaker({"rl.beta": beta, "rl.max_steps": 30})
        reference = speaker().requires_grad_(False)
        diffro = learner(policy, reference, Optimizers([policy.llm], 3e-3, 0.0))
        seen = [diffro.step(step, UTTERANCES, 1.0).metrics for step in range(30)]
        assert seen[0]["kl"] == pytest.approx(0.0, abs=1e-5)
        distances.append(seen[-1]["kl"])
    assert distances[1] < 0.3 * distances[0]


def rollout(policy: TinySpeaker) -> tuple[Histories, Tensor]:
    """Two hypotheses of each of two utterances; the last does not end."""
    stop = policy.stop_ids[0]
    rows = [
        [8, 9, 10, stop, 0, 0],
        [9, 9, 9, 9, 9, stop],
        [stop, 0, 0, 0, 0, 0],
        [8, 9, 10, 11, 12, 13],
    ]
    tokens = torch.tensor(rows)
    ended = (tokens == stop).int().cumsum(1)
    mask = (ended == 0) | ((tokens == stop) & (ended == 1))
    finished = mask.sum(1) < 7
    finished[3] = False
    drawn = Rollout(tokens, mask, torch.zeros(4, 6), finished)
    chosen = [UTTERANCES[0], UTTERANCES[2]]
    return Histories.of_rollout(chosen, policy.get(chosen), drawn), finished


def test_rollouts_are_filtered_by_their_own_tokens(monkeypatch) -> None:
    monkeypatch.setattr(detectors, "LOOP_TOKENS", 4)
    policy = speaker()
    loss = DiffROLoss(policy, tiny_recogniser(), policy.recipe)
    found, finished = rollout(loss.policy)
    assert [u.id for u in found.utterances] == ["u0", "u0", "u2", "u2"]
    assert found.members == [0, 1, 0, 1]
    chosen = loss.select(found, finished, torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
    assert chosen.kept == [True, False, False, False]
    assert chosen.reasons == {"unterminated": 1, "looping": 1, "too_short": 1}
    loss.config.diffro.sample_filter = "positive_advantage"
    chosen = loss.select(found, finished, torch.tensor([[-1.0, 1.0], [0.0, math.nan]]))
    assert chosen.kept == [False] * 4
    assert chosen.reasons["not_positive"] == 1


def test_members_of_a_group_have_their_own_noise() -> None:
    policy = speaker()
    loss = DiffROLoss(policy, tiny_recogniser(spread=3.0), policy.recipe)
    twice = histories(policy, [0, 0])
    twice.members = [0, 1]
    noise = loss._noise(twice, 0)
    assert noise.shape == (8, 6)
    assert (noise[:4] != noise[4:]).all()


def test_what_has_no_room_is_left_out_and_counted() -> None:
    policy = speaker()
    diffro = learner(policy)
    diffro.histories = {**RECORDED, "u1": [1]}  # three characters in one token
    output = diffro.step(0, UTTERANCES, 1.0)
    assert output.metrics["diffro/too_short"] == 1
    assert output.metrics["diffro/kept"] == 3
    assert math.isfinite(output.metrics["loss"])
    diffro.histories = dict.fromkeys(RECORDED, [5] * 30)
    empty = diffro.step(0, UTTERANCES, 1.0)
    assert empty.metrics["diffro/looping"] == 4
    assert empty.metrics["loss"] == 0.0


def test_what_does_not_fit_is_refused_before_training() -> None:
    policy = speaker()
    diffro = learner(policy)
    diffro.refuse_unfit(UTTERANCES)
    with pytest.raises(UserError, match=r"^u9 has no speech tokens, .* stage 4 again"):
        diffro.refuse_unfit([*UTTERANCES, utterance("u9", "a")])
    diffro.histories = {**RECORDED, "u9": [1, 2]}
    with pytest.raises(UserError, match=r"^u9: .* never read: z"):
        diffro.refuse_unfit([utterance("u9", "z")])
    with pytest.raises(UserError, match=r"^u9: its speaker `x` is none"):
        diffro.refuse_unfit([utterance("u9", "a", "x")])
    larger = TinySpeaker(KEYS, {**CODEC, "codebook_size": 7})
    with pytest.raises(UserError, match=r"speaks 7 tokens and the reward model reads 6;"):
        DiffROLoss(larger, tiny_recogniser(), larger.recipe)
