"""`python -m audiorl.bin.check_config`, as users call it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from audiorl.config import check
from audiorl.config.check import check_recipe, summary
from audiorl.config.loader import load_recipe
from audiorl.errors import UserError

REPO = Path(__file__).resolve().parents[2]
BASE = REPO / "conf" / "asr.yaml"
# Runs the entry point and tells on standard error what it imported.
PROBE = """
import sys
from audiorl.bin.check_config import main
from audiorl.bin.cli import run
try:
    run(main)
finally:
    heavy = {"torch", "transformers", "numpy", "espnet2"} & set(sys.modules)
    assert not heavy, heavy
"""


def call(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd or REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        check=False,
    )


def test_ok_without_torch_and_in_100_columns(tmp_path: Path) -> None:
    recipe = tmp_path / "my recipes" / "grpo.yaml"
    recipe.parent.mkdir()
    recipe.write_text(
        f"extends: {BASE}\nrl:\n  beta: 0.04\n  rewards: [{{name: wer, weight: 2}}]\n"
    )
    done = call(
        "my recipes/grpo.yaml", "--set", "llm.prompt=" + "x" * 200 + "{audio}", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    first, *rows, last = done.stdout.splitlines()
    assert first == f"defaults < {BASE} < my recipes/grpo.yaml < --set"
    assert [row.split()[0] for row in rows] == ["llm.prompt", "rl.rewards", "rl.beta"]
    assert [row.split()[-1] for row in rows] == [
        "--set",
        "recipes/grpo.yaml:4",
        "recipes/grpo.yaml:3",
    ]
    assert rows[2].split()[:4] == ["rl.beta", "0.04", "default", "0.0"]
    assert rows[0].split()[1] == "'" + "x" * 22 + "…"
    assert max(map(len, rows)) <= 100
    assert last.startswith("my recipes/grpo.yaml: ok, 3 of ")


def test_problems_of_all_files_and_exit_status(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("sed: 1\nrl: {beta: x}\n")
    (tmp_path / "b.yaml").write_text("seed: 1\n")
    (tmp_path / "c.yaml").write_text("seed: 1.0\n")
    done = call("a.yaml", "b.yaml", "c.yaml", "gone.yaml", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines() == [
        "error: a.yaml has 2 problems:",
        "  a.yaml:1: sed: unknown key; did you mean seed?",
        "  a.yaml:2: rl.beta: expected a number >= 0 (got x); the default is 0.0.",
        "c.yaml:1: seed: expected a whole number >= 0 (got 1.0); write 1.",
        "gone.yaml: cannot be read (No such file or directory); fix the path or its access.",
    ]
    assert "b.yaml: ok" in done.stdout and "a.yaml: ok" not in done.stdout


def test_print_is_a_config_again(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"extends: {BASE}\nrl: {{beta: 0.04}}\n")
    done = call("a.yaml", "--print", "--set", "seed=7", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("# a.yaml\n")
    (tmp_path / "again.yaml").write_text(done.stdout)
    again = load_recipe(tmp_path / "again.yaml").config
    assert (again.seed, again.rl.beta) == (7, 0.04)
    assert again == load_recipe(tmp_path / "a.yaml", ["seed=7"]).config


def test_memory_is_estimated_on_demand(tmp_path: Path, monkeypatch, capsys) -> None:
    """The tables of several files; a layer that is not there is a problem of its file."""
    from audiorl.bin.check_config import main

    (tmp_path / "a.yaml").write_text(f"extends: {BASE}\n")
    (tmp_path / "b.yaml").write_text(f"extends: {BASE}\nlora: {{rank: 8, targets: [llm.q]}}\n")
    monkeypatch.setattr(
        sys, "argv", ["check_config", *map(str, sorted(tmp_path.iterdir())), "--memory"]
    )
    with pytest.raises(UserError, match=r"^lora\.targets: llm\.q is no linear layer; llm has"):
        main()
    shown = capsys.readouterr().out
    assert shown.count("memory of stage 5, estimated:") == 1 and shown.endswith(": fits\n")


@pytest.mark.parametrize("task", ["asr", "tts"])
def test_defaults_are_the_base_recipe(task: str) -> None:
    done = call("--defaults", task)
    base = BASE.parent / f"{task}.yaml"
    assert (done.returncode, done.stdout) == (0, base.read_text(encoding="utf-8"))


WRONG = [(), ("--defaults", "sing"), ("--defaults", "asr", "conf/asr.yaml"), ("--config", "a")]


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_use(arguments: tuple[str, ...]) -> None:
    done = call(*arguments)
    assert done.returncode == 2 and "usage:" in done.stderr


def test_options_may_stand_between_files() -> None:
    done = call("conf/asr.yaml", "--set", "seed=2", "conf/asr.yaml")
    assert done.returncode == 0 and done.stdout.count("conf/asr.yaml: ok, 1 of ") == 2


def test_help_shows_an_example() -> None:
    done = call("--help")
    assert (
        "example:\n  python -m audiorl.bin.check_config conf/grpo.yaml --set rl.beta" in done.stdout
    )


# What must be there before anything runs


def refusal(name: str, *options: str) -> str:
    with pytest.raises(UserError) as error:
        check_recipe(name, options)
    return str(error.value)


def test_files_that_the_config_names(write: Callable) -> None:
    name = write("seed: 1")
    Path("lm").mkdir()
    assert refusal(name, "encoder.init=exp/x.pth") == (
        f"--set encoder.init=exp/x.pth: {os.path.abspath('exp/x.pth')}: there is no such file; "
        "give an ESPnet ASR checkpoint (.pth)."
    )
    own = "tokenizer.type=pretrained"
    assert f"{os.path.abspath('lm')} holds no config.json" in refusal(
        name, own, "llm.pretrained=lm"
    )
    for path in ("./gone", "/gone/lm", "a/b/c", "~/lm", "lm2/"):
        assert "there is no such folder" in refusal(name, own, f"llm.pretrained={path}")
    Path("lm/config.json").write_text("{}")
    Path("x.pth").write_bytes(b"")
    check_recipe(name, [own, "llm.pretrained=./lm", "encoder.init=x.pth"])
    for hub in ("gpt2", "Qwen/Qwen3-0.6B"):
        check_recipe(name, [own, f"llm.pretrained={hub}"])


def test_a_config_is_loaded_without_what_it_names(write: Callable) -> None:
    """A packed model is decoded where the checkpoint that it began with is not."""
    assert load_recipe(write("encoder: {init: gone.pth}")).config.encoder.init == "gone.pth"


def test_texts_that_stage_4_reads(write: Callable) -> None:
    name = write("rl_data: {keywords: found, subsets: [{kind: hard}]}")
    Path("one").write_text("")
    for key, value in (("hypotheses", "[one, two]"), ("background", "two")):
        assert refusal(name, f"rl_data.{key}={value}") == (
            f"--set rl_data.{key}={value}: {os.path.abspath('two')}: there is no such file; give "
            "its path, seen from the recipe's folder."
        )
    check_recipe(name, ["rl_data.hypotheses=[one]", "rl_data.background=one"])
    check_recipe(name, ["rl_data.hypotheses=[one, openai/whisper-small]"])
    Path("exp").mkdir()
    assert "there is no such file" in refusal(name, "rl_data.hypotheses=[exp/text]")


def test_missing_package(write: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    assert refusal(write("score:\n  normalizer: english")) == (
        "c.yaml:2: score.normalizer: english needs the package whisper_normalizer, "
        "which is missing; run: pip install --no-deps whisper-normalizer."
    )
    check_recipe(write("score: {normalizer: none}"))


def test_long_origins_keep_their_end(write: Callable) -> None:
    name = write("rl: {beta: 1}", "/".join(["a_long_folder_name"] * 8) + "/c.yaml")
    line = summary(load_recipe(name)).splitlines()[1]
    assert len(line) == 100 and line.endswith("/c.yaml:1") and "…" in line


def test_engines_in_environments_of_their_own(write: Callable) -> None:
    name = write("rl: {engine_python: gone/python}")
    for key in ("rl.engine", "decode.engine"):
        assert refusal(name, f"{key}=vllm") == (
            f"--set {key}=vllm: vllm is not installed, there is no gone/python; run: "
            "tools/install_engine.sh vllm (--cpu without a GPU)."
        )
    check_recipe(name, ["rl.engine=vllm", "rl.engine_url=http://10.0.0.2:80"])
    Path("gone").mkdir()
    Path("gone/python").write_text("")
    check_recipe(name, ["rl.engine=vllm", "decode.engine=vllm"])
    assert "beam search is the native engine's" in refusal(
        name, "decode.engine=vllm", "decode.method=nbest"
    )


def test_a_served_codec_needs_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind that an LM was converted for is known before anything runs."""
    lm = tmp_path / "lm"
    lm.mkdir()
    (lm / "config.json").write_text(
        '{"model_type": "qwen2", "vocab_size": 9, "tokens_of": {"kind": "cosyvoice3"}}'
    )
    (tmp_path / "c.yaml").write_text(
        "task: tts\ncodec: {type: cosyvoice2, pretrained: there}\ntokenizer: {type: pretrained}\n"
        f"llm: {{pretrained: {lm}}}\nspeech: {{layout: cosyvoice, speakers: none}}\n"
    )
    monkeypatch.delenv("AUDIORL_CODEC_SERVER", raising=False)
    with pytest.raises(UserError) as raised:
        check_recipe(tmp_path / "c.yaml")
    assert "c.yaml:2: codec.type: cosyvoice2 runs in its own environment; set " in str(raised.value)
    assert "the LM speaks the tokens of cosyvoice3; set it" in str(raised.value)
    monkeypatch.setenv("AUDIORL_CODEC_SERVER", "serve")
    with pytest.raises(UserError, match=r"cosyvoice3; set it\.$"):
        check_recipe(tmp_path / "c.yaml")
