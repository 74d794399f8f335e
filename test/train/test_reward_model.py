"""The reward model learns to read tokens, goes on after a kill, and refuses what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deaths import after, before, killed
from runs import lines, outcome
from tiny import sentences, write_set
from tiny_speaker import speech_config

from audiorl.data.speech_tokens import CodecInfo, write_tokens
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.models.token_recogniser import TEXT, RewardModelSettings, TokenRecogniser
from audiorl.runs.checkpoint import Checkpoints
from audiorl.runs.reporter import Reporter
from audiorl.text.normalise import spoken
from audiorl.train import reward_model, supervised, token_noise
from audiorl.train.reward_model import collect_facts, train_reward_model

CODEC = CodecInfo(kind="native", fingerprint="abc", codebook_size=60, token_rate=25.0)
KEYS = {
    "reward_model.schedule.max_steps": 8,
    "reward_model.schedule.eval_steps": 3,
    "reward_model.batch_seconds": 3.0,
    "reward_model.schedule.warmup_steps": 2,
    "reward_model.encoder.dropout_rate": 0.1,
    "reward_model.schedule.muon_learning_rate": 5e-3,
    "reward_model.tasks": ["speaker", "rate"],
}
LEARNING = {
    **KEYS,
    "reward_model.encoder.output_size": 32,
    "reward_model.schedule.max_steps": 60,
    "reward_model.schedule.eval_steps": 30,
    "reward_model.schedule.learning_rate": 1e-2,
    "reward_model.schedule.muon_learning_rate": 2e-2,
    "reward_model.batch_seconds": 8.0,
}


def speak(utterance: Utterance, seed: int) -> list[int]:
    """Each letter as one to three tokens of its own, another for each half of the speakers."""
    draw = np.random.default_rng([seed, *utterance.id.encode()])
    accent = 30 * (utterance.speaker == "s1")
    letters = (" abcdefghijklmnopqrstuvwxyz".index(c) for c in spoken(utterance.text))
    return [accent + letter for letter in letters for _ in range(draw.integers(1, 4))]


class Spoken:
    """dump/{train,dev} and their tokens."""

    def __init__(self, root: Path, count: int = 40) -> None:
        self.dump, self.tokens = root / "dump", root / "tokens"
        for seed, (name, size) in enumerate({"train": count, "dev": 6}.items()):
            found = write_set(self.dump / name, sentences(size, seed=31 + seed, longest=4), seed)
            write_tokens(self.tokens / name, {u.id: speak(u, seed) for u in found}, CODEC)

    def train(self, out: Path, keys: dict[str, Any] | None = None) -> None:
        train_reward_model(speech_config({**KEYS, **(keys or {})}), self.dump, self.tokens, out)


@pytest.fixture(scope="module")
def spoken_corpus(tmp_path_factory) -> Spoken:
    return Spoken(tmp_path_factory.mktemp("spoken"))


def test_it_learns_to_read(spoken_corpus: Spoken, tmp_path: Path) -> None:
    spoken_corpus.train(tmp_path, LEARNING)
    metrics = lines(tmp_path / "metrics.jsonl")
    errors = [m["eval/cer"] for m in metrics if "eval/cer" in m]
    assert min(errors) < 0.2
    last = metrics[-1]
    assert last["eval/speaker_accuracy"] >= 0.5
    assert 0 <= last["eval/rate_accuracy"] <= 1
    losses = [m for m in metrics if "loss_text" in m]
    assert losses[-1]["loss_text"] < 0.5 * losses[0]["loss_text"]
    model = TokenRecogniser.load(tmp_path / "model")
    assert model.facts.codec == CODEC
    dev = read_utterances(spoken_corpus.dump / "dev")
    right = {u.id: speak(u, 1) for u in dev}
    tokens, lengths = model.pad([right[u.id] for u in dev])
    texts = [u.text for u in dev]
    own = model.log_likelihood(model.embed(tokens), lengths, texts)
    others = model.log_likelihood(model.embed(tokens), lengths, texts[1:] + texts[:1])
    assert (own > others).all()


def test_noise_makes_it_more_robust(spoken_corpus: Spoken, tmp_path: Path, monkeypatch) -> None:
    """Trained with mixing and noise, it loses less when the embeddings are disturbed."""
    quiet = dict.fromkeys(("SWAPPED", "MIXED", "EMBEDDING_NOISE"), 0.0)
    losses = {}
    for name, noise in {"robust": {"MIXED": 0.5}, "plain": quiet}.items():
        for constant, value in noise.items():
            monkeypatch.setattr(token_noise, constant, value)
        spoken_corpus.train(tmp_path / name, {**LEARNING, "reward_model.schedule.max_steps": 40})
        model = TokenRecogniser.load(tmp_path / name / "model")
        dev = read_utterances(spoken_corpus.dump / "dev")
        tokens, lengths = model.pad([speak(u, 1) for u in dev])
        embedded = model.embed(tokens)
        torch.manual_seed(0)
        noisy = embedded + 0.5 * embedded.std() * torch.randn_like(embedded)
        texts = [u.text for u in dev]
        before, after = (model.log_likelihood(e, lengths, texts).sum() for e in (embedded, noisy))
        losses[name] = (before - after).item()
    assert losses["robust"] < losses["plain"]


def logged(step: int):
    return after(Reporter, "log", lambda self, at, metrics: at == step)


DEATHS = {
    "before the first checkpoint": before(
        supervised, "update", lambda task, optimizer, batch, step, *_: step == 1
    ),
    "in an evaluation": before(
        reward_model, "evaluate", lambda model, dev, tokens, step, reporter: step == 6
    ),
    "after a checkpoint": after(Checkpoints, "save", lambda self, step, *_: step == 6),
    "after the last step": logged(8),
}


@pytest.fixture(scope="module")
def undisturbed(spoken_corpus: Spoken, tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    spoken_corpus.train(folder)
    return outcome(folder)


@pytest.mark.parametrize("death", DEATHS)
def test_it_goes_on_to_the_bit(
    death: str, spoken_corpus: Spoken, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    killed(lambda: spoken_corpus.train(tmp_path / "exp"), DEATHS[death])
    assert not (tmp_path / "exp" / "model" / "model.safetensors").exists()
    spoken_corpus.train(tmp_path / "exp")
    assert outcome(tmp_path / "exp") == undisturbed
    spoken_corpus.train(tmp_path / "exp")  # complete: nothing to do
    assert outcome(tmp_path / "exp") == undisturbed


def test_the_loss_is_the_mean_over_utterances(spoken_corpus: Spoken) -> None:
    """Per character, so that a long utterance weighs as much as a short one."""
    config = speech_config({**KEYS, "reward_model.encoder.dropout_rate": 0.0})
    train = read_utterances(spoken_corpus.dump / "train")[:5]
    tokens = {u.id: speak(u, 0) for u in train}
    torch.manual_seed(0)
    model = TokenRecogniser(
        RewardModelSettings.of(config), collect_facts(config, train, tokens, CODEC)
    ).eval()
    padded, lengths = model.pad(list(tokens.values()))
    loss, parts = reward_model.reading_loss(
        model, model.embed(padded), lengths, train, config.reward_model.tasks
    )
    texts, tasks = 0.0, 0.0
    for u in train:
        row, n = model.pad([tokens[u.id]])
        classes = {t: [model.class_of(t, u, len(tokens[u.id]))] for t in ("speaker", "rate")}
        found = model.log_likelihoods(model.embed(row), n, [u.text], classes, 0.1)
        texts -= found.pop(TEXT).item() / (len(u.text) + 1) / 5
        tasks -= sum(value.item() for value in found.values()) / 5
    assert parts["loss_text"].item() == pytest.approx(texts, rel=1e-4)
    assert loss.item() == pytest.approx(texts + 0.1 * tasks, rel=1e-4)


def test_a_third_of_the_rates_is_normal(spoken_corpus: Spoken) -> None:
    config = speech_config(KEYS)
    train = read_utterances(spoken_corpus.dump / "train")
    tokens = {u.id: speak(u, 0) for u in train}
    model = TokenRecogniser(
        RewardModelSettings.of(config), collect_facts(config, train, tokens, CODEC)
    )
    rates = [model.class_of("rate", u, len(tokens[u.id])) for u in train]
    assert all(10 <= rates.count(rate) <= 17 for rate in ("slow", "normal", "fast"))
    pace = [len(u.text) / len(tokens[u.id]) for u in train]
    fastest = max(range(40), key=pace.__getitem__)
    assert rates[fastest] == "fast"


def test_what_has_too_few_tokens_is_left_out_and_counted(tmp_path: Path) -> None:
    corpus = Spoken(tmp_path, 12)
    train = read_utterances(corpus.dump / "train")
    tokens = {u.id: speak(u, 0) for u in train}
    for u in sorted(train, key=lambda u: len(u.text))[-3:]:
        tokens[u.id] = tokens[u.id][:1]
    write_tokens(corpus.tokens / "train", tokens, CODEC)
    corpus.train(tmp_path / "exp", {"reward_model.schedule.max_steps": 2})
    assert "9 of 12 utterances kept" in (tmp_path / "exp" / "train.log").read_text()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    corpus = Spoken(tmp_path, 12)
    with pytest.raises(UserError, match=r"^s\d-train000 has no style; add it to utt2style"):
        corpus.train(tmp_path / "a", {"reward_model.tasks": ["style"]})
    with pytest.raises(UserError, match=r"cannot be read .* run audiorl.bin.speech_tokens again"):
        train_reward_model(speech_config(KEYS), corpus.dump, tmp_path, tmp_path / "b")
    dev = read_utterances(corpus.dump / "dev")
    spoken_dev = {u.id: speak(u, 1) for u in dev}
    write_tokens(corpus.tokens / "dev", spoken_dev, {**CODEC, "fingerprint": "new"})
    with pytest.raises(UserError, match=r"dev and .*/train are of two trainings of the codec; run"):
        corpus.train(tmp_path / "c")
    del spoken_dev[dev[2].id], spoken_dev[dev[4].id]
    write_tokens(corpus.tokens / "dev", spoken_dev, CODEC)
    with pytest.raises(UserError, match=rf"no tokens for 2 of 6 utterances, {dev[2].id} first"):
        corpus.train(tmp_path / "d")
