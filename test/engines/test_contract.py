"""The contract of engines: the native engine fulfils it, and engines that are wrong do not."""

from __future__ import annotations

import copy
from dataclasses import replace

import contract
import pytest
import torch
from contract import Case
from tiny import sing, tiny_model, write_set
from tiny_families import load_family
from tiny_speech import tiny_speech_lm
from tiny_whisper import save_whisper, tiny_whisper
from torch import nn

from audiorl.engines.engine import Draws, Rollout
from audiorl.engines.native import PolicyEngine
from audiorl.engines.sampling import Sampling
from audiorl.models.policy import Policy

# With a divided head, with rotary positions of three kinds, and with several stop ids.
FAMILIES = ("granite_speech", "qwen3_asr", "qwen3_omni")
TEXTS = ["ba", "do ki lu me no", "pa ri so"]


def untie(policy: Policy) -> Policy:
    torch.manual_seed(5)
    head = nn.Linear(*reversed(policy.llm.lm_head.weight.shape), bias=False)
    policy.llm.lm_head = head
    with torch.no_grad():
        head.weight.mul_(2.0)
    return policy.eval()


def is_tied(policy: Policy) -> bool:
    return policy.llm.lm_head.weight is policy.llm.model.get_input_embeddings().weight


@pytest.fixture(
    scope="module", params=["qwen2", "qwen3", "qwen3, untied", "speech LM", "Whisper", *FAMILIES]
)
def case(request, tmp_path_factory: pytest.TempPathFactory, family_folder) -> Case:
    waves = [torch.from_numpy(sing(text)) for text in TEXTS]
    if request.param in FAMILIES:
        return Case(load_family(family_folder(request.param)), waves)
    if request.param == "Whisper":
        folder = save_whisper(tmp_path_factory.mktemp("whisper"))
        return Case(tiny_whisper(folder, {"whisper.window": "utterance"}), waves)
    if request.param == "speech LM":
        texts = write_set(tmp_path_factory.mktemp("texts") / "test", TEXTS)
        return Case(tiny_speech_lm(spread=3.0), texts)
    architecture, _, untied = request.param.partition(",")
    policy = tiny_model({"llm.architecture": architecture}, spread=3.0)
    if untied:
        untie(policy)
    assert is_tied(policy) == (not untied)
    return Case(policy, waves)


@pytest.mark.parametrize("sampling", contract.SAMPLINGS, ids=str)
def test_native_logps(case: Case, sampling: Sampling) -> None:
    contract.logps_are_those_of_the_update(PolicyEngine, case, sampling)


@pytest.mark.parametrize("check", contract.PLAIN, ids=lambda check: check.__name__)
def test_native(case: Case, check) -> None:
    check(PolicyEngine, case)


class Unscaled(PolicyEngine):
    """Returns log-probabilities of the model, not of what it sampled from."""

    def generate(self, prefix, **options) -> Rollout:
        rollout = super().generate(prefix, **options)
        shifted = rollout.logps * options["sampling"].temperature
        return replace(rollout, logps=shifted)


class Stale(PolicyEngine):
    """Keeps the weights that it was made with."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(copy.deepcopy(policy))


class HalfSynced(Stale):
    """Takes the body's weights, and forgets a head that is not tied to it."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.source = policy

    def sync(self) -> None:
        self.policy.llm.model.load_state_dict(self.source.llm.model.state_dict())


class OneStop(PolicyEngine):
    """Knows the first stop id alone."""

    def _sample(self, *arguments) -> Rollout:
        before = self.policy.stop_ids
        self.policy.stop_ids = before[:1]
        try:
            return super()._sample(*arguments)
        finally:
            self.policy.stop_ids = before


class ByPlace(PolicyEngine):
    """Draws by the place in the batch."""

    def generate(self, prefix, *, draws: Draws | None = None, **options) -> Rollout:
        if draws is not None:
            draws = replace(draws, ids=[str(i) for i in range(len(draws.ids))])
        return super().generate(prefix, draws=draws, **options)


class Permissive(PolicyEngine):
    """Remembers what was forbidden when it was made, and nothing since."""

    def _sample(self, *arguments) -> Rollout:
        before = self.policy.forbidden.clone()
        self.policy.forbidden.zero_()
        try:
            return super()._sample(*arguments)
        finally:
            self.policy.forbidden.copy_(before)


class Overlong(PolicyEngine):
    """Writes one token more than it may."""

    def _sample(self, prefix, group, max_length, sampling, uniforms) -> Rollout:
        if uniforms is not None:
            uniforms = torch.cat([uniforms, uniforms[:, :1]], 1)
        return super()._sample(prefix, group, max_length + 1, sampling, uniforms)


class GreedyFirst(PolicyEngine):
    """Puts the greedy row ahead of its group."""

    def generate(self, prefix, *, group: int, with_greedy: bool = False, **options) -> Rollout:
        rollout = super().generate(prefix, group=group, with_greedy=with_greedy, **options)
        if not with_greedy:
            return rollout
        rows = range(len(rollout))
        return rollout.select([i - 1 if i % (group + 1) else i + group for i in rows])


class NeverGreedy(PolicyEngine):
    """Draws where the most probable token was asked for."""

    def generate(self, prefix, *, sampling, draws=None, **options) -> Rollout:
        if sampling.greedy:
            names = [str(i) for i in range(len(prefix.embeds))]
            sampling, draws = Sampling(), Draws(0, 0, names)
        return super().generate(prefix, sampling=sampling, draws=draws, **options)


@pytest.mark.parametrize(
    ("engine", "check"),
    [
        (Stale, contract.sync_takes_all_weights),
        (HalfSynced, contract.sync_takes_all_weights),
        (OneStop, contract.responses_end_at_any_stop_id),
        (ByPlace, contract.draws_decide_alone),
        (Permissive, contract.forbidden_ids_are_never_sampled),
        (Overlong, contract.the_longest_response_is_cut),
        (GreedyFirst, contract.a_greedy_row_follows_each_group),
        (NeverGreedy, contract.greedy_takes_the_best_token),
    ],
    ids=lambda value: value.__name__,
)
def test_a_wrong_engine_is_noticed(engine: type[PolicyEngine], check) -> None:
    policy = untie(tiny_model(spread=3.0))
    with pytest.raises(AssertionError):
        check(engine, Case(policy, [torch.from_numpy(sing(text)) for text in TEXTS]))


@pytest.mark.parametrize("sampling", contract.SAMPLINGS[1:3], ids=str)
def test_wrong_logps_are_noticed(sampling: Sampling) -> None:
    case = Case(tiny_model(spread=3.0), [torch.from_numpy(sing(text)) for text in TEXTS])
    with pytest.raises(AssertionError):
        contract.logps_are_those_of_the_update(Unscaled, case, sampling)
