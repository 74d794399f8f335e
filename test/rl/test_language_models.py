"""A shared prefix with several kinds of LM, those with sliding windows among them."""

from __future__ import annotations

import pytest
import torch
from steps import Recorder, close, learner, learning_model, one_step
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.rl.passes import Passes
from audiorl.rl.phases import Phases

WINDOW, WIDE = 4, 400  # fewer positions than any prefix has; more than all of it has
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "pad_token_id": None,
}
LMS = {
    "qwen2": {},
    "qwen3": {},
    "llama": {},
    "granite": {"logits_scaling": 2.0, "embedding_multiplier": 1.5, "residual_multiplier": 0.5},
    "mistral": {"sliding_window": WINDOW},
    "gemma3_text": {  # one layer with a window, one without
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 8,
    },
}
SLIDING = [name for name, extra in LMS.items() if "sliding_window" in extra]


def some_lm(
    name: str, vocab: int, eos: int, window: int = WINDOW, layers: int = 2
) -> LanguageModel:
    extra = dict(LMS[name])
    if "sliding_window" in extra:
        extra["sliding_window"] = window
    if "layer_types" in extra:
        extra["layer_types"] = extra["layer_types"] * (layers // 2)
    sizes = {
        **SIZES,
        "num_hidden_layers": layers,
        "vocab_size": vocab,
        "eos_token_id": eos,
        **extra,
    }
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes)).eval()
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3.0)
    return LanguageModel.of(lm)


def model_with(name: str, keys: dict | None = None, window: int = WIDE) -> AudioLLM:
    model = learning_model(keys)
    model.llm = some_lm(name, model.tokenizer.vocab_size, model.tokenizer.eos_id, window)
    return model


def step_of(name: str, utterances: list[Utterance], share: str):
    model = model_with(name, {"rl.share_prefix": share})
    grpo = learner(model, optimizer=Recorder(model))
    output = grpo.step(0, utterances, 1.0)
    return grpo.optimizer.gradients[-1], output


@pytest.mark.parametrize("name", LMS)
def test_a_shared_prefix_is_a_plain_one(name: str, utterances) -> None:
    """Rollout, log-probabilities and gradients, with prefixes of unlike lengths in one batch."""
    plain, output = step_of(name, utterances, "never")
    shared, other = step_of(name, utterances, "always")
    close(shared, plain)
    assert other.completions == output.completions
    for metrics in (output.metrics, other.metrics):
        assert metrics["sampling/sampling_logp_difference/mean"] < 1e-5
        assert metrics["completions/mean_length"] > 2


@pytest.mark.parametrize("name", LMS)
def test_what_is_sampled_is_scored_by_the_lms_own_forward(name: str, utterances) -> None:
    """A response at a time, without batch, padding or cache."""
    model = model_with(name)
    batch = learner(model).collect(0, utterances[:3], Phases(model.device))
    rollout, group = batch.rollout, model.recipe.rl.num_generations
    with torch.no_grad():
        for i in range(len(rollout)):
            prefix = model.prefix([batch.conditions[i // group]]).embeds[0]
            ids = rollout.tokens[i][rollout.mask[i]]
            embeds = torch.cat([prefix, model.llm.embed(ids)])
            logits = model.llm(embeds[None])[0, len(prefix) - 1 : -1]
            logp = logits.masked_fill(model.forbidden, -torch.inf).log_softmax(-1)
            expected = logp[torch.arange(len(ids)), ids]
            actual = rollout.logps[i][rollout.mask[i]]
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SLIDING)
def test_the_window_is_at_work(name: str, utterances) -> None:
    """So that it matters: without one the LM says something else."""
    found = []
    for window in (WINDOW, WIDE):
        model = model_with(name, window=window)
        frames = learner(model).conditions.get(utterances[3:4])
        prefix = model.prefix(frames)
        assert prefix.embeds.size(1) > 2 * WINDOW
        with torch.no_grad():
            found.append(model.llm(prefix.embeds)[0, -1].log_softmax(-1))
    assert (found[0] - found[1]).abs().max() > 1e-2


@pytest.mark.parametrize("name", SLIDING)
def test_an_lm_that_looks_back_too_few_tokens_is_refused(name: str, utterances) -> None:
    model = model_with(name, window=WINDOW)
    with pytest.raises(UserError, match=rf"^llm: a {name} looks back {WINDOW} tokens, and prefix"):
        learner(model).step(0, utterances, 1.0)


def forgetting(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """As if an LM kept something else in its cache than what its layers need."""
    original = LanguageModel.prefill

    inside = []
    states = LanguageModel.response_states

    def response_states(lm: LanguageModel, *arguments, **options) -> Tensor:
        inside.append(True)
        try:
            return states(lm, *arguments, **options)
        finally:
            inside.pop()

    def prefill(lm: LanguageModel, prefix: Prefix) -> tuple[Tensor, object]:
        hidden, cache = original(lm, prefix)
        if inside:  # the rollout keeps what it needs
            cache.layers[0].values = cache.layers[0].values * value
        return hidden, cache

    monkeypatch.setattr(LanguageModel, "prefill", prefill)
    monkeypatch.setattr(LanguageModel, "response_states", response_states)


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_an_lm_whose_cache_is_not_enough_is_refused(value: float, utterances, monkeypatch) -> None:
    forgetting(monkeypatch, value)
    longest = max(utterances, key=lambda u: u.duration)  # the first of the micro-batch
    words = (
        r"^rl\.share_prefix: with this LM a shared prefix changes log-probabilities by up to "
        rf"\S+ \({longest.id}\); set rl\.share_prefix: never\.$"
    )
    with pytest.raises(UserError, match=words):
        one_step(utterances, {"rl.share_prefix": "always"})
    one_step(utterances, {"rl.share_prefix": "never"})


def test_sharing_is_checked_once_and_only_where_it_is_used(utterances, monkeypatch) -> None:
    checked = []
    original = Passes._check_sharing

    def watching(self, prefix, batch):
        checked.append(len(batch.utterances))
        return original(self, prefix, batch)

    monkeypatch.setattr(Passes, "_check_sharing", watching)
    model = learning_model({"rl.share_prefix": "always", "rl.micro_batch_tokens": 1})
    grpo = learner(model)
    for step in range(2):
        grpo.step(step, utterances, 1.0)
    assert checked == [1]
    one_step(utterances, {"rl.share_prefix": "never"})
    assert checked == [1]
