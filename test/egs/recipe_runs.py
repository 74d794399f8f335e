"""What the tests of recipes share: running one as a user does, and looking at what it left."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile
import warm_python
from pretrained_llm import save_pretrained_llm
from tiny_whisper import save_whisper

ROOT = Path(__file__).resolve().parents[2]
EGS = ROOT / "egs"

# A model small enough for a CPU and a minute.
SMALL = {
    "num_threads": 1,  # two wait for each other where other tests run: 20 times as slow
    "llm.dtype": "float32",  # as a CPU computes
    "tokenizer.vocab_size": 150,
    "frontend.n_mels": 40,
    "frontend.time_masks": 0,
    "frontend.freq_masks": 0,
    "frontend.freq_mask_width": 6,
    "encoder.output_size": 96,
    "encoder.attention_heads": 4,
    "encoder.linear_units": 384,
    "encoder.num_blocks": 2,
    "encoder.kernel_size": 15,
    "encoder.dropout_rate": 0,
    "adaptor.hidden_size": 256,
    "llm.hidden_size": 128,
    "llm.intermediate_size": 384,
    "llm.num_hidden_layers": 2,
    "llm.num_attention_heads": 4,
    "llm.num_key_value_heads": 4,
    "sft.batch_seconds": 30,
    "sft.schedule.gradient_accumulation_steps": 1,
    "sft.schedule.learning_rate": 2e-3,
    "sft.schedule.muon_learning_rate": 0.02,
    "sft.schedule.warmup_steps": 30,
    "sft.token_noise": 0.15,
    "sft.speeds": [],
    "sft.schedule.average": 1,
    "rl.num_generations": 4,
    "rl.warmup_steps": 1,
    "score.bootstrap_samples": 200,
}


# Quick ends of the pipeline, after a warm start of a minute.
QUICK = SMALL | {
    "sft.schedule.max_steps": 150,
    "sft.ctc_steps": 50,
    "sft.schedule.eval_steps": 150,
    "rl_data.drop_flat": "false",
    "rl.max_steps": 2,
    "rl.num_prompts": 4,
    "rl.max_completion_length": 40,
    "rl.eval_steps": 2,
    "rl.micro_batch_tokens": 4096,
    "decode.max_completion_length": 60,
}

# Synthesis with models that learn nothing: a few updates of each.
MOMENTS = {
    "num_threads": 1,
    "codec.schedule.max_steps": 4,
    "codec.schedule.eval_steps": 4,
    "flow.schedule.max_steps": 4,
    "flow.schedule.eval_steps": 4,
    "flow.euler_steps": 2,
    "flow.griffin_lim_steps": 2,
    "judge.schedule.max_steps": 4,
    "judge.schedule.eval_steps": 4,
    "reward_model.schedule.max_steps": 4,
    "reward_model.schedule.eval_steps": 4,
    "sft.schedule.max_steps": 8,
    "sft.schedule.eval_steps": 8,
    "rl.max_steps": 2,
    "rl.num_prompts": 2,
    "rl.num_generations": 2,
    "rl.eval_steps": 2,
    "rl.eval_utterances": 3,
    "score.bootstrap_samples": 200,
}
# The same with models and batches of real speech that are small too.
SMALL_SPEECH = MOMENTS | {
    "data.max_duration": 6,
    "frontend.n_mels": 40,
    "codec.encoder.output_size": 32,
    "codec.encoder.linear_units": 64,
    "codec.encoder.num_blocks": 1,
    "codec.batch_seconds": 20,
    "flow.hidden_size": 32,
    "flow.num_blocks": 2,
    "flow.batch_seconds": 20,
    "judge.encoder.output_size": 32,
    "judge.encoder.linear_units": 64,
    "judge.encoder.num_blocks": 1,
    "judge.batch_seconds": 20,
    "reward_model.encoder.output_size": 32,
    "reward_model.encoder.linear_units": 64,
    "reward_model.encoder.num_blocks": 1,
    "reward_model.batch_seconds": 20,
    "llm.hidden_size": 64,
    "llm.intermediate_size": 128,
    "llm.num_hidden_layers": 2,
    "llm.num_attention_heads": 4,
    "llm.num_key_value_heads": 2,
    "sft.batch_tokens": 1500,
    # RL wants texts whose speech ends: the LM has to learn how often it does.
    "sft.schedule.max_steps": 40,
    "sft.schedule.eval_steps": 40,
    "sft.schedule.learning_rate": 5e-3,
    "sft.schedule.muon_learning_rate": 0.02,
    "sft.schedule.warmup_steps": 5,
    "rl.max_completion_length": 200,
    "decode.max_completion_length": 200,
}
SPEAKING = ("sft", "grpo", "diffro", "both")
REFERENCES = ("natural", "resynthesis")


def settings(values: Mapping[str, object]) -> list[str]:
    """`--set key=value` for each."""
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def environment() -> dict[str, str]:
    return {**os.environ, "AUDIORL_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}


def run(*command: str | Path, cwd: Path = ROOT, expect: int = 0) -> subprocess.CompletedProcess:
    """Runs a command; shows what it said if it ends otherwise than expected."""
    env = {**environment(), "AUDIORL_PYTHON": warm_python.program()}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == expect, done.stdout[-6000:] + done.stderr[-6000:]
    return done


def run_recipe(
    recipe: str, work: Path, *options: str, expect: int = 0
) -> subprocess.CompletedProcess:
    """Runs egs/<recipe>/run.sh with its data, dump and exp below `work`."""
    places = ["--dump", str(work / "dump"), "--exp", str(work / "exp"), "--nj", "1"]
    return run(EGS / recipe / "run.sh", *places, *options, expect=expect)


TINY_RL = {  # of a pretrained model that is random: nothing is learnt
    "device": "cpu",
    "num_threads": 1,
    "rl_data.drop_flat": False,
    "rl_data.probe_utterances": 8,
    "rl.max_steps": 2,
    "rl.num_prompts": 2,
    "rl.num_generations": 2,
    "rl.max_completion_length": 6,
    "rl.eval_steps": 2,
    "rl.rewards": "[{name: edit_distance, unit: char}]",
    "decode.max_completion_length": 6,
    "score.bootstrap_samples": 100,
}


def check_pretrained(
    recipe: str, name: str, control: str, work: Path, corpus: Path, keys: Mapping[str, object]
) -> str:
    """All stages of the recipe conf/<name>.yaml; returns what they printed."""
    files = [f"conf/{file}.yaml" for file in (name, control)]
    places = ["--corpus", str(corpus), "--data", str(work / "data")]
    chosen = [*places, "--config", files[0], "--control", files[1]]
    done = run_recipe(recipe, work, *chosen, *settings({**TINY_RL, **keys}))
    exp = work / "exp"
    sets = [path.parent.name for path in exp.glob(f"{name}/decode_*/*/result.json")]
    assert sets
    for system in ("sft", name, control):
        for folder in (exp / system / "decode_greedy" / one for one in sets):
            assert ids(folder / "text") == ids(work / "dump" / folder.name / "text")
            assert (folder / "result.json").exists()
    assert name in (exp / name / "RESULTS.md").read_text()
    with zipfile.ZipFile(exp / name / f"{name}.zip") as packed:
        assert "model/model.safetensors" in packed.namelist()
    return done.stdout


def built_of_parts(folder: Path) -> dict[str, object]:
    """Keys of conf/whisper_qwen3.yaml with a tiny encoder and LM, saved in the folder."""
    save_pretrained_llm(folder / "llm", "qwen3")
    return {
        "encoder.pretrained": save_whisper(folder / "encoder", seconds=30),
        "llm.pretrained": folder / "llm",
        "adaptor.hidden_size": 16,
        "sft.batch_seconds": 4,
        **{f"sft.schedule.{name}_steps": 2 for name in ("max", "eval", "save")},
        "sft.schedule.gradient_accumulation_steps": 1,
        "sft.schedule.average": 1,
    }


def python(module: str, *arguments: str | Path, cwd: Path = ROOT) -> str:
    """Runs an entry point; returns what it printed."""
    return run(warm_python.program(), "-m", f"audiorl.bin.{module}", *arguments, cwd=cwd).stdout


def modified(folder: Path) -> dict[str, int]:
    """Every file below `folder` that a second run must leave alone -> when it was written (ns).

    Logs grow; locks and run.sh, the command to resume with, are written anew.
    """
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith((".log", ".lock", "run.sh"))
    }


def check_outputs(work: Path, tests: list[str], control: str = "supervised") -> None:
    """All nine stages left what they promise, and the packed system decodes as it did."""
    exp = work / "exp"
    for stage in range(1, 10):
        assert (exp / "log" / f"stage_{stage}.log").stat().st_size > 0
    items = [json.loads(line) for line in open(work / "exp" / "rl" / "train.jsonl")]
    assert items and all(item["difficulty"] and item["provenance"] for item in items)
    for system in ("sft", "grpo", control):
        assert (exp / system / "model" / "model.safetensors").exists()
        for name in tests:
            folder = exp / system / "decode_greedy" / name
            for file in ("text", "result.json", "result.txt", "per_utt.tsv", "ref.trn", "hyp.trn"):
                assert (folder / file).exists(), folder / file
            assert len(ids(folder / "text")) > 0
            assert ids(folder / "text") == ids(work / "dump" / name / "text")
    results = (exp / "grpo" / "RESULTS.md").read_text()
    assert all(name in results for name in (*tests, "sft", control))
    assert "</html>" in (exp / "grpo" / "report.html").read_text()
    unpacked = work / "elsewhere" / "system"
    python("unpack", exp / "grpo" / "grpo.zip", unpacked)
    python("decode", "--config", unpacked / "config.yaml", "--dump", work / "dump", unpacked)
    for name in tests:
        there = Path("decode_greedy", name, "text")
        assert (unpacked / there).read_bytes() == (exp / "grpo" / there).read_bytes()


def check_speech(work: Path, tests: list[str], metric: str) -> None:
    """All nine stages of synthesis left what they promise, for a listener too."""
    exp = work / "exp"
    for stage in range(1, 10):
        assert (exp / "log" / f"stage_{stage}.log").stat().st_size > 0
    for system in (*SPEAKING, *REFERENCES):
        for name in tests:
            wanted = ids(work / "dump" / name / "text")
            folder = exp / system / "decode_sample" / name
            assert wanted and ids(folder / "wav.scp") == wanted
            result = json.loads((folder / "result.json").read_text())
            assert result["utterances"] == len(wanted) and metric in result
            if system != "natural":
                for line in open(folder / "wav.scp"):
                    samples, rate = soundfile.read(line.split(maxsplit=1)[1].strip())
                    assert rate == 16000 and samples.size and np.isfinite(samples).all()
                    assert np.abs(samples).max() > 0, f"{line} is silent"
    items = [json.loads(line) for line in open(exp / "rl" / "train.jsonl")]
    assert items and all(item["duration"] > 0 for item in items)
    for system in SPEAKING:
        assert (exp / system / "model" / "model.safetensors").stat().st_size > 0
    page = (exp / "both" / "report.html").read_text(encoding="utf-8")
    assert "</html>" in page and page.count("<audio") >= len(SPEAKING)
    results = (exp / "both" / "RESULTS.md").read_text(encoding="utf-8")
    assert all(f"|{system}|" in results for system in (*SPEAKING, *REFERENCES))
    with zipfile.ZipFile(exp / "both" / "both.zip") as packed:
        assert packed.testzip() is None
        assert any(name.endswith("model.safetensors") for name in packed.namelist())
    unpacked, dump = work / "elsewhere" / "system", work / "elsewhere" / "dump"
    python("unpack", exp / "both" / "both.zip", unpacked)
    for name in tests:  # the recordings of the train set are not there
        shutil.copytree(work / "dump" / name, dump / name)
    where = ["--config", unpacked / "config.yaml", "--dump", dump, "--codec", unpacked / "codec"]
    python("synthesise", *where, unpacked)
    for name in tests:
        here, there = (folder / "decode_sample" / name for folder in (exp / "both", unpacked))
        assert (there / "tokens").read_bytes() == (here / "tokens").read_bytes()
        for wave in here.glob("wav/*.wav"):
            assert (there / "wav" / wave.name).read_bytes() == wave.read_bytes()


def zero_shot_list(folder: Path) -> Path:
    """A list of texts to be spoken in a voice that no recipe knows, as Seed-TTS-Eval has it."""
    folder.mkdir()
    samples = 0.1 * np.random.default_rng(0).standard_normal(32000)
    soundfile.write(folder / "a.wav", samples, 16000)
    texts = ("in a voice", "never heard")
    lines = (f"en-{n}|some words|a.wav|{text}|a.wav\n" for n, text in enumerate(texts))
    (folder / "meta.lst").write_text("".join(lines))
    return folder / "meta.lst"


def ids(table: Path) -> list[str]:
    """The first column of a Kaldi file."""
    return [line.split()[0] for line in table.read_text(encoding="utf-8").splitlines()]


def train_error(recipe: str, work: Path, values: Mapping[str, object]) -> float:
    """Error rate of the warm start on its own training set: it should know that by heart."""
    where = ["--config", EGS / recipe / "conf" / "grpo.yaml", "--dump", work / "dump"]
    where += settings(values | {"data.test": "[train]", "decode.name": "train"})
    for module in ("decode", "score"):
        python(module, *where, work / "exp" / "sft")
    result = work / "exp" / "sft" / "decode_train" / "train" / "result.json"
    scored = json.loads(result.read_text())
    return scored[scored["metric"].lower()]["rate"]


def load_preparation(recipe: str) -> ModuleType:
    """egs/<recipe>/local/prepare.py as a module."""
    path = EGS / recipe / "local" / "prepare.py"
    spec = importlib.util.spec_from_file_location(f"prepare_{recipe}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A .tar.gz of files."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path
