"""The folder of a run: written once, compared at every restart, resumable by hand."""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_config

from audiorl.config import dump_config, load_config
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.runs.experiment import Experiment, content_hash, resume_command
from audiorl.runtime.files import write_json

KEYS = ("sft.", "llm.")


def opened(folder: Path, keys: dict | None = None) -> Experiment:
    return Experiment(folder, tiny_config(keys), KEYS)


def test_what_a_run_leaves(tmp_path: Path) -> None:
    experiment = opened(tmp_path / "exp" / "sft", {"sft.schedule.max_steps": 7})
    folder = tmp_path / "exp" / "sft"
    assert load_config(folder / "config.yaml") == tiny_config({"sft.schedule.max_steps": 7})
    environment = json.loads((folder / "env.json").read_text())
    assert {"python", "torch", "machine", "cores"} <= environment.keys()
    assert os.access(folder / "run.sh", os.X_OK)
    logging.getLogger("audiorl.somewhere").info("a step")
    assert "INFO a step" in (folder / "train.log").read_text()
    assert experiment.model_folder == folder / "model"
    assert not experiment.is_complete


def test_the_log_goes_on(tmp_path: Path, capsys) -> None:
    opened(tmp_path)
    logging.getLogger("audiorl").info("first")
    opened(tmp_path)
    logging.getLogger("audiorl").info("second")
    assert [line.split()[-1] for line in (tmp_path / "train.log").read_text().splitlines()] == [
        "first",
        "second",
    ]
    assert capsys.readouterr().out == "first\nsecond\n"


def test_what_was_written_once_stays(tmp_path: Path) -> None:
    opened(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in ("config.yaml", "env.json")}
    opened(tmp_path, {"decode.name": "other"})
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    "key",
    [
        ("data.test", ["more"]),
        ("data.no_speech", []),
        ("data.rl", "other"),
        ("decode.method", "nbest"),
        ("decode.name", "beams"),
        ("score.bootstrap_samples", 500),
        ("device", "auto"),
        ("num_threads", 2),
        ("rl.beta", 0.1),
        ("rl_data.drop_flat", True),
    ],
    ids=lambda key: key[0],
)
def test_keys_that_do_not_change_what_is_learnt_are_free(tmp_path: Path, key: tuple) -> None:
    opened(tmp_path)
    opened(tmp_path, dict([key]))


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"sft.schedule.learning_rate": 0.5}, ["sft.schedule.learning_rate: 0.002 -> 0.5"]),
        ({"seed": 2}, ["seed: 1 -> 2"]),
        ({"score.normalizer": "english"}, ["score.normalizer: none -> english"]),
        ({"decode.max_completion_length": 9}, ["decode.max_completion_length: 8 -> 9"]),
        (
            {"llm.hidden_size": 64, "sft.schedule.max_steps": 3},
            ["llm.hidden_size: 32 -> 64", "sft.schedule.max_steps: 1000 -> 3"],
        ),
    ],
)
def test_another_config_is_refused(tmp_path: Path, keys: dict, named: list[str]) -> None:
    opened(tmp_path)
    with pytest.raises(UserError, match="was started with another config") as raised:
        opened(tmp_path, keys)
    for difference in named:
        assert difference in str(raised.value)
    assert str(tmp_path / "config.yaml") in str(raised.value)
    assert "\n" not in str(raised.value)


RESUMABLE = {
    "rl.micro_batch_tokens": 64,
    "rl.save_steps": 7,
    "rl.eval_utterances": 3,
    "rl.reward_workers": 1,
    "rl.rollout_prompts": 2,
    "rl.max_steps": 9,
}


@pytest.mark.parametrize("key", RESUMABLE)
def test_a_run_continues_with_another_speed_or_length(tmp_path: Path, key: str, caplog) -> None:
    Experiment(tmp_path, tiny_config(), ("rl.",))
    changed = tiny_config({key: RESUMABLE[key]})
    for _ in range(2):  # the second time, nothing is new
        Experiment(tmp_path, changed, ("rl.",)).check_inputs()
    (line,) = (tmp_path / "train.log").read_text().splitlines()
    assert "the run continues with another config" in line
    assert f"{key}: " in line and line.endswith(f"-> {RESUMABLE[key]}")
    assert load_config(tmp_path / "config.yaml") == changed


@pytest.mark.parametrize(
    ("common", "reason"),
    [
        ({"rl.lr_scheduler_type": "linear"}, "the learning rate falls to 0"),
        ({"rl.prompt_order": "curriculum"}, "the curriculum draws from all"),
    ],
)
def test_another_length_is_refused_with_the_reason(
    tmp_path: Path, common: dict, reason: str
) -> None:
    Experiment(tmp_path, tiny_config(common), ("rl.",))
    with pytest.raises(UserError, match=rf"rl\.max_steps: \d+ -> 9, but {reason}"):
        Experiment(tmp_path, tiny_config({**common, "rl.max_steps": 9}), ("rl.",))


def test_another_temperature_is_refused(tmp_path: Path) -> None:
    Experiment(tmp_path, tiny_config(), ("rl.",))
    with pytest.raises(UserError, match=r"rl\.temperature"):
        Experiment(tmp_path, tiny_config({"rl.temperature": 0.7}), ("rl.",))


@pytest.mark.parametrize(
    ("steps", "goes_on"), [(9, True), (2, False)], ids=["more steps", "fewer steps"]
)
def test_a_finished_run_goes_on_if_it_is_to_be_longer(
    tmp_path: Path, steps: int, goes_on: bool
) -> None:
    weights = tmp_path / "model" / "model.safetensors"
    Experiment(tmp_path, tiny_config({"rl.max_steps": 5}), ("rl.",)).check_inputs()
    write_json(weights, {})
    config = tiny_config({"rl.max_steps": steps})
    experiment = Experiment(tmp_path, config, ("rl.",))
    assert experiment.is_complete  # other inputs may still be refused
    experiment.check_inputs()
    assert experiment.is_complete != goes_on
    assert (load_config(tmp_path / "config.yaml").rl.max_steps == steps) == goes_on


def test_a_broken_config_is_named(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "config.yaml").write_text("task: [")
    with pytest.raises(UserError, match=r"config\.yaml"):
        opened(tmp_path)


def some(texts: str) -> list[Utterance]:
    return [Utterance(f"u{i}", "", text, "s", duration=1.0) for i, text in enumerate(texts)]


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    experiment = opened(tmp_path / "exp")
    weights = tmp_path / "weights"
    weights.write_bytes(b"some")
    experiment.check_inputs(train=some("abc"), dev=some("d"), init=weights)
    experiment.check_inputs(train=some("abc"), dev=some("d"), init=weights)
    for name, given in {"train": some("abd"), "dev": some("dd"), "init": weights}.items():
        weights.write_bytes(b"others" if name == "init" else b"some")
        inputs = {"train": some("abc"), "dev": some("d"), "init": weights} | {name: given}
        with pytest.raises(UserError, match=rf"begun with other inputs .*\({name} changed\)"):
            experiment.check_inputs(**inputs)


def test_the_same_inputs_with_other_dates(tmp_path: Path) -> None:
    experiment, weights = opened(tmp_path / "exp"), tmp_path / "weights"
    weights.write_bytes(b"some")
    experiment.check_inputs(init=weights)
    times = (weights.stat().st_atime_ns, weights.stat().st_mtime_ns)
    os.utime(weights, (1, 1))
    experiment.check_inputs(init=weights)
    weights.write_bytes(b"same")
    os.utime(weights, ns=times)
    with pytest.raises(UserError, match=r"\(init changed\)"):
        experiment.check_inputs(init=weights)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"train": {"utterances": 3, "sha256": "x"}}'])
def test_broken_inputs_are_a_sentence(text: str, tmp_path: Path) -> None:
    """Those of a former version are refused as well."""
    experiment = opened(tmp_path / "exp")
    (tmp_path / "exp" / "inputs.json").write_text(text)
    told = r"\(inputs\.json \(of another version, or broken\) changed\); remove the folder to train"
    with pytest.raises(UserError, match=told) as refused:
        experiment.check_inputs(train=some("abc"))
    assert "\n" not in str(refused.value)


def test_utterances_are_known_by_all_but_their_place(tmp_path: Path) -> None:
    def one(id: str = "a", text: str = "t", duration: float = 1.0, **more) -> list[Utterance]:
        return [Utterance(id, "x.wav", text, "s", duration=duration, **more)]

    made = [one(), one(id="b"), one(text="u"), one(duration=2.0), one() + one(id="b")]
    made += [one(audio_hash="x"), one(start=0.5), one(keywords=("a",)), one(tags={"a": "b"})]
    assert len({content_hash(given) for given in made}) == len(made)
    # Where the corpus lies may change.
    assert content_hash(one()) == content_hash([Utterance("a", "/y", "t", "s", duration=1.0)])


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*: cannot be written"):
        opened(tmp_path / "file" / "exp")


def test_run_sh_gives_the_command_again(tmp_path: Path, monkeypatch) -> None:
    """Whatever is in its arguments, and from whatever folder it is called."""
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    module = folder / "echo_arguments.py"
    module.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})\n"
        "from audiorl.runs.experiment import resume_command\n"
        "import os\n"
        "given = [os.getcwd(), *sys.argv[1:]]\n"
        "print(resume_command() if sys.argv[-1] == 'write' else given)\n"
    )
    odd = ["--set", "a.b=$(touch oops)", "two words", "'", "-x", "*"]
    command = [sys.executable, "-m", "echo_arguments", *odd]
    script = subprocess.check_output([*command, "write"], cwd=folder, text=True)
    (tmp_path / "run.sh").write_text(script.replace(" write\n", "\n"))
    monkeypatch.chdir("/")
    printed = subprocess.check_output(["sh", tmp_path / "run.sh"], text=True)
    assert printed.strip() == str([str(folder), *odd])
    assert not (folder / "oops").exists()
    assert shlex.quote(str(folder)) in script


def test_a_config_is_read_back_as_it_was(tmp_path: Path) -> None:
    config = tiny_config()
    (tmp_path / "c.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "c.yaml") == config
    assert resume_command().startswith("#!/bin/sh\n")


@pytest.mark.parametrize("key", [{"num_threads": 2}, {"device": "auto"}], ids=str)
def test_what_changes_the_last_bits_is_said(tmp_path: Path, key: dict) -> None:
    opened(tmp_path).check_inputs()
    opened(tmp_path, key).check_inputs()
    assert "adds in another order" in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"format": 1}', b"[" * 99999])
def test_broken_inputs_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    experiment = opened(tmp_path)
    (tmp_path / "inputs.json").write_bytes(content)
    with pytest.raises(UserError, match=r"was begun with other inputs .*; remove the folder"):
        experiment.check_inputs(train=[Utterance("a", "", "", "s")])
