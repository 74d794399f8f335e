"""Options of utils/recipe.sh, through recipes that really run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# What a careless shell would run, split, expand or swallow.
HOSTILE = [
    "$(touch harm)",
    "`touch harm`",
    "; touch harm",
    "two  words",
    'it\'s "quoted"',
    "back\\slash $HOME *",
    "a=b=c",
]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stge", "3"], "--stge is no option; did you mean --stage?"),
        (["--stge"], "did you mean --stage?"),
        (["--stop-stag=3"], "did you mean --stop_stage?"),
        (["--PATH", "x"], "--PATH is no option"),
        (["--recipe_last", "9"], "--recipe_last is no option"),
        (["--stage"], "--stage needs a value"),
        (["--stage", "--nj", "2"], "--stage needs a value"),
        (["--stage", "abc"], "--stage needs a whole number, not 'abc'"),
        (["--stage", "-1"], "--stage needs a whole number, not '-1'"),
        (["--stage=1.5"], "--stage needs a whole number, not '1.5'"),
        (["--stage="], "--stage needs a whole number, not ''"),
        (["--stage", "99999999999999999999"], "--stage needs a whole number"),
        (["--stage", "4"], "stages go from 1 to 3"),
        (["--stop_stage", "0"], "stages go from 1 to 3"),
        (["--stage", "3", "--stop_stage", "2"], "stages go from 1 to 3"),
        (["--nj", "0"], "--nj needs at least 1"),
        (["--nj", "two"], "--nj needs a whole number"),
        (["--num_nodes", "2"], "set MAIN_ADDRESS=host:port"),
        (["--num_processes", "0"], "--num_processes needs at least 1"),
        (["--num_processes", "3", "--ngpu", "2"], "each GPU has one process"),
        (["--exp", ""], "--exp needs the name of a folder"),
        (["--set", "seed"], "--set needs KEY.PATH=VALUE, not 'seed'"),
        (["--set", "=3"], "--set needs KEY.PATH=VALUE"),
        (["--set"], "--set needs a value"),
        (["3"], "'3' is no option"),
        (["--nj", "2", "junk", "--stage", "2"], "'junk' is no option"),
        (["--"], "'--' is no option"),
        ([""], "'' is no option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "-",
)
def test_wrong_options_are_refused_in_a_sentence(recipe, options, message) -> None:
    done = recipe.run(*options)
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1 and not done.stdout
    assert not (recipe.folder / "exp").exists()


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ([], ["first", "second", "third"]),
        (["--stage", "2"], ["second", "third"]),
        (["--stage=3"], ["third"]),
        (["--stop-stage", "1"], ["first"]),
        (["--stage", "2", "--stop_stage=2"], ["second"]),
        (["--stage=1", "--stage=3"], ["third"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "-",
)
def test_stages_that_are_asked_for_run(recipe, options, stages) -> None:
    done = recipe.run(*options)
    assert done.returncode == 0, done.stderr
    words = [line.split()[0] for line in done.stdout.splitlines()]
    assert [word for word in words if word in ("first", "second", "third")] == stages
    assert [f"{path.stem}" for path in sorted((recipe.folder / "exp/log").iterdir())] == [
        f"stage_{('first', 'second', 'third').index(stage) + 1}" for stage in stages
    ]


def test_values_are_stored_and_never_evaluated(recipe) -> None:
    for value in HOSTILE:
        done = recipe.run(
            "--corpus", value, f"--set=llm.prompt=x {value} {{audio}}", "--stop_stage=1"
        )
        assert done.returncode == 0, done.stderr
        sets = ["--config", "conf/grpo.yaml", "--set", f"llm.prompt=x {value} {{audio}}"]
        assert f"first {[value, 'exp', *sets]}" in done.stdout.splitlines()
    assert not list(recipe.root.rglob("harm"))


def test_sets_reach_both_configs_in_their_order(recipe) -> None:
    sets = ["--set", "seed=2", "--set", "rl.beta=0.5"]
    done = recipe.run(*sets)
    assert f"first {['', 'exp', '--config', 'conf/grpo.yaml', *sets]}" in done.stdout
    assert f"second {['--config', 'conf/supervised.yaml', *sets]}" in done.stdout


def test_a_set_overrides_a_default_of_the_recipe(recipe) -> None:
    recipe.write("""\
defaults score.unit=char seed=5
if stage 1 "First"; then
    run python -m audiorl.bin.check_config --print "${opts[@]:1}"
fi
""")
    recipe.script.write_text(recipe.script.read_text().replace("stop_stage=3", "stop_stage=1"))
    done = recipe.run("--set", "seed=7")
    assert done.returncode == 0, done.stderr
    lines = [line.split("#")[0].strip() for line in recipe.log(1).splitlines()]
    assert "seed: 7" in lines and "unit: char" in lines


def test_a_config_brings_its_own_control(recipe) -> None:
    for name in ("other", "other_supervised"):
        (recipe.folder / "conf" / f"{name}.yaml").write_text("extends: grpo.yaml\n")
    chosen = ["--stop_stage=2", "--config", "conf/other.yaml"]
    own, named = "conf/other_supervised.yaml", "conf/supervised.yaml"
    assert f"second {['--config', own]}" in recipe.run(*chosen).stdout
    assert f"second {['--config', named]}" in recipe.run(*chosen, "--control", named).stdout


def test_a_script_without_a_control(recipe) -> None:
    lines = recipe.script.read_text().splitlines(keepends=True)
    recipe.script.write_text("".join(line for line in lines if not line.startswith("control=")))
    done = recipe.run("--stop_stage=2", "--set", "seed=3")
    assert done.returncode == 0, done.stderr
    assert "conf/grpo.yaml: ok" in done.stdout and "supervised" not in done.stdout
    assert f"second {['--config', 'conf/grpo.yaml', '--set', 'seed=3']}" in done.stdout


def test_help_needs_no_environment(recipe) -> None:
    recipe.environment["AUDIORL_PYTHON"] = "/nowhere"
    for option in ("--help", "-h"):
        done = recipe.run("--nj", "2", option, command="egs/small/run.sh")
        assert done.returncode == 0
        lines = done.stdout.splitlines()
        assert lines[:3] == ["A small recipe.", "", "  egs/small/run.sh --stage 2"]
        assert "  2  Second" in lines
        assert "  --config       the recipe (conf/grpo.yaml)" in lines
        assert "  --nj           processes; all cores" in lines
        assert any(line.startswith("  --set ") for line in lines)


def test_defaults_are_all_cores_and_no_gpu(recipe) -> None:
    recipe.environment.update(CUDA_VISIBLE_DEVICES="0", OMP_NUM_THREADS="1")
    assert f"third {len(os.sched_getaffinity(0))} []" in recipe.run("--stage", "3").stdout
    assert "third 7 []" in recipe.run("--stage", "3", "--nj", "7").stdout


def test_a_gpu_that_torch_does_not_find_is_missed_at_once(recipe) -> None:
    recipe.environment["CUDA_VISIBLE_DEVICES"] = ""  # as on a machine without any
    done = recipe.run("--ngpu", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: --ngpu 1: torch finds fewer GPUs")
    assert not (recipe.folder / "exp").exists()


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("egs/small/run.sh", "."),
        ("./run.sh", "egs/small"),
        ("bash run.sh", "egs/small"),
        ("../egs/small/run.sh", "utils"),
    ],
)
def test_a_recipe_runs_from_any_folder(recipe, command: str, folder: str) -> None:
    recipe.environment["CDPATH"] = str(Path("/"))
    done = recipe.run("--stage", "3", command=command, cwd=recipe.root / folder)
    assert done.returncode == 0, done.stderr
    assert "third" in recipe.log(3)
