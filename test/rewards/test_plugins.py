"""Rewards of the user: one file in a folder that AUDIORL_PLUGINS names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import audiorl
from audiorl.config import config_differences, dump_config, load_config
from audiorl.config.rewards import REWARDS
from audiorl.config.schema import Config
from audiorl.config.variants import extend_path
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.rewards import Sample, build_rewards
from audiorl.rewards.core.workers import open_rewards

BREVITY = '''
from dataclasses import dataclass

from audiorl.config.field import key
from audiorl.config.rewards import RewardOptions
from audiorl.rewards import Reward


@dataclass
class Options(RewardOptions):
    """The longest text that is short."""

    kinds = ("sample", "gate")

    most: int = key(4, "letters of a short text", ge=1)

    def problems(self):
        if self.most == 13:
            yield "most is 13, which brings bad luck; set 12"


def build(options, context):
    return Reward(lambda samples: [float(len(s.text) <= options.most) for s in samples])
'''
YAML = "rl: {rewards: [{name: brevity, most: 3, weight: 0.5}]}\nscore: {normalizer: none}\n"


def config_of(folder: Path, text: str = YAML) -> Config:
    (folder / "c.yaml").write_text(text)
    return load_config(folder / "c.yaml")


def samples() -> list[Sample]:
    return [Sample(Utterance(name, "", "go", "s"), name, True) for name in ("a", "abc", "abcd")]


def test_one_file_is_a_reward(plugins: Callable, tmp_path: Path) -> None:
    plugins("brevity", BREVITY)
    config = config_of(tmp_path)
    assert config.rl.rewards[0].most == 3
    assert build_rewards(config)(samples()).total == [0.5, 0.5, 0.0]
    text = dump_config(config)
    assert "most: 3 " in text and "letters of a short text; >= 1; default 4" in text
    assert config_of(tmp_path, text) == config
    assert "[{name: brevity, weight: 0.5, most: 3}]" in config_differences(Config(), config)[-2]


def test_worker_processes_have_it_too(plugins: Callable, tmp_path: Path) -> None:
    plugins("brevity", BREVITY)
    config = config_of(tmp_path)
    config.rl.reward_workers = 1
    with open_rewards(config) as rewards:
        assert rewards.submit(samples())().total == [0.5, 0.5, 0.0]


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ("most: 0", "rl.rewards[0].most: expected a whole number >= 1 (got 0)"),
        ("mots: 3", "rl.rewards[0].mots: unknown key; did you mean rl.rewards[0].most?"),
        ("url: x", "rl.rewards[0].url: brevity has no use for url (it knows most); remove it"),
        ("most: 13", "rl.rewards: most is 13, which brings bad luck; set 12."),
        ("kind: group", "brevity cannot be of kind group; set kind: sample or gate"),
    ],
)
def test_its_options_are_checked(
    plugins: Callable, tmp_path: Path, item: str, sentence: str
) -> None:
    plugins("brevity", BREVITY)
    with pytest.raises(UserError) as refusal:
        config_of(tmp_path, YAML.replace("most: 3", item))
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("wer", BREVITY, "wer.py: audiorl.rewards has a module wer already; rename the file."),
        ("core", BREVITY, "core.py: audiorl.rewards has a module core already; rename the file."),
        ("brevity", "def build(:", "brevity.py cannot be loaded (SyntaxError: "),
        ("brevity", "import nothing_there", "No module named 'nothing_there'); fix it."),
        ("brevity", "Options = 1", "brevity.py has no build; add one, as in audiorl.rewards."),
    ],
)
def test_a_file_that_is_no_reward(
    plugins: Callable, tmp_path: Path, name: str, text: str, sentence: str
) -> None:
    plugins(name, text)
    with pytest.raises(UserError) as refusal:
        config_of(tmp_path)
    assert sentence in str(refusal.value)


def test_a_folder_that_is_not_there(plugins: Callable, tmp_path: Path, monkeypatch) -> None:
    plugins("brevity", BREVITY)
    monkeypatch.setenv("AUDIORL_PLUGINS", "gone")
    with pytest.raises(UserError, match=r"AUDIORL_PLUGINS: there is no folder gone; fix"):
        config_of(tmp_path)


def test_names_are_listed_without_an_import(plugins: Callable) -> None:
    path = plugins("brevity", "raise SystemExit")
    assert "brevity" in REWARDS and "core" not in REWARDS
    assert REWARDS.plugin("brevity") == path and REWARDS.plugin("wer") is None
    assert len(REWARDS) == len(list(REWARDS)) == 19


def test_each_kind_of_plugin_has_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIORL_PLUGINS", f"/a{os.pathsep}/b")
    assert extend_path("audiorl.models.families", ["x"]) == ["x", "/a/families", "/b/families"]


def test_only_the_environment_names_the_folder(plugins: Callable, tmp_path: Path) -> None:
    """The command in a new process: the reward is known with the variable, and not without."""
    folder = plugins("brevity", BREVITY).parents[1]
    (tmp_path / "c.yaml").write_text(YAML)
    root = str(Path(audiorl.__file__).parents[1])
    for value, status in ((str(folder), 0), ("", 1)):
        found = subprocess.run(
            [sys.executable, "-m", "audiorl.bin.check_config", "c.yaml"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": root, "AUDIORL_PLUGINS": value},
            capture_output=True,
            text=True,
        )
        assert found.returncode == status, found.stderr
        assert ("rl.rewards[0].name: expected one of" in found.stderr) == bool(status)


def test_options_of_all_rewards_load_without_torch() -> None:
    code = (
        "import sys; from audiorl.config.rewards import REWARDS, reward_options; "
        "[reward_options(name) for name in REWARDS]; sys.exit('torch' in sys.modules)"
    )
    root = str(Path(audiorl.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root}
    assert subprocess.run([sys.executable, "-c", code], env=env).returncode == 0
