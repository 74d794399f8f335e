"""Pretrained recognisers from a YAML through stages 3 to 7, and runs of theirs that are killed."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from deaths import after, killed
from runs import outcome
from safetensors.torch import load_file
from tiny import sentences, write_set
from tiny_families import BUILDERS, load_family

from audiorl.config import load_config
from audiorl.data.utterance import read_utterances, write_utterances_jsonl
from audiorl.errors import UserError
from audiorl.models.policy import Policy, load_policy
from audiorl.runs.reporter import Reporter
from audiorl.tasks import make_task
from audiorl.tasks.task import Folders

KEYS = {
    "device": "cpu",
    "num_threads": 1,
    "data.test": ["test"],
    "sft.schedule.max_steps": 0,
    "rl_data.drop_flat": False,
    "rl.max_steps": 2,
    "rl.num_prompts": 2,
    "rl.num_generations": 3,
    "rl.max_completion_length": 6,
    "rl.learning_rate": 1e-3,
    "rl.warmup_steps": 0,
    "rl.eval_steps": 1,
    "rl.save_steps": 1,
    "decode.max_completion_length": 6,
    "score.normalizer": "none",
    "score.bootstrap_samples": 100,
}
REWARD = [{"name": "edit_distance", "unit": "char"}]  # no random word is right


@pytest.fixture(scope="session")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families") / "dump"
    for seed, (name, count) in enumerate([("train", 5), ("dev", 2), ("test", 2)]):
        write_set(folder / name, sentences(count, seed=seed, longest=3))
    return folder


class Recipe:
    """A YAML with a pretrained recogniser, and the entry points called with it."""

    def __init__(self, root: Path, pretrained: Path, dump: Path, keys: dict | None = None) -> None:
        sections: dict = {"model": {"pretrained": str(pretrained)}, "rl": {"rewards": REWARD}}
        for path, value in {**KEYS, **(keys or {})}.items():
            *above, name = path.split(".")
            section = sections
            for part in above:
                section = section.setdefault(part, {})
            section[name] = value
        self.path, self.exp, self.dump = root / "recipe.yaml", root / "exp", dump
        self.path.write_text(yaml.safe_dump(sections))

    def run(self, module: str, *arguments: object) -> None:
        main = importlib.import_module(f"audiorl.bin.{module}").main
        options = ["--config", self.path, "--dump", self.dump, *arguments]
        before, sys.argv = sys.argv, [module, *map(str, options)]
        try:
            main()
        finally:
            sys.argv = before

    def warm_start(self) -> Path:
        self.run("train_sft", "--out", self.exp / "sft")
        return self.exp / "sft"

    def rl_data(self) -> None:
        data = self.exp / "rl/train.jsonl"
        self.run("build_rl_data", "--init", self.exp / "sft", "--out", data)

    def rl(self, name: str = "grpo") -> Path:
        where = ("--init", self.exp / "sft", "--data", self.exp / "rl/train.jsonl")
        self.run("train_rl", *where, "--out", self.exp / name)
        return self.exp / name


def weights(exp: Path) -> dict[str, torch.Tensor]:
    return load_file(exp / "model/model.safetensors")


def moved(policy: Policy, exp: Path) -> set[str]:
    """Names of the weights that are others at the end of the run than in the policy."""
    before = policy.state_dict()
    learnt = load_file(exp / "checkpoints/step_00000002/model.safetensors")
    return {name for name, value in learnt.items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("name", ["qwen3_asr", "qwen2_audio", "fun_asr_nano"])
def test_stages_3_to_7(
    name: str, family_folder: Callable[[str], Path], dump: Path, tmp_path: Path
) -> None:
    recipe = Recipe(tmp_path, family_folder(name), dump)
    sft = recipe.warm_start()
    recipe.rl_data()
    grpo = recipe.rl()
    systems = (sft, grpo)
    recipe.run("decode", *systems)
    recipe.run("score", *systems)
    for system in systems:
        found = json.loads((system / "decode_greedy/test/result.json").read_text())
        assert found["utterances"] == 2
    hub = load_file(family_folder(name) / "model.safetensors")
    start = weights(sft)
    assert hub.keys() == start.keys() == weights(grpo).keys()
    assert all(torch.equal(hub[n], start[n]) for n in hub)
    policy = load_policy(sft / "model")
    parts = {
        part: {id(p) for module in policy.part(part) for p in module.parameters()}
        for part in policy.part_names
    }
    named = {name: id(p) for name, p in policy.named_parameters()}
    learnt = moved(policy, grpo)
    found = {part for part, ids in parts.items() for name in learnt if named[name] in ids}
    assert found == {"adaptor", "llm"}


def test_a_warm_start_continues_supervised(
    family_folder: Callable[[str], Path], dump: Path, tmp_path: Path
) -> None:
    keys = {"sft.schedule.max_steps": 2, "sft.ctc_weight": 0, "sft.batch_seconds": 3}
    recipe = Recipe(tmp_path, family_folder("granite_speech"), dump, keys)
    start = load_file(family_folder("granite_speech") / "model.safetensors")
    end = weights(recipe.warm_start())
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    # Its encoder has batch norms, whose statistics stay.
    assert "projector.query" in moved
    assert not [name for name in moved if "running" in name or "num_batches" in name]


@pytest.mark.parametrize("name", BUILDERS)
def test_a_killed_run_goes_on_to_the_bit(
    name: str, family_folder: Callable[[str], Path], dump: Path, tmp_path: Path
) -> None:
    """The adaptor learns, so audio is read anew in each update; the dev set too."""
    few = {
        "rl.num_generations": 2,
        "rl.max_completion_length": 3,
        "decode.max_completion_length": 3,
        "rl.entropy_coef": 0.01,  # random weights may earn the same reward with all they say
    }
    recipe = Recipe(tmp_path, family_folder(name), dump, few)
    load_family(family_folder(name)).save(recipe.exp / "sft/model")
    (recipe.exp / "rl").mkdir()
    write_utterances_jsonl(recipe.exp / "rl/train.jsonl", read_utterances(dump / "train")[:3])
    plain = outcome(recipe.rl("plain"))
    assert any(metrics.get("grad_norm", 0) > 0 for metrics in plain["metrics"])
    death = after(Reporter, "log", lambda self, at, metrics: at == 2 and "loss" in metrics)
    killed(lambda: recipe.rl("exp"), death)
    assert outcome(recipe.rl("exp")) == plain


def test_only_the_llm_learns_from_stored_frames(
    family_folder: Callable[[str], Path], dump: Path, tmp_path: Path
) -> None:
    """On disk they are the frames of a frozen adaptor, and give the run without a disk."""
    keys = {"rl.train": ["llm"], "rl.cache_frames": True}
    recipe = Recipe(tmp_path, family_folder("fun_asr_nano"), dump, keys)
    recipe.warm_start()
    recipe.rl_data()
    stored = recipe.rl("stored")
    assert (stored / "frames" / "frames.ark").stat().st_size > 0
    Recipe(tmp_path, family_folder("fun_asr_nano"), dump, {**keys, "rl.cache_frames": False})
    plain = recipe.rl("plain")
    assert outcome(stored) == outcome(plain)


def last(folder: Path, name: str, seconds: float) -> str:
    """Let the first utterance of a set last so long, and return its id."""
    path = folder / name / "utt2dur"
    first, *others = path.read_text().splitlines()
    utterance = first.split()[0]
    path.write_text("\n".join([f"{utterance} {seconds}", *others, ""]))
    return utterance


@pytest.mark.parametrize(
    ("name", "seconds", "said"),
    [("train", 0.02, "0.02"), ("dev", 30.5, "30.50"), ("test", 36, "36.00")],
)
def test_audio_that_it_cannot_hear_is_refused_before_training(
    name: str,
    seconds: float,
    said: str,
    family_folder: Callable[[str], Path],
    dump: Path,
    tmp_path: Path,
) -> None:
    changed = shutil.copytree(dump, tmp_path / "dump")
    utterance = last(changed, name, seconds)
    keys = {"sft.schedule.max_steps": 2, "sft.ctc_weight": 0}
    recipe = Recipe(tmp_path, family_folder("qwen2_audio"), changed, keys)
    with pytest.raises(UserError) as refusal:
        recipe.warm_start()
    assert str(refusal.value).startswith(
        f"{changed / name}: {utterance} lasts {said} s (1 like it), and a qwen2_audio hears "
        "0.1 to 30 s; "
    )
    assert not (recipe.exp / "sft" / "metrics.jsonl").exists()


def test_sets_that_are_cut_into_windows_are_heard(
    family_folder: Callable[[str], Path], dump: Path, tmp_path: Path
) -> None:
    changed = shutil.copytree(dump, tmp_path / "dump")
    for name in ("dev", "test"):
        last(changed, name, 90)
    folder = family_folder("qwen2_audio")
    with pytest.raises(UserError, match=r"lasts 90\.00 s"):
        Recipe(tmp_path, folder, changed, {"decode.window_seconds": 40}).warm_start()
    shutil.rmtree(tmp_path / "exp")
    Recipe(tmp_path, folder, changed, {"decode.window_seconds": 30}).warm_start()


def test_later_stages_refuse_it_too(
    family_folder: Callable[[str], Path], dump: Path, tmp_path: Path
) -> None:
    changed = shutil.copytree(dump, tmp_path / "dump")
    recipe = Recipe(tmp_path, family_folder("qwen2_audio"), changed)
    recipe.warm_start()
    sets = {
        "train": lambda: recipe.rl_data(),
        "test": lambda: recipe.run("decode", recipe.exp / "sft"),
    }
    for name, stage in sets.items():
        utterance = last(changed, name, 31)
        with pytest.raises(UserError, match=f"{utterance} lasts 31.00 s"):
            stage()
    task = make_task(load_config(recipe.path), Folders(changed))
    policy, unfit = load_policy(recipe.exp / "sft/model"), read_utterances(changed / "train")
    with pytest.raises(UserError, match=r"the RL set: .* lasts 31.00 s"):
        task.prepare(policy, unfit, [])
    with pytest.raises(UserError, match=r"dev: .* lasts 31.00 s"):
        task.prepare(policy, [], unfit)
