"""Training of a speech LM: it learns, goes on to the bit, and says what its inputs lack."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from deaths import after, before, killed
from pretrained_speech import FACTS, save_llasa
from runs import lines, outcome
from tiny import sentences, write_set
from tiny_speech import CODEC, hear, say, tiny_speech_config, write_speech_set

from audiorl.bin import train_sft as command
from audiorl.config.training import SFTConfig
from audiorl.data.speech_tokens import write_tokens
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer.speak import speak
from audiorl.models.policy import Policy, load_policy
from audiorl.models.voice import Voice
from audiorl.runs import checkpoint
from audiorl.runs.checkpoint import BestWeights, Checkpoints
from audiorl.runs.reporter import Reporter
from audiorl.tasks import make_task, speech_warm_start
from audiorl.tasks.speech_warm_start import (
    Example,
    dev_loss,
    examples,
    sayable,
)
from audiorl.tasks.task import Folders
from audiorl.text.align import Counts, count_errors
from audiorl.train.sft import train_sft

SHORT = {
    "sft.schedule.max_steps": 8,
    "sft.batch_tokens": 200,
    "sft.schedule.gradient_accumulation_steps": 2,
    "sft.schedule.learning_rate": 5e-3,
    "sft.schedule.muon_learning_rate": 5e-3,
    "sft.schedule.warmup_steps": 3,
    "sft.schedule.eval_steps": 3,
    "sft.schedule.save_steps": 2,
    "sft.schedule.logging_steps": 1,
    "sft.schedule.average": 2,
    "llm.dropout": 0.1,
}


class Corpus:
    """A folder with dump/{train,dev} and codec/tokens/{train,dev}."""

    def __init__(self, root: Path, train: int = 20) -> None:
        self.dump, self.codec = root / "dump", root / "codec"
        write_speech_set(self.dump, self.codec, "train", sentences(train, seed=21, longest=2))
        write_speech_set(self.dump, self.codec, "dev", sentences(4, seed=22, longest=2))

    def run(self, out: Path, keys: dict[str, Any] | None = None) -> None:
        config = tiny_speech_config({**SHORT, **(keys or {})})
        train_sft(make_task(config, Folders(self.dump, self.codec)), out)

    def spoil(self, name: str, old: str, new: str) -> None:
        path = self.dump / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def spoilt(tmp_path: Path) -> Corpus:
    """A corpus of its own."""
    return Corpus(tmp_path)


def test_it_learns_to_speak(tmp_path: Path) -> None:
    """New sentences of the toy language, from scratch, at the pace of each speaker."""
    corpus = Corpus(tmp_path, train=300)
    keys = {
        "tokenizer.type": "char",
        "sft.schedule.max_steps": 160,
        "sft.batch_tokens": 400,
        "sft.schedule.gradient_accumulation_steps": 1,
        "sft.schedule.learning_rate": 1e-2,
        "sft.schedule.muon_learning_rate": 2e-2,
        "sft.schedule.eval_steps": 80,
        "sft.schedule.save_steps": 1000,
        "sft.schedule.average": 1,
        "llm.dropout": 0.0,
    }
    corpus.run(tmp_path / "exp", keys)
    metrics = lines(tmp_path / "exp" / "metrics.jsonl")
    losses = [m["loss"] for m in metrics if "loss" in m]
    assert losses[-1] < 0.3 * losses[0]
    evaluations = [m for m in metrics if "eval/loss" in m]
    assert [m["step"] for m in evaluations] == [80, 160]
    best = min(evaluations, key=lambda m: m["eval/loss"])
    assert best["eval/unfinished_ratio"] < 0.5
    assert best["eval/perplexity"] == pytest.approx(math.exp(best["eval/loss"]), rel=1e-4)
    model = load_policy(tmp_path / "exp" / "model")
    assert model.facts.speakers == ("s0", "s1", "s2")
    dev = examples_of(model, corpus)
    assert dev_loss(model, dev, SFTConfig()) == pytest.approx(best["eval/loss"], rel=1e-4)
    utterances = [example.utterance for example in dev]
    spoken = speak(PolicyEngine(model), utterances, tiny_speech_config().decode, seed=0)
    heard = hear(spoken[u.id].tokens for u in utterances)
    pairs = [(u.text.split(), text.split()) for u, text in zip(utterances, heard, strict=True)]
    assert sum((count_errors(*pair) for pair in pairs), Counts()).rate < 0.5
    texts = [(u.text, u.speaker) for u in read_utterances(corpus.dump / "train")]
    mean = sum(len(say(*text)) for text in texts) / sum(len(text) for text, _ in texts)
    assert model.facts.tokens_per_character == pytest.approx(mean)


def examples_of(model, corpus: Corpus) -> list[Example]:
    utterances = read_utterances(corpus.dump / "dev")
    return examples(model, utterances, {u.id: say(u.text, u.speaker) for u in utterances})


def test_the_dev_loss_is_the_mean_over_all_tokens(corpus: Corpus, tmp_path: Path) -> None:
    corpus.run(tmp_path, {"sft.schedule.max_steps": 1})
    model = load_policy(tmp_path / "model")
    total = count = 0
    for example in examples_of(model, corpus):
        loss = model.supervised_loss([example.condition], [example.tokens])
        total += loss.item() * (len(example.tokens) + 1)
        count += len(example.tokens) + 1
    assert dev_loss(model, examples_of(model, corpus), SFTConfig(batch_tokens=30)) == pytest.approx(
        total / count, rel=1e-5
    )


def test_the_loss_chooses(corpus: Corpus, tmp_path: Path) -> None:
    corpus.run(tmp_path)
    metrics = lines(tmp_path / "metrics.jsonl")
    judged = {m["step"]: m["eval/loss"] for m in metrics if "eval/loss" in m}
    assert list(judged) == [3, 6, 8]
    kept = [int(p.stem[5:]) for p in sorted((tmp_path / "checkpoints").glob("best_*"))]
    assert kept == sorted(sorted(judged, key=judged.get)[:2])
    assert "eval/wer" not in metrics[-1]


def test_a_voice_may_be_an_utterance_near_three_seconds(corpus: Corpus, tmp_path: Path) -> None:
    corpus.run(tmp_path, {"speech.speakers": "prompt", "sft.schedule.max_steps": 1})
    model = load_policy(tmp_path / "model")
    train = read_utterances(corpus.dump / "train")
    for name in ("s0", "s1", "s2"):
        theirs = [u for u in train if u.speaker == name]
        near = min(theirs, key=lambda u: abs(len(say(u.text, name)) - 75))
        prompt = model.facts.prompts[name]
        assert isinstance(prompt, Voice)
        assert len(prompt.tokens) == len(say(near.text, name))
        assert prompt.tokens == say(prompt.text, name)


def test_a_prompt_is_another_one_in_each_step(corpus: Corpus) -> None:
    """Never the utterance itself; a step that is taken again has the same."""
    config = tiny_speech_config({**SHORT, "speech.speakers": "prompt", "sft.batch_tokens": 200})
    task = make_task(config, Folders(corpus.dump, corpus.codec))
    learner = task.warm_start(task.sft_inputs())
    layout = learner.model.layout

    def prompts(first: int) -> list[dict[str, tuple[int, ...]]]:
        drawn = []
        batches = learner.batches(first, lambda number: True)
        for _, (utterances, batch) in zip(range(12), batches, strict=False):
            ids = [e.condition.tolist() for e in batch]
            marks = [len(row) - row[::-1].index(layout.speech_offset - 1) for row in ids]
            rows = zip(utterances, ids, marks, strict=True)
            offset = layout.speech_offset
            drawn.append({u.id: tuple(i - offset for i in row[m:]) for u, row, m in rows})
        return drawn

    known = {u.id: u for u in read_utterances(corpus.dump / "train")}
    said = {name: tuple(say(u.text, u.speaker)) for name, u in known.items()}
    found, seen = prompts(0), {}
    for step in found:
        for name, tokens in step.items():
            others = [n for n, u in known.items() if u.speaker == known[name].speaker]
            assert tokens in [said[other] for other in others if other != name]
            seen.setdefault(name, set()).add(tokens)
    assert max(map(len, seen.values())) > 1
    assert prompts(3)[:5] == found[3:8]


def llasa(corpus: Corpus, hub: Path) -> dict[str, Any]:
    """The keys of a pretrained speech LM, with the corpus in its tokens."""
    save_llasa(hub)
    for name in ("train", "dev"):
        tokens = {u.id: say(u.text, u.speaker) for u in read_utterances(corpus.dump / name)}
        info = FACTS["xcodec2"].codec
        write_tokens(corpus.codec / "tokens" / name, tokens, info)
    return {
        "tokenizer.type": "pretrained",
        "llm.pretrained": str(hub),
        "codec.type": "xcodec2",
        "codec.pretrained": "some/xcodec2",
        "speech.layout": "llasa",
        "speech.speakers": "none",
    }


def test_a_pretrained_one_is_taken_as_it_is(spoilt: Corpus, tmp_path: Path) -> None:
    keys = llasa(spoilt, tmp_path / "hub")
    spoilt.run(tmp_path / "exp", {**keys, "sft.schedule.max_steps": 0})
    model = load_policy(tmp_path / "exp" / "model")
    assert model.settings.speech.layout == "llasa"
    spoilt.run(tmp_path / "more", {**keys, "sft.schedule.max_steps": 1})
    later = load_policy(tmp_path / "more" / "model")
    pairs = zip(model.parameters(), later.parameters(), strict=True)
    assert not all(torch.equal(one, two) for one, two in pairs)


@pytest.fixture(scope="module")
def undisturbed(corpus: Corpus, tmp_path_factory) -> dict[str, Any]:
    exp = tmp_path_factory.mktemp("undisturbed") / "exp"
    corpus.run(exp)
    return outcome(exp)


DEATHS = {
    "between checkpoints": after(Reporter, "log", lambda self, at, m: at == 5 and "loss" in m),
    "in an evaluation": before(speech_warm_start, "evaluate_speech", lambda *_: True),
    "after an evaluation": after(BestWeights, "offer", lambda self, step, *_: step == 6),
    "in a checkpoint": before(checkpoint.torch, "save", lambda value, stream: value["step"] == 4),
    "after the last checkpoint": after(Checkpoints, "save", lambda self, step, *_: step == 8),
    "before the model": before(Policy, "save", lambda *_: True),
}


@pytest.mark.parametrize("death", DEATHS)
def test_it_goes_on_to_the_bit(death: str, corpus, undisturbed, tmp_path: Path) -> None:
    killed(lambda: corpus.run(tmp_path / "exp"), DEATHS[death])
    corpus.run(tmp_path / "exp")
    assert outcome(tmp_path / "exp") == undisturbed


def test_a_complete_run_is_left(corpus: Corpus, tmp_path: Path) -> None:
    corpus.run(tmp_path, {"sft.schedule.max_steps": 1})
    made = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    corpus.run(tmp_path, {"sft.schedule.max_steps": 1})
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == made


def refused(corpus: Corpus, out: Path, message: str, keys: dict[str, Any] | None = None) -> None:
    """The run says this one sentence before it trains."""
    with pytest.raises(UserError, match=message) as raised:
        corpus.run(out, keys)
    assert "\n" not in str(raised.value)
    assert not (out / "metrics.jsonl").exists()


def test_an_empty_text(spoilt: Corpus, tmp_path: Path) -> None:
    text = (spoilt.dump / "train" / "text").read_text().splitlines()[3]
    spoilt.spoil("train/text", text, text.split()[0])
    refused(spoilt, tmp_path / "exp", rf"^{text.split()[0]}: the text is empty; remove")


def test_a_character_that_training_does_not_have(spoilt: Corpus, tmp_path: Path) -> None:
    name, *words = (spoilt.dump / "dev" / "text").read_text().splitlines()[0].split()
    spoilt.spoil("dev/text", f"{name} {words[0]}", f"{name} {words[0]}%")
    refused(spoilt, tmp_path / "exp", rf"^{name}: the speech LM never read % \(U\+0025\); spell")


@pytest.mark.parametrize("part", ["train", "dev"])
@pytest.mark.parametrize("missing", [True, False])
def test_an_utterance_without_tokens(part: str, missing: bool, spoilt, tmp_path: Path) -> None:
    tokens = {u.id: say(u.text, u.speaker) for u in read_utterances(spoilt.dump / part)}
    victim = list(tokens)[2]
    if missing:
        del tokens[victim]
    else:
        tokens[victim] = []
    write_tokens(spoilt.codec / "tokens" / part, tokens, CODEC)
    count = len(read_utterances(spoilt.dump / part))
    message = rf"/{part}/tokens has no tokens for 1 of {count} utterances, {victim} first; run"
    refused(spoilt, tmp_path / "exp", message)


@pytest.mark.parametrize(
    "change", [{"token_rate": 50.0}, {"codebook_size": 99}, {"fingerprint": "other"}]
)
def test_tokens_of_two_codecs(change: dict[str, Any], spoilt: Corpus, tmp_path: Path) -> None:
    tokens = {u.id: say(u.text, u.speaker) for u in read_utterances(spoilt.dump / "dev")}
    write_tokens(spoilt.codec / "tokens" / "dev", tokens, {**CODEC, **change})
    message = r"/codec/tokens/dev (has|and) .*/codec/tokens/train .*; run audiorl\.bin\.speech_tok"
    refused(spoilt, tmp_path / "exp", message)


def test_speech_longer_than_the_lm(spoilt: Corpus, tmp_path: Path) -> None:
    tokens = {u.id: say(u.text, u.speaker) for u in read_utterances(spoilt.dump / "train")}
    tokens["s1-train001"] = [3] * 4096
    write_tokens(spoilt.codec / "tokens" / "train", tokens, CODEC)
    message = r"^s1-train001: text and speech have 41\d\d positions, and the LM has 4096; lower"
    refused(spoilt, tmp_path / "exp", message)


def write_texts(folder: Path, *texts: str) -> None:
    """A set of texts alone."""
    for i, u in enumerate(write_set(folder, ["ba"] * len(texts))):
        table = folder / "text"
        table.write_text(table.read_text().replace(f"{u.id} ba\n", f"{u.id} {texts[i]}\n"))
    (folder / "wav.scp").unlink()
    (folder / "utt2dur").unlink()


LATER = {"data.rl": "rl", "data.rl_dev": "rl_dev", "data.test": ["test", "not_there"]}


@pytest.mark.parametrize("name", ["rl", "rl_dev", "test"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty; remove"),
        ("ba 7", r"the speech LM never read 7 \(U\+0037\); spell"),
        (
            "ba " * 30 + "do",
            r"the text of 92 characters needs about \d+ tokens of speech, and max_",
        ),
    ],
)
def test_a_text_that_a_later_stage_would_refuse(
    name: str, text: str, message: str, spoilt: Corpus, tmp_path: Path
) -> None:
    """Stages 4, 5 and 6 would, but only after this training."""
    for other in ("rl", "rl_dev", "test"):
        write_texts(spoilt.dump / other, "ba do", text if other == name else "ki", "lu")
    message = rf"^{spoilt.dump}/{name}: s1-{name}001: {message}"
    refused(spoilt, tmp_path / "exp", message, LATER)


@pytest.mark.parametrize(
    ("text", "message"),
    [("...", "nothing of its text is spoken"), ("ba 7", r".* the reward model never read: 7 ")],
)
def test_an_rl_text_that_the_reward_model_cannot_read(
    text: str, message: str, spoilt: Corpus, tmp_path: Path
) -> None:
    """A tokenizer that comes with its LM reads everything, the reward model does not."""
    keys = {**LATER, **llasa(spoilt, tmp_path / "hub"), "sft.schedule.max_steps": 0}
    write_texts(spoilt.dump / "test", text)  # it is not rewarded
    spoilt.run(tmp_path / "fine", keys)
    write_texts(spoilt.dump / "rl", text)
    refused(spoilt, tmp_path / "exp", f"^{spoilt.dump}/rl: s0-rl000: {message}", keys)


def test_rl_texts_have_the_room_of_rl(spoilt: Corpus, tmp_path: Path) -> None:
    message = r"/dump/train: s\d-train\d+: the text of .* and max_completion_length is 5; split"
    refused(spoilt, tmp_path / "exp", message, {"rl.max_completion_length": 5})


def test_what_is_fine_for_later_stages_is_accepted(spoilt: Corpus, tmp_path: Path) -> None:
    for name in ("rl", "rl_dev", "test"):
        write_texts(spoilt.dump / name, "ba do", "ki")
    spoilt.run(tmp_path / "exp", {**LATER, "sft.schedule.max_steps": 1})
    assert (tmp_path / "exp" / "model" / "model.safetensors").exists()


def test_texts_beyond_their_recordings_are_left_out(spoilt: Corpus, tmp_path: Path) -> None:
    """1,980 characters are not what is said in two seconds."""
    victim = read_utterances(spoilt.dump / "train")[3]
    spoilt.spoil("train/text", f"{victim.id} {victim.text}\n", f"{victim.id} {'ba do ' * 330}\n")
    keys = {"sft.schedule.max_steps": 1, "data.rl": "dev"}
    spoilt.run(tmp_path / "exp", keys)
    kept = "speech LM: kept 19 of 20 utterances; the others have more than 60 characters to a sec"
    assert kept in (tmp_path / "exp" / "train.log").read_text()
    model = load_policy(tmp_path / "exp" / "model")
    others = [u for u in read_utterances(spoilt.dump / "train") if u.id != victim.id]
    mean = sum(len(say(u.text, u.speaker)) for u in others) / sum(len(u.text) for u in others)
    assert model.facts.tokens_per_character == pytest.approx(mean)
    table = spoilt.dump / "train" / "text"
    table.write_text(re.sub(r"(?m)^(\S+) .*$", r"\1 " + "ba do " * 330, table.read_text()))
    message = r"^no utterance has speech as long as its text: .* 25 tokens a second\.$"
    refused(spoilt, tmp_path / "none", message, keys)


def test_the_fastest_talkers_are_kept() -> None:
    made = [utterance(f"u{n}", n) for n in (119, 120, 121)]
    tokens = {u.id: [1] * 50 for u in made}  # 2 s
    assert [len(u.text) for u in sayable(made, tokens, 25.0)] == [119, 120]


def utterance(name: str, characters: int) -> Utterance:
    return Utterance(name, "", "a" * characters, "s0")


def test_a_dev_text_that_cannot_be_said_in_time(corpus: Corpus, tmp_path: Path) -> None:
    message = r"^s\d-dev00\d: the text of \d+ characters needs about \d+ tokens of speech, and max_"
    refused(corpus, tmp_path, message, {"decode.max_completion_length": 3})


def test_other_tokens_are_other_inputs(spoilt: Corpus, tmp_path: Path) -> None:
    spoilt.run(tmp_path / "exp", {"sft.schedule.max_steps": 1})
    tokens = {u.id: say(u.text, u.speaker) for u in read_utterances(spoilt.dump / "train")}
    tokens["s0-train000"] = [1, 2]
    write_tokens(spoilt.codec / "tokens" / "train", tokens, CODEC)
    with pytest.raises(UserError, match=r"begun with other inputs .*\(train_tokens changed\)"):
        spoilt.run(tmp_path / "exp", {"sft.schedule.max_steps": 1})


def test_the_command_trains_by_task(corpus: Corpus, tmp_path: Path, monkeypatch) -> None:
    from audiorl.config import dump_config

    (tmp_path / "c.yaml").write_text(
        dump_config(tiny_speech_config({**SHORT, "sft.schedule.max_steps": 1}))
    )
    arguments = ["--config", str(tmp_path / "c.yaml"), "--dump", str(corpus.dump)]
    arguments += ["--out", str(tmp_path / "exp")]
    monkeypatch.setattr(sys, "argv", ["train_sft", *arguments])
    with pytest.raises(UserError, match="name it with --codec"):
        command.main()
    monkeypatch.setattr(sys, "argv", ["train_sft", *arguments, "--codec", str(corpus.codec)])
    command.main()
    assert load_policy(tmp_path / "exp" / "model").task == "tts"
