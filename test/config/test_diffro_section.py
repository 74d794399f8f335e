"""What the reward model, DiffRO and rewards of synthesis must fulfil: the reason and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiorl.config import Config, load_config
from audiorl.errors import UserError

TTS = Path(__file__).resolve().parents[2] / "conf" / "tts.yaml"
ASR = TTS.with_name("asr.yaml")
SIMILARITY = "rl.rewards=[{name: speaker_similarity}]"


def test_the_defaults_break_no_rule() -> None:
    assert list(Config(task="tts").broken_rules()) == []


@pytest.mark.parametrize(
    ("options", "key", "reason"),
    [
        (
            ["reward_model.encoder.output_size=90"],
            "reward_model.encoder.output_size",
            "of the 4 attention he",
        ),
        (["reward_model.tasks=[rate, rate]"], "reward_model.tasks", "names rate twice"),
        (["reward_model.tasks=[text]"], "reward_model.tasks", "text is always its task"),
        (["diffro.rewards=[]"], "diffro.rewards", "nothing would be learnt; name text"),
        (["diffro.rewards=[{}, {weight: 2}]"], "diffro.rewards", "names text twice"),
        (
            ["diffro.rewards=[{}, {task: speaker}]"],
            "diffro.rewards",
            "does not tell speaker; add it to its tasks",
        ),
        (["diffro.tau=0.5", "diffro.tau_end=0.8"], "diffro.tau_end", "set at most 0.5"),
        (
            ["rl.algorithm=both", "diffro.history=fixed"],
            "diffro.history",
            "it is taken on GRPO's rollouts; set rollout, or auto",
        ),
        (
            ["rl.algorithm=diffro", "diffro.sample_filter=positive_advantage"],
            "diffro.sample_filter",
            "fixed histories have no advantage",
        ),
        (["rl.algorithm=diffro", "rl.top_k=5"], "rl.top_k", "the full distribution; set top_k: 0"),
        (
            ["rl.reward_workers=2", "rl.rewards=[{name: likelihood}]"],
            "rl.reward_workers",
            "likelihood needs what is loaded in the training process alone; set 0",
        ),
        (["rl.rewards=[{name: duration, pitch: 1}]"], "rl.rewards", "duration has no use for pitc"),
    ],
)
def test_what_makes_no_sense_is_refused(options: list[str], key: str, reason: str) -> None:
    with pytest.raises(UserError) as raised:
        load_config(TTS, options)
    message = str(raised.value)
    assert key in message and reason in message, message


@pytest.mark.parametrize(
    "options",
    [
        ["rl.algorithm=both", "diffro.sample_filter=positive_advantage", "rl.beta=0.1"],
        ["rl.algorithm=diffro", "diffro.tau=2", "diffro.tau_end=0.5", "diffro.hard=true"],
        [
            "rl.algorithm=diffro",
            "diffro.history=rollout",
            "diffro.sample_filter=positive_advantage",
        ],
        ["reward_model.tasks=[speaker, rate]", "diffro.rewards=[{}, {task: rate, weight: 0.1}]"],
        ["rl.rewards=[{}, {name: duration}, {name: diversity, pitch: 0.5}]", "rl.algorithm=grpo"],
        ["rl.rewards=[{name: file, reward_file: mine.py, waves: true}]"],
        ["rl.reward_workers=2", "rl.rewards=[{name: duration}, {name: diversity}]"],
    ],
)
def test_what_makes_sense_is_not(options: list[str]) -> None:
    load_config(TTS, options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["rl.algorithm=diffro"], "diffro differentiates in speech tokens, and this recipe's task"),
        (["rl.algorithm=both"], "both differentiates in speech tokens"),
        ([SIMILARITY], "speaker_similarity looks at speech tokens, and this recipe's task is asr"),
        (["diffro.tau=2"], "is a key of task tts"),
    ],
)
def test_recognition_has_none_of_it(options: list[str], reason: str) -> None:
    with pytest.raises(UserError) as raised:
        load_config(ASR, options)
    assert reason in str(raised.value), raised.value


def test_the_usual_history_is_the_algorithms() -> None:
    diffro = load_config(TTS).diffro
    assert [diffro.actual_history(a) for a in ("diffro", "both")] == ["fixed", "rollout"]
    diffro.history = "rollout"
    assert diffro.actual_history("diffro") == "rollout"
