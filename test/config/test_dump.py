"""Configs as text: in full, read back equal, and their differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from audiorl.config import Config, config_differences, dump_config, load_config
from audiorl.config.check import base_recipe
from audiorl.config.keys import key_values, schema_keys
from audiorl.config.rewards import reward_options
from audiorl.config.rl_data import SubsetConfig

REPO = Path(__file__).resolve().parents[2]
TASKS = ("asr", "tts")


def unusual() -> Config:
    """A config whose every value needs care."""
    config = Config(seed=123456789012345678)
    config.llm.prompt = 'a "b"\n\t# {audio}: é 转写 \u00a0\u2028 \U0001f600 \\ <|x|>'
    config.encoder.init = " no "
    config.data.dev = "012"
    config.data.train = "yes"
    config.data.rl = "1e-5"
    config.data.test = ["null", "1:30", "-", "a, b", "'", "true"]
    config.data.no_speech = ["null"]
    config.rl.learning_rate = 1e-12
    config.rl.beta = 1e22
    config.rl.top_p = 1 / 3
    config.rl.rewards = [reward_options("wer", -0.5)]
    config.rl_data.subsets = [SubsetConfig(), SubsetConfig("hard", size=40, max_error=0.8)]
    config.rl.mask_truncated_completions = True
    return config


@pytest.mark.parametrize("config", [Config(), Config(task="tts"), unusual()])
def test_round_trip(write: Callable, monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    # Some of the unusual values break rules about folders, which are not the point here.
    monkeypatch.setattr("audiorl.config.schema.Config.broken_rules", lambda config: [])
    text = dump_config(config)
    again = load_config(write(text))
    assert again == config
    assert dump_config(again) == text


def test_other_readers_read_the_same_values() -> None:
    for config in (Config(), unusual(), Config(task="tts")):
        expected = dataclasses.asdict(config)
        for path, (_, field) in schema_keys().items():
            if field.metadata["task"] not in (None, config.task):
                section, _, name = path.rpartition(".")
                (expected[section] if section else expected).pop(name)
        assert yaml.safe_load(dump_config(config)) == expected


def test_each_key_once_with_its_comment_within_100_columns() -> None:
    lines = [line for task in TASKS for line in dump_config(Config(task=task)).splitlines()]
    assert max(map(len, lines)) <= 100
    words = " ".join(line.partition("# ")[2] for line in lines if "# " in line)
    for key, (_, field) in schema_keys().items():
        name = key.rpartition(".")[2]
        if not dataclasses.is_dataclass(schema_keys()[key][0]):
            assert any(line.lstrip().startswith(f"{name}: ") for line in lines), key
            assert " ".join(field.metadata["doc"].split()) in words, key
    assert len(yaml.safe_load("\n".join(lines))) == len(dataclasses.fields(Config))


def test_comments_tell_limits_choices_and_another_default() -> None:
    config = Config()
    config.rl.epsilon = 0.1
    text = " ".join(dump_config(config).replace("#", " ").split())
    assert "one of auto, cpu, cuda" in text
    assert (
        "top_p: 1.0 sample from the smallest set with this probability; 1: all; > 0, <= 1" in text
    )
    assert "epsilon: 0.1 lower clip of the ratio [clip_ratio_low]; >= 0; default 0.2" in text
    assert text.count("default 0.2") == 1


def test_a_long_value_has_its_comment_above() -> None:
    config = Config()
    config.data.test = [f"a_rather_long_test_set_{i}" for i in range(4)]
    lines = dump_config(config).splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith("  test: "))
    assert lines[at] == "  test: [" + ", ".join(config.data.test) + "]"
    assert lines[at - 1] == ("  # sets that are decoded and scored; never filtered; default []")


def test_a_list_of_sections_has_its_keys_with_comments() -> None:
    config = Config()
    config.rl.rewards = [reward_options("wer_exp", k=3.0), reward_options("language", 0.5)]
    lines = dump_config(config).splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith("  rewards:"))
    assert "    - name: wer_exp  " in lines[at + 1]
    assert sum(line.startswith("    - name: ") for line in lines) == 2
    assert any(line.startswith("      k: 3.0  ") and "# steepness" in line for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("      weight: ")] == [
        "1.0",
        "0.5",
    ]


def test_a_text_of_several_lines_stays_on_one() -> None:
    config = Config()
    config.llm.prompt = "a\n\n{audio}\n"
    assert '  prompt: "a\\n\\n{audio}\\n"  ' in dump_config(config)


def test_differences_name_key_and_both_values() -> None:
    other = Config(device="cpu")
    other.rl.beta = 0.1
    other.data.test = ["a"]
    other.llm.pretrained = "x"
    assert config_differences(Config(), Config()) == []
    assert config_differences(Config(), other) == [
        "device: auto -> cpu",
        "data.test: [] -> [a]",
        'llm.pretrained: "" -> x',
        "rl.beta: 0.0 -> 0.1",
    ]


def test_differences_of_sections_name_what_is_set() -> None:
    other = Config()
    other.rl.rewards = [reward_options("wer", 0.5), reward_options("keywords", measure="mean")]
    assert config_differences(Config(), other) == [
        "rl.rewards: [{name: wer}] -> [{name: wer, weight: 0.5}, {name: keywords, measure: mean}]"
    ]


def test_key_values_cover_the_schema() -> None:
    values = key_values(unusual())
    assert values["rl.beta"] == 1e22 and values["seed"] == 123456789012345678
    sections = [k for k, (kind, _) in schema_keys().items() if dataclasses.is_dataclass(kind)]
    assert len(values) + len(sections) == len(schema_keys()) and "rl" in sections


@pytest.mark.parametrize("task", TASKS)
def test_base_recipe_is_the_schema(task: str) -> None:
    path = REPO / "conf" / f"{task}.yaml"
    command = f"python -m audiorl.bin.check_config --defaults {task} > conf/{task}.yaml"
    assert path.read_text(encoding="utf-8") == base_recipe(task), (
        f"the schema has changed: {command}"
    )
    assert load_config(path) == Config(task=task)
    assert max(map(len, base_recipe(task).splitlines())) <= 100
