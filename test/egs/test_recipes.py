"""Every recipe has the same stages, options and files, and its run.sh explains itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from recipe_runs import EGS, ROOT, run

from audiorl.config.keys import key_values
from audiorl.config.loader import load_recipe

RECIPES = sorted(path.name for path in EGS.iterdir() if path.is_dir())
STAGES = [
    "Prepare the corpus",
    "Validate and format",
    "Supervised warm start",
    "Build the RL data",
    "Reinforcement learning, and its control",
    "Decode",
    "Score, before and after RL",
    "Report",
    "Pack",
]
SPEECH_STAGES = [  # of synthesis
    *STAGES[:2],
    "Codec, judge, reward model, and the supervised speech LM",
    "Build the RL data",
    "Reinforcement learning: each system",
    "Synthesise",
    "Score by the judge, before and after RL",
    *STAGES[7:],
]
PROCESSES = ["nj", "ngpu", "num_processes", "num_nodes"]
OPTIONS = ["stage", "stop_stage", "config", "control", "corpus", "dump", "exp", *PROCESSES]
SPEECH_OPTIONS = ["stage", "stop_stage", "config", "systems", "corpus", "dump", "exp"]
SPEECH_OPTIONS += ["judge", "ear", *PROCESSES]
# What a corpus needs beyond them; its README.md explains each.
EXTRAS = {
    "mini_asr": ["language", "scale"],
    "librispeech": ["data", "download", "biasing_lists"],
    "aishell": ["data", "download", "entities"],
    "gigaspeech": ["data", "subset"],
    "own": ["data"],
    "fsdd": ["data", "download", "scale"],
    "whisper_short": ["data", "model", "ljspeech", "most"],
    "TEMPLATE": ["data"],
    "mini_tts": ["scale", "voices"],
    "libritts": ["data", "download", "zero_shot"],
    "ljspeech": ["data", "download", "zero_shot"],
    "aishell3": ["data", "download", "zero_shot"],
}
SPEECH = ["mini_tts", "libritts", "ljspeech", "aishell3"]
RECOGNITION = [name for name in RECIPES if name not in SPEECH]


def stages_of(recipe: str) -> list[str]:
    """What its stages are called."""
    return SPEECH_STAGES if recipe in SPEECH else STAGES


def options_of(recipe: str) -> list[str]:
    """Of synthesis there is no control but several systems, and a judge."""
    return SPEECH_OPTIONS if recipe in SPEECH else OPTIONS


def model_of(recipe: str) -> str:
    """The recipe that it is like."""
    return "mini_tts" if recipe in SPEECH else "mini_asr"


def script(recipe: str) -> str:
    return (EGS / recipe / "run.sh").read_text(encoding="utf-8")


def declared(recipe: str) -> dict[str, str]:
    """Option -> its line, in the order of run.sh."""
    head = script(recipe).partition(". ../../utils/recipe.sh")[0]
    return {m[1]: m[0] for m in re.finditer(r"^([a-z]\w*)=.*$", head, re.MULTILINE)}


def stages(recipe: str) -> list[tuple[int, str, str]]:
    """(number, text, commands) of each stage."""
    blocks = re.findall(
        r'^if stage (\d+) "([^"]*)"; then\n(.*?)^fi$', script(recipe), re.MULTILINE | re.DOTALL
    )
    return [(int(number), text, commands) for number, text, commands in blocks]


def test_no_recipe_is_left_out() -> None:
    assert sorted(EXTRAS) == RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_files(recipe: str) -> None:
    second = ("diffro", "both") if recipe in SPEECH else ("supervised",)
    files = [f"conf/{name}.yaml" for name in ("grpo", *second)]
    for file in ("run.sh", "README.md", "local/data.sh", *files):
        assert (EGS / recipe / file).is_file(), file
    for file in ("run.sh", "local/data.sh"):
        assert os.access(EGS / recipe / file, os.X_OK), file


@pytest.mark.parametrize("recipe", RECIPES)
def test_stages(recipe: str) -> None:
    """Nine stages; all but the first, which knows the corpus, run the same commands."""
    found = stages(recipe)
    assert [number for number, _, _ in found] == list(range(1, 10))
    assert [text for _, text, _ in found] == stages_of(recipe)
    assert found[1:] == stages(model_of(recipe))[1:]
    assert re.fullmatch(r" +run local/data\.sh (.|\\\n)*--out \"\$data\"\n", found[0][2])
    assert len(re.findall(r"if stage\b", script(recipe))) == 9


@pytest.mark.parametrize("recipe", RECIPES)
def test_run_sh_is_two_screens_at_most(recipe: str) -> None:
    lines = script(recipe).splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("recipe", RECIPES)
def test_options(recipe: str) -> None:
    options, model, common = declared(recipe), declared(model_of(recipe)), options_of(recipe)
    assert sorted(options) == sorted([*common, *EXTRAS[recipe]])
    assert [name for name in options if name in common] == common
    assert all("  # " in line or " # " in line for line in options.values())
    for name in set(common) - {"corpus", "nj"}:
        assert options[name] == model[name]
    readme = (EGS / recipe / "README.md").read_text(encoding="utf-8")
    for name in EXTRAS[recipe]:
        assert f"--{name}" in readme


@pytest.mark.parametrize("recipe", RECIPES)
def test_help(recipe: str, tmp_path: Path) -> None:
    for command, cwd in (((EGS / recipe / "run.sh",), tmp_path), (("./run.sh",), EGS / recipe)):
        said = run(*command, "--help", cwd=cwd).stdout
        for number, text in enumerate(stages_of(recipe), start=1):
            assert f"  {number}  {text}\n" in said
        for name in [*declared(recipe), "set"]:
            assert re.search(rf"^  --{name} +\S", said, re.MULTILINE)
        assert f"egs/{recipe}/run.sh" in said


def commands_of(tmp_path: Path, *options: str) -> list[str]:
    """What mini_tts runs in its stages 3 to 7, with a python that runs nothing."""
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\ncase $* in *check_config*) exec {sys.executable} "$@" ;; esac\n')
    fake.chmod(0o755)
    places = ["--exp", str(tmp_path / "exp"), "--stage", "3", "--stop_stage", "7"]
    environment = {**os.environ, "AUDIORL_PYTHON": str(fake), "PYTHONPATH": str(ROOT)}
    command = [EGS / "mini_tts" / "run.sh", *places, *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if line.startswith("+ ")]


def test_another_judge_listens_in_rl_and_in_scoring(tmp_path: Path) -> None:
    own, other = commands_of(tmp_path), commands_of(tmp_path, "--judge", "../mini_asr/exp/sft")
    assert sum("train_judge" in line for line in own) == 1
    assert not any("train_judge" in line for line in other)
    for commands, judge in ((own, f"{tmp_path}/exp/judge"), (other, "../mini_asr/exp/sft")):
        listening = [line for line in commands if f" --judge {judge} " in line]
        assert [line.split()[3] for line in listening] == [
            *["audiorl.bin.train_rl"] * 3,
            "audiorl.bin.score",
        ]


def test_an_ear_is_for_rl_alone(tmp_path: Path) -> None:
    own, other = commands_of(tmp_path), commands_of(tmp_path, "--ear", "../mini_asr/exp/sft")
    assert not any(" --ear " in line for line in own)
    hearing = [line for line in other if " --ear ../mini_asr/exp/sft " in line]
    assert [line.split()[3] for line in hearing] == ["audiorl.bin.train_rl"] * 3


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_preparation_has_help_with_an_example(recipe: str) -> None:
    said = run(EGS / recipe / "local" / "data.sh", "--help").stdout
    assert "example" in said.lower() and "--out" in said


@pytest.mark.parametrize("recipe", SPEECH)
def test_the_systems_of_synthesis_differ_in_stage_5_alone(recipe: str) -> None:
    folder = EGS / recipe / "conf"
    files = {path.stem for path in folder.glob("*.yaml")}
    systems = {name for name in files if not name.startswith("table")} - {"grpo"}
    assert {"diffro", "both"} <= systems
    ours = key_values(load_recipe(folder / "grpo.yaml").config)
    for system in systems:
        theirs = key_values(load_recipe(folder / f"{system}.yaml").config)
        changed = {key for key in ours if ours[key] != theirs[key]}
        if changed & {"speech.speakers", "flow.vocoder"}:
            continue  # an experiment of its own: cloned voices, a pretrained speech LM, a vocoder
        assert changed <= {"rl.algorithm", "diffro.sample_filter", "diffro.history"}
        assert (theirs["rl.algorithm"], "diffro.sample_filter" in changed) in [
            ("diffro", False), ("both", True), ("both", False),
        ]  # fmt: skip


@pytest.mark.parametrize("recipe", SPEECH)
def test_the_judge_has_data_of_its_own(recipe: str) -> None:
    config = load_recipe(EGS / recipe / "conf" / "grpo.yaml").config
    assert config.judge.train not in ("", config.data.train, config.data.dev, *config.data.test)
    readme = (EGS / recipe / "README.md").read_text(encoding="utf-8")
    assert f"`{config.judge.train}`" in readme


@pytest.mark.parametrize("recipe", RECOGNITION)
def test_the_control_differs_in_the_algorithm_alone(recipe: str) -> None:
    folder = EGS / recipe / "conf"
    grpo, control = (load_recipe(folder / f"{name}.yaml") for name in ("grpo", "supervised"))
    ours, theirs = key_values(grpo.config), key_values(control.config)
    assert {key for key in ours if ours[key] != theirs[key]} == {"rl.algorithm"}
    assert (ours["rl.algorithm"], theirs["rl.algorithm"]) == ("grpo", "supervised")
    assert [Path(file).name for file in control.files] == [
        "asr.yaml",
        "grpo.yaml",
        "supervised.yaml",
    ]


@pytest.mark.parametrize("recipe", ["librispeech", "aishell"])
def test_the_variant_in_comments_loads(recipe: str, tmp_path: Path) -> None:
    """A pretrained LLM: the commented sections, put in the place of those they name."""
    text = (EGS / recipe / "conf" / "grpo.yaml").read_text(encoding="utf-8")
    variant = re.search(r"^# tokenizer:\n(#.*\n)+", text, re.MULTILINE)[0]
    for section in ("tokenizer", "llm"):
        text = re.sub(rf"^{section}:\n(  .*\n)+", "", text, flags=re.MULTILINE)
    text = text.replace(variant, re.sub("^# ?", "", variant, flags=re.MULTILINE))
    base = f"extends: {ROOT / 'conf' / 'asr.yaml'}"
    file = tmp_path / "grpo.yaml"
    file.write_text(re.sub(r"^extends: .*$", base, text, flags=re.MULTILINE), encoding="utf-8")
    config = load_recipe(file).config
    assert config.tokenizer.type == "pretrained"
    assert config.llm.pretrained == "Qwen/Qwen3-0.6B" and config.llm.dtype == "bfloat16"
    assert config.lora.in_warm_start(config).parts() == ["llm"] and config.gradient_checkpointing
    assert "\n" in config.llm.prompt and "{audio}<|im_end|>" in config.llm.prompt
