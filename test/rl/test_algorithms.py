"""Each file of conf/algorithms: equal to slow code, to itself however it is cut, and it learns."""

from __future__ import annotations

import copy
import functools
import itertools
from pathlib import Path

import pytest
import torch
from steps import (
    ALGORITHMS,
    TWO,
    close,
    foreign_engine,
    learner,
    learning_model,
    more_prompts,
    one_step,
    other_model,
    preset,
    several_updates,
    slow_updates,
    step_prompts,
    weighted,
)
from torch import Tensor

from audiorl.config import load_config
from audiorl.data.utterance import Utterance
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.language_model import Prefix
from audiorl.rewards import Sample
from audiorl.rl import logprobs
from audiorl.rl.groups import rl_sampling
from audiorl.rl.logprobs import response_logprobs
from audiorl.runs.optimizer import Optimizers

every_algorithm = pytest.mark.parametrize("path", ALGORITHMS, ids=lambda path: path.stem)
KL_AND_ENTROPY = {"rl.beta": 0.2, "rl.kl_estimator": "exact", "rl.entropy_coef": 0.03}


def test_there_are_algorithms() -> None:
    named = "grpo dr_grpo dapo gspo rloo reinforce_pp mwer cispo".split()
    assert set(named) <= {path.stem for path in ALGORITHMS}


@every_algorithm
def test_it_is_a_small_file_that_extends_the_base(path: Path, tmp_path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 3
    base = path.parents[1] / "asr.yaml"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"extends: [{base}, {path}]\nseed: 3\n")
    config = load_config(recipe)
    assert config.seed == 3
    assert list(config.broken_rules()) == []
    for key, value in preset(path).items():
        if key not in ("rl.overlong_buffer", "rl.max_completion_length"):  # which `preset` sets
            assert getattr(config.rl, key.removeprefix("rl.")) == value


def reference(keys: dict) -> AudioLLM | None:
    return other_model() if "rl.beta" in keys else None


def may_be_iterated(path: Path) -> bool:
    """MWER may not; RAFT has the best alone, which the clip holds still from the second pass on."""
    return preset(path).get("rl.baseline") not in ("posterior", "best")


@every_algorithm
def test_a_step_is_the_slow_one(path: Path, utterances, monkeypatch) -> None:
    """With log-probabilities of a rollout engine that is off, so that ratios differ from 1."""
    foreign_engine(monkeypatch)
    keys = preset(path)
    gradients, metrics, completions = one_step(utterances, keys, TWO, reference(keys))
    expected, losses = slow_updates(utterances, keys, TWO, reference(keys))
    close(gradients, expected[0])
    assert metrics["loss"] == pytest.approx(losses[0], rel=1e-4, abs=1e-6)
    assert any(line["advantage"] for line in completions)


@every_algorithm
def test_several_updates_are_the_slow_ones(path: Path, utterances) -> None:
    """Two passes in mini-batches of two prompts, with the first policy's log-probabilities."""
    keys = {**preset(path), "rl.num_iterations": 2, "rl.mini_batch_prompts": 2}
    if not may_be_iterated(path):
        keys |= {"rl.num_iterations": 1, "rl.mini_batch_prompts": 0}
    # Far enough to be clipped now and then, but not always.
    rate = 3e-3 if keys.get("rl.importance_sampling_level") == "sequence" else 0.1
    gradients, output = several_updates(utterances, keys, TWO, reference(keys), rate)
    expected, _ = slow_updates(utterances, keys, TWO, reference(keys), rate)
    assert len(gradients) == len(expected) == (6 if may_be_iterated(path) else 1)
    for one, other in zip(gradients, expected, strict=True):
        close(one, other, 1e-4)
    assert output.metrics["sampling/sampling_logp_difference/max"] < 1e-4  # before it moves
    if preset(path).get("rl.policy_loss", "ppo") == "ppo" and may_be_iterated(path):
        assert 0.05 < output.metrics["clip_ratio/region_mean"] < 0.7


@pytest.fixture(scope="module")
def uncut(utterances):
    """The step of a file of conf/algorithms in one piece, computed once."""

    @functools.cache
    def step(path: Path):
        with pytest.MonkeyPatch.context() as patch:
            foreign_engine(patch)
            return one_step(utterances, KL_AND_ENTROPY | preset(path), TWO, other_model())

    return step


CUTS = {
    "one prompt a micro-batch": {"rl.micro_batch_tokens": 1},
    "two micro-batches": {"rl.micro_batch_tokens": 150},
    "shared prefix": {"rl.share_prefix": "always"},
    "plain prefix": {"rl.share_prefix": "never"},
    "shared prefix, one prompt": {"rl.share_prefix": "always", "rl.micro_batch_tokens": 1},
    "small chunks": {},
    "more padding": {},
    "other order": {},
}


@every_algorithm
@pytest.mark.parametrize("cut", CUTS)
def test_the_way_a_step_is_cut_does_not_matter(
    cut: str, path: Path, utterances, uncut, monkeypatch
) -> None:
    gradients, metrics, completions = uncut(path)
    keys = KL_AND_ENTROPY | preset(path) | CUTS[cut]
    foreign_engine(monkeypatch)
    order = list(range(len(utterances)))
    if cut == "small chunks":
        monkeypatch.setattr(logprobs, "CHUNK", 200)  # four tokens
    if cut == "more padding":
        pad(monkeypatch)
    if cut == "other order":
        order = [3, 0, 4, 2, 1]
    others, other_metrics, moved = one_step(
        [utterances[i] for i in order], keys, TWO, other_model()
    )
    close(others, gradients)
    for name, value in metrics.items():
        if not name.startswith(("timing_s", "perf", "sampling")):
            assert other_metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    size = len(completions) // len(utterances)
    assert moved == [completions[i * size + g] for i in order for g in range(size)]


def pad(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of noise that nobody may see: left of each prefix and right of each response."""
    from audiorl.rl import passes

    original, respond = AudioLLM.prefix, passes.response_logprobs

    def prefix(self: AudioLLM, frames: list[Tensor]) -> Prefix:
        found = original(self, frames)
        noise = torch.randn(len(found.embeds), 5, found.embeds.size(2))
        hidden = torch.zeros(len(found.mask), 5, dtype=torch.bool)
        return Prefix(torch.cat([noise, found.embeds], 1), torch.cat([hidden, found.mask], 1))

    def scored(lm, prefix: Prefix, tokens: Tensor, mask: Tensor, **settings):
        wide = torch.nn.functional.pad(tokens, (0, 3), value=9)
        found = respond(lm, prefix, wide, torch.nn.functional.pad(mask, (0, 3)), **settings)
        for name, value in vars(found).items():
            setattr(found, name, None if value is None else value[:, : tokens.size(1)])
        return found

    monkeypatch.setattr(AudioLLM, "prefix", prefix)
    monkeypatch.setattr(passes, "response_logprobs", scored)


@every_algorithm
def test_what_is_recorded_at_rollout_is_what_the_update_scores(path: Path, utterances) -> None:
    """Distinct audio, five prompts, groups of four; truncated sampling too."""
    for keys in ({}, {"rl.top_p": 0.8}, {"rl.top_k": 5, "rl.temperature": 1.3}):
        _, metrics, _ = one_step(utterances, preset(path) | keys, TWO, reference(preset(path)))
        assert 0 <= metrics["sampling/sampling_logp_difference/mean"] < 1e-5
        assert metrics["clip_ratio/region_mean"] == 0


WORDS = (3, 5)  # tokens: one of them is right for each utterance


class Toy:
    """Say the right word and end: 1; say it first and go on: 0.5; else 0.

    The encoder's frames are noise of their own for each utterance. Who does not listen gets 0.6 at
    most, since three utterances of five want the same word.
    """

    def __init__(self, keys: dict, utterances: list[Utterance]) -> None:
        sizes = {"rl.max_completion_length": 3, "rl.num_generations": 16}
        short = {"rl.overlong_buffer": 1} if "rl.overlong_buffer" in keys else {}
        self.utterances = utterances
        self.model = model = learning_model(keys | sizes | short, spread=2.0)
        self.end = model.tokenizer.eos_id
        model.forbidden[:] = True
        model.forbidden[[*WORDS, self.end]] = False
        with torch.no_grad():
            for parameter in model.adaptor.parameters():
                parameter.mul_(3.0)
        start = copy.deepcopy(model).requires_grad_(False)
        words = [model.tokenizer.decode([token]) for token in WORDS]
        self.right = {u.id: words[i % 2] for i, u in enumerate(utterances)}
        optimizer = Optimizers([model.adaptor, model.llm], 5e-3, weight_decay=0.0)
        more = functools.partial(more_prompts, utterances, 1)
        self.rewards = {"said": (self.said, 0.5), "ended": (self.ended, 0.5)}
        self.grpo = learner(
            model, self.rewards, start if "rl.beta" in keys else None, optimizer, more
        )
        generator = torch.Generator().manual_seed(5)
        size = model.recipe.encoder.output_size
        self.frames = {u.id: torch.randn(4, size, generator=generator) for u in utterances}
        self.grpo.conditions.get = lambda chosen: [self.frames[u.id] for u in chosen]

    def said(self, samples: list[Sample]) -> list[float]:
        return [float(s.text.startswith(self.right[s.utterance.id])) for s in samples]

    def ended(self, samples: list[Sample]) -> list[float]:
        return [float(s.finished and s.text == self.right[s.utterance.id]) for s in samples]

    def learn(self, steps: int) -> None:
        for step in range(steps):
            rate = min(1.0, 1.5 * (1 - step / steps))  # a steady third, then down to 0
            self.grpo.step(step, step_prompts(self.utterances, 4, 1, step), rate)

    @torch.no_grad()
    def expected_reward(self) -> float:
        """The mean over utterances, exactly: all responses with their probabilities."""
        every = [
            (*words, self.end) if len(words) < 3 else words
            for length in range(4)
            for words in itertools.product(WORDS, repeat=length)
        ]
        tokens = torch.tensor([[*r, self.end, self.end][:3] for r in every])
        mask = torch.arange(3) < torch.tensor([len(r) for r in every])[:, None]
        model, prompts = self.model, len(self.utterances)
        logps = response_logprobs(
            model.llm,
            model.prefix(list(self.frames.values())),
            tokens.repeat(prompts, 1),
            mask.repeat(prompts, 1),
            sampling=rl_sampling(model.recipe.rl),
            forbidden=model.forbidden,
            share=False,
        ).logps
        chances = logps.sum(1).exp()
        assert chances.sum().item() == pytest.approx(prompts, rel=1e-4)
        samples = [
            Sample(u, model.tokenizer.decode(list(r)), r[-1] == self.end)
            for u in self.utterances
            for r in every
        ]
        return (
            chances * torch.tensor(weighted(self.rewards)(samples).total)
        ).sum().item() / prompts


@every_algorithm
def test_it_reaches_a_known_optimum(path: Path, utterances) -> None:
    toy = Toy(preset(path), utterances)
    assert toy.expected_reward() < 0.4
    toy.learn(70)
    assert toy.expected_reward() > 0.95
