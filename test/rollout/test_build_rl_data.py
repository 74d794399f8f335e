"""The RL set: nothing of the held-out sets, every item with its difficulty and provenance."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from tiny import tiny_config, tiny_model, write_set

from audiorl.config.schema import Config
from audiorl.data.utterance import read_utterances
from audiorl.errors import UserError
from audiorl.rewards import Sample, WeightedSum
from audiorl.rl.advantages import flat_groups, group_std
from audiorl.rollout.build_rl_data import build_rl_data, is_built
from audiorl.rollout.probe import probe

SETS = {"data.rl": "rl", "data.dev": "dev", "data.test": ["test"], "rl.num_generations": 3}
TEXTS = ["ba do", "ki lu me", "no pa", "ri so tu", "ba ba ba", "tu ki"]


@pytest.fixture(scope="module")
def dump(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dump")
    write_set(folder / "rl", TEXTS)
    write_set(folder / "dev", ["no pa", "lu lu"])
    write_set(folder / "test", ["Ki  lu, ME", "so so so"])
    return folder


def model_for(keys: dict | None = None):
    return tiny_model({**SETS, **(keys or {})}, spread=3.0)


def read_extras(path: Path) -> dict[str, dict]:
    return {item["id"]: item for item in map(json.loads, path.read_text().splitlines())}


def build(dump: Path, out: Path, keys: dict | None = None) -> Config:
    model = model_for(keys)
    build_rl_data(model, "exp/sft", model.config, dump, out)
    return model.config


def test_every_item_says_where_it_comes_from(dump: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "rl" / "train.jsonl"
    build(dump, out)
    kept = read_utterances(out)
    assert [u.text for u in kept] == sorted_texts(
        "ba do", "ki lu me", "ri so tu", "ba ba ba", "tu ki"
    )
    items = {u.id: u for u in read_utterances(dump / "rl")}
    assert all(items[u.id] == u for u in kept)
    for extra in read_extras(out).values():
        assert extra["subset"] == "rl"
        assert extra["provenance"] == {"set": "rl", "policy": "exp/sft", "seed": 1}
        difficulty = extra["difficulty"]
        assert -1 <= difficulty["reward_mean"] <= difficulty["reward_best"] <= 1
        assert difficulty["flat"] == (difficulty["reward_std"] < 1e-6)
    printed = capsys.readouterr().out
    assert "kept 5 of 6 utterances (0 are in dev or test by id, 1 by text)" in printed
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def sorted_texts(*texts: str) -> list[str]:
    """Texts in the order of their utterances' ids."""
    names = {text: f"s{i % 3}-rl{i:03d}" for i, text in enumerate(TEXTS)}
    return sorted(texts, key=names.__getitem__)


def test_held_out_texts_are_compared_as_they_are_scored(dump: Path, tmp_path: Path) -> None:
    """`Ki  lu, ME` of the test set is `ki lu me` once case and punctuation are gone."""
    build(dump, tmp_path / "rl.jsonl", {"score.normalizer": "english"})
    texts = {u.text for u in read_utterances(tmp_path / "rl.jsonl")}
    assert texts == {"ba do", "ri so tu", "ba ba ba", "tu ki"}


def test_held_out_ids_are_left_out(dump: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(UserError, match="no utterance is left for RL"):
        build(dump, tmp_path / "rl.jsonl", {"data.rl": "dev"})
    assert (
        "kept 0 of 2 utterances (2 are in dev or test by id, 0 by text)" in capsys.readouterr().out
    )
    assert not (tmp_path / "rl.jsonl").exists()


def test_flat_groups_can_be_left_out(dump: Path, tmp_path: Path, capsys) -> None:
    short = {"rl.max_completion_length": 5}  # too short for the longer texts to get anywhere
    build(dump, tmp_path / "all.jsonl", short)
    flat = {
        i for i, extra in read_extras(tmp_path / "all.jsonl").items() if extra["difficulty"]["flat"]
    }
    every = {u.id for u in read_utterances(tmp_path / "all.jsonl")}
    assert flat
    assert flat < every
    build(dump, tmp_path / "some.jsonl", {**short, "rl_data.drop_flat": True})
    assert {u.id for u in read_utterances(tmp_path / "some.jsonl")} == every - flat
    assert f"kept {len(every - flat)} of 6" in capsys.readouterr().out


def test_what_no_reward_can_score_is_left_out_and_counted(tmp_path: Path, capsys) -> None:
    """A transcript of which normalisation leaves nothing has no error rate."""
    dump = tmp_path / "dump"
    write_set(dump / "rl", TEXTS)
    write_set(dump / "dev", ["lu lu"])
    write_set(dump / "test", ["so so so"])
    text = (dump / "rl" / "text").read_text().replace("no pa", "(um)")
    (dump / "rl" / "text").write_text(text)
    build(dump, tmp_path / "rl.jsonl", {"score.normalizer": "english"})
    kept = read_utterances(tmp_path / "rl.jsonl")
    assert len(kept) == 5
    assert "(um)" not in {u.text for u in kept}
    assert "1 without a reward" in capsys.readouterr().out
    for line in (tmp_path / "rl.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_same_again(dump: Path, tmp_path: Path) -> None:
    build(dump, tmp_path / "one.jsonl")
    torch.manual_seed(99)
    build(dump, tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    build(dump, tmp_path / "three.jsonl", {"seed": 2})
    assert (tmp_path / "one.jsonl").read_bytes() != (tmp_path / "three.jsonl").read_bytes()


def test_probing_does_not_depend_on_batches(dump: Path) -> None:
    utterances = read_utterances(dump / "rl")
    rewards = WeightedSum({"length": (lambda s: [len(x.text) / 10 for x in s], 1.0)})
    together = probe(model_for(), utterances, rewards)
    alone = probe(model_for({"decode.batch_seconds": 0.01}), utterances, rewards)
    assert together == alone
    assert together.keys() == {u.id for u in utterances}


def test_difficulty_is_that_of_the_group(dump: Path) -> None:
    seen: dict[str, list[float]] = {}

    def reward(samples: list[Sample]) -> list[float]:
        values = [float(len(sample.text) % 5) for sample in samples]
        for sample, value in zip(samples, values, strict=True):
            seen.setdefault(sample.utterance.id, []).append(value)
        return values

    found = probe(model_for(), read_utterances(dump / "rl"), WeightedSum({"r": (reward, 1.0)}))
    for name, difficulty in found.items():
        group = torch.tensor([seen[name]])
        assert group.shape == (1, 3)
        assert difficulty.reward_mean == pytest.approx(group.mean().item())
        assert difficulty.reward_std == pytest.approx(group_std(group).item())
        assert difficulty.reward_best == group.max().item()
        assert difficulty.flat == flat_groups(group).item()


def test_what_is_built_is_known(dump: Path, tmp_path: Path) -> None:
    out, weights = tmp_path / "rl.jsonl", tmp_path / "model.safetensors"
    weights.write_bytes(b"")
    config = tiny_config(SETS)
    arguments = ("exp/sft", dump, out, weights)
    assert not is_built(config, *arguments)
    build(dump, out)
    assert is_built(config, *arguments)
    for key, value in {
        "seed": 2,
        "rl.num_generations": 5,
        "rl.temperature": 0.5,
        "rl.max_completion_length": 3,
        "rl_data.drop_flat": True,
        "score.normalizer": "english",
        "data.test": [],
    }.items():
        assert not is_built(tiny_config({**SETS, key: value}), *arguments), key
    assert is_built(tiny_config({**SETS, "rl.learning_rate": 1.0}), *arguments)
    assert not is_built(config, "exp/other", *arguments[1:])
    later = out.with_suffix(".meta.json").stat().st_mtime + 5
    os.utime(weights, (later, later))
    assert not is_built(config, *arguments)
