"""Stage 4 of synthesis: which texts RL gets, along what it learns, and what is built again."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deaths import after, before, killed
from tiny import WORDS, sentences, write_set
from tiny_codecs import native_codec
from tiny_speaker import SPEECH
from tiny_speech import CODEC, tiny_speech_config, tiny_speech_lm

from audiorl.bin import build_rl_data, cli, train_rl
from audiorl.config import dump_config
from audiorl.config.rewards import reward_options
from audiorl.data.speech_tokens import read_tokens
from audiorl.data.tables import read_table
from audiorl.data.utterance import read_utterances
from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer.speak import Spoken, speak
from audiorl.models.codec import codec_info
from audiorl.models.token_recogniser import RecogniserFacts, RewardModelSettings, TokenRecogniser
from audiorl.rl_data import speech
from audiorl.rl_data.speech import build_speech_rl_set
from audiorl.runtime.stamps import Stamp
from audiorl.text import detectors

SETS = {"data.rl": "rl", "data.test": ["test"]}
TEXTS = ["ba do", "ki lu me", "no pa", "ri so tu", "ba ba ba", "tu ki"]
NAMES = [f"s{i % 3}-rl{i:03d}" for i in range(len(TEXTS))]


def write_texts(folder: Path, texts: list[str]) -> None:
    """A formatted set without recordings."""
    write_set(folder, texts)
    for path in (folder / "wav.scp", folder / "utt2dur", *folder.glob("*.wav")):
        path.unlink()


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    folder = tmp_path / "dump"
    write_texts(folder / "rl", TEXTS)
    write_texts(folder / "dev", ["lu lu"])
    write_texts(folder / "test", ["No  pa!"])
    (folder / "weights").touch()  # of which only the hash matters here
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The ids of each time that something was spoken."""
    found: list[list[str]] = []

    def watched(engine, utterances, *arguments) -> dict[str, Spoken]:
        found.append([u.id for u in utterances])
        return speak(engine, utterances, *arguments)

    monkeypatch.setattr(speech, "speak", watched)
    return found


@pytest.fixture
def saying(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the start model say these, in the order of NAMES."""

    def say(*found: Spoken) -> None:
        spoken = dict(zip(NAMES, found, strict=True))
        monkeypatch.setattr(speech, "speak", lambda *_: spoken)

    return say


def build(dump: Path, out: Path, keys: dict | None = None, policy: str = "exp/sft") -> None:
    config = tiny_speech_config({**SETS, **(keys or {})})
    model = tiny_speech_lm(spread=3.0)
    build_speech_rl_set(PolicyEngine(model), policy, dump / "weights", config, dump, out)


def contents(folder: Path) -> dict[str, bytes]:
    """All that a build leaves."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def kept_ids(folder: Path) -> list[str]:
    """The ids of the set, which are those of its histories."""
    tokens, _ = read_tokens(folder / "tokens")
    assert list(tokens) == [u.id for u in read_utterances(folder / "rl.jsonl", texts_alone=True)]
    return list(tokens)


def test_texts_and_what_the_start_model_speaks_of_them(dump: Path, tmp_path: Path, capsys) -> None:
    build(dump, tmp_path / "out" / "rl.jsonl")
    utterances = read_utterances(dump / "rl", texts_alone=True)
    spoken = speak(
        PolicyEngine(tiny_speech_lm(spread=3.0)), utterances, tiny_speech_config(SETS).decode, 1
    )
    (cut,) = (name for name, found in spoken.items() if not found.finished)
    assert kept_ids(tmp_path / "out") == [name for name in sorted(NAMES) if name != cut]
    tokens, info = read_tokens(tmp_path / "out" / "tokens")
    assert tokens == {name: spoken[name].tokens for name in tokens}
    assert info == CODEC
    texts = {u.id: u.text for u in utterances}
    for line in map(json.loads, open(tmp_path / "out" / "rl.jsonl", encoding="utf-8")):
        assert (line["audio"], line["text"]) == ("", texts[line["id"]])
        assert line["duration"] == len(tokens[line["id"]]) / 25
        assert line["provenance"] == {"set": "rl", "policy": "exp/sft", "seed": 1}
    assert capsys.readouterr().out == (
        "kept 6 of 6 utterances of rl (0 are in dev or test by id, 0 by text)\n"
        "rl: kept 5 of 6 texts (1 without an end)\n"
    )


def test_recordings_last_as_long_as_they_do(dump: Path, tmp_path: Path) -> None:
    shutil.rmtree(dump / "rl")
    written = {u.id: u for u in write_set(dump / "rl", TEXTS)}
    build(dump, tmp_path / "out" / "rl.jsonl")
    kept = read_utterances(tmp_path / "out" / "rl.jsonl")
    assert len(kept) == 5 and kept == [written[u.id] for u in kept]


def test_speech_that_is_no_history_is_left_out_and_counted(
    dump: Path, tmp_path: Path, saying, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(detectors, "LOOP_TOKENS", 10)
    good = list(range(9))
    saying(
        Spoken([], True),
        Spoken([5, 7] * 5, True),
        Spoken([*good, *[3] * 9], True),  # a pause is shorter than a loop
        Spoken([3] * 40, False),
        Spoken(good, True),
        Spoken(good, False),
    )
    build(dump, tmp_path / "out" / "rl.jsonl")
    assert kept_ids(tmp_path / "out") == sorted([NAMES[2], NAMES[4]])
    told = "rl: kept 2 of 6 texts (1 empty, 1 looping, 2 without an end)\n"
    assert capsys.readouterr().out.endswith(told)


def test_nothing_is_left_out_without_a_reason(dump: Path, tmp_path: Path, saying, capsys) -> None:
    saying(*[Spoken([1, 2], True)] * 6)
    build(dump, tmp_path / "out" / "rl.jsonl")
    assert capsys.readouterr().out.endswith("rl: kept 6 of 6 texts\n")


def test_what_is_held_out_is_not_spoken(dump: Path, tmp_path: Path, calls, capsys) -> None:
    """`No  pa!` of the test set is `no pa` as it is scored."""
    keys = {"score.normalizer": "english", "data.rl_dev": "rl_dev"}
    write_texts(dump / "rl_dev", ["lu me"])
    for file in ("text", "utt2spk"):
        table = (dump / "rl_dev" / file).read_text()
        (dump / "rl_dev" / file).write_text(table.replace("s0-rl_dev000", NAMES[0]))
    build(dump, tmp_path / "out" / "rl.jsonl", keys)
    assert calls == [sorted({*NAMES} - {NAMES[0], NAMES[2]})]
    assert set(kept_ids(tmp_path / "out")) <= set(calls[0])
    told = "kept 4 of 6 utterances of rl (1 are in dev or test by id, 1 by text)\n"
    assert capsys.readouterr().out.startswith(told)


def test_no_text_is_left(dump: Path, tmp_path: Path, saying, capsys) -> None:
    saying(*[Spoken([], True)] * 3, *[Spoken([1], False)] * 3)
    message = f"^{dump}/rl: no text is left for RL; train the speech LM for longer\\.$"
    with pytest.raises(UserError, match=message):
        build(dump, tmp_path / "out" / "rl.jsonl")
    assert "rl: kept 0 of 6 texts (3 empty, 3 without an end)\n" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty; remove the utterance"),
        ("ba 7", r"the speech LM never read 7 \(U\+0037\); spell"),
        ("ba " * 9 + "ba", "the text of 29 characters needs about 44 tokens of speech, and max"),
    ],
)
def test_a_text_that_cannot_be_spoken(
    text: str, message: str, dump: Path, tmp_path: Path, calls
) -> None:
    """It is refused before anything is spoken."""
    table = dump / "rl" / "text"
    table.write_text(re.sub(rf"(?m)^{NAMES[4]} .*$", f"{NAMES[4]} {text}", table.read_text()))
    with pytest.raises(UserError, match=f"^{NAMES[4]}: {message}"):
        build(dump, tmp_path / "out" / "rl.jsonl")
    assert not calls and not (tmp_path / "out").exists()


DEATHS = {
    "spoken": after(speech, "speak", lambda *_: True),
    "histories": after(speech, "write_tokens", lambda *_: True),
    "set": before(Stamp, "write", lambda *_: True),
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_killed_build_ends_with_the_same_set(
    death: str, dump: Path, tmp_path: Path, calls
) -> None:
    build(dump, tmp_path / "plain" / "rl.jsonl")
    out = tmp_path / "out" / "rl.jsonl"
    killed(lambda: build(dump, out), DEATHS[death])
    assert not out.with_suffix(".meta.json").exists()
    build(dump, out)
    assert len(calls) == 2
    assert contents(out.parent) == contents(tmp_path / "plain")


@pytest.mark.parametrize("death", DEATHS)
def test_a_killed_build_of_other_settings_leaves_no_mixture(
    death: str, dump: Path, tmp_path: Path
) -> None:
    """Back at the first settings, their set is what it was, not half the other one."""
    out = tmp_path / "out" / "rl.jsonl"
    build(dump, out)
    first = contents(out.parent)
    killed(lambda: build(dump, out, {"seed": 2}), DEATHS[death])
    build(dump, out)
    assert contents(out.parent) == first


def test_what_is_built_is_not_spoken_again(dump: Path, tmp_path: Path, calls, capsys) -> None:
    out = tmp_path / "out" / "rl.jsonl"
    build(dump, out)
    times = [path.stat().st_mtime_ns for path in sorted(out.parent.rglob("*"))]
    capsys.readouterr()
    build(dump, out, {"rl.learning_rate": 1.0, "decode.name": "other", "decode.batch_size": 2})
    assert capsys.readouterr().out == f"{out} is complete: nothing to do\n"
    assert len(calls) == 1
    assert times == [path.stat().st_mtime_ns for path in sorted(out.parent.rglob("*"))]
    out.unlink()
    build(dump, out)
    assert len(calls) == 2 and out.exists()


@pytest.mark.parametrize(
    "keys",
    [
        {"seed": 2},
        {"decode.temperature": 0.5},
        {"data.rl": "twin"},
        {"data.test": []},
        {"data.rl_dev": "more"},
        {"score.normalizer": "english"},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_other_settings_are_built_anew(keys: dict, dump: Path, tmp_path: Path, calls) -> None:
    """What is held out belongs to them: a set with texts of a test set would not be noticed."""
    shutil.copytree(dump / "rl", dump / "twin")  # with the same times
    write_texts(dump / "more", ["so so"])
    build(dump, tmp_path / "out" / "rl.jsonl")
    build(dump, tmp_path / "out" / "rl.jsonl", keys)
    assert len(calls) == 2


@pytest.mark.parametrize("changed", ["weights", "rl/text", "test/text", "dev/text"])
def test_other_inputs_are_built_anew(changed: str, dump: Path, tmp_path: Path, calls) -> None:
    out = tmp_path / "out" / "rl.jsonl"
    build(dump, out)
    path = dump / changed
    os.utime(path, (4e9, 4e9))
    build(dump, out)
    assert len(calls) == 1
    path.write_text(path.read_text().replace("o", "u").replace(" lu\n", " ki\n") or "others")
    os.utime(path, (1, 1))
    build(dump, out)
    assert len(calls) == 2
    build(dump, out, policy="exp/other")
    assert len(calls) == 3


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe's folder with untrained models, behind stage 3; texts alone for RL and its dev."""
    root = tmp_path_factory.mktemp("recipe")
    codec = native_codec()
    codec.save(root / "exp" / "codec" / "model")
    info = codec_info(codec)
    tiny_speech_lm(spread=2.0, codec=info).save(root / "exp" / "sft" / "model")
    letters = "".join(sorted(set(" ".join(WORDS))))
    reward_model = TokenRecogniser(
        RewardModelSettings.of(tiny_speech_config(SPEECH)), RecogniserFacts(info, letters)
    )
    reward_model.save(root / "exp" / "reward_model" / "model")
    write_set(root / "dump" / "train", WORDS[:3])
    write_set(root / "dump" / "dev", WORDS[:2])
    write_texts(root / "dump" / "rl", sentences(12, seed=3, longest=2))
    write_texts(root / "dump" / "rl_dev", ["ba ki lu", "me no so"])
    keys = {
        **SPEECH,
        "data.rl": "rl",
        "data.rl_dev": "rl_dev",
        "rl.max_steps": 1,
        "rl.num_prompts": 3,
        "rl.rewards": [reward_options("likelihood"), reward_options("tempo")],
        "rl.early_stop": "never",
    }
    (root / "c.yaml").write_text(dump_config(tiny_speech_config(keys)))
    return root


@pytest.mark.parametrize("algorithm", ["grpo", "diffro"])
def test_texts_alone_pass_stages_4_and_5(
    algorithm: str, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(recipe)

    def call(command, *arguments: str) -> None:
        options = ["--config", "c.yaml", "--dump", "dump", "--init", "exp/sft"]
        monkeypatch.setattr(sys, "argv", [command.__name__, *options, *arguments])
        cli.run(command.main)

    call(build_rl_data, "--out", "exp/rl/train.jsonl")
    kept = read_utterances("exp/rl/train.jsonl", texts_alone=True)
    assert 3 <= len(kept) < len(read_table(Path("dump/rl/text")))
    assert not any(u.audio for u in kept)
    histories = ["--data", "exp/rl/train.jsonl", "--histories", "exp/rl/tokens"]
    models = ["--codec", "exp/codec", "--reward_model", "exp/reward_model"]
    chosen = ["--set", f"rl.algorithm={algorithm}", "--set", "diffro.history=fixed"]
    capsys.readouterr()
    call(train_rl, *histories, *models, *chosen, "--out", f"exp/{algorithm}")
    metrics = list(map(json.loads, open(f"exp/{algorithm}/metrics.jsonl", encoding="utf-8")))
    (step,) = (line for line in metrics if "loss" in line)
    assert step["grad_norm"] > 0
    assert ("diffro/loss" in step) == (algorithm == "diffro")
    assert [line["step"] for line in metrics if "eval/wer" in line] == [0, 1]
    if algorithm == "grpo":  # whose reward of tempo knows how long the start model spoke
        assert -1 <= step["rewards/tempo/mean"] < 0
    assert (recipe / "exp" / algorithm / "model" / "model.safetensors").exists()
