"""What decoding writes: one line for each utterance, and what was spent."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import sentences, tiny_config, tiny_model, write_set

from audiorl.bin import cli, decode
from audiorl.config import Config, dump_config
from audiorl.data.utterance import read_utterances
from audiorl.engines.native import PolicyEngine
from audiorl.infer.decode import DONE, Transcriber
from audiorl.infer.transcribe import transcribe


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dump") / "test"
    write_set(folder, sentences(7, seed=2))
    return folder


@pytest.fixture(scope="module")
def model():
    return tiny_model(spread=3.0)


def decode_set(model, config: Config, data: Path, out: Path) -> None:
    transcriber = Transcriber(config)
    transcriber.decode(PolicyEngine(model), data, transcriber.stamp(data.parent / "exp", data, out))


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


@pytest.mark.parametrize("method", ["greedy", "nbest", "fallback"])
def test_every_utterance_has_its_line(method: str, data: Path, model, tmp_path: Path) -> None:
    config = tiny_config({"decode.method": method, "decode.num_beams": 3})
    decode_set(model, config, data, tmp_path)
    ids = [line.split()[0] for line in lines(data / "text")]
    assert [line.split()[0] for line in lines(tmp_path / "text")] == ids
    meta = json.loads((tmp_path / "decode.json").read_text())
    assert meta["method"] == method
    assert meta["rtf"] == pytest.approx(meta["seconds"] / meta["audio_seconds"], abs=2e-4)
    durations = [float(line.split()[1]) for line in lines(data / "utt2dur")]
    assert meta["audio_seconds"] == pytest.approx(sum(durations), abs=1e-3)
    beams = 3 if method == "nbest" else 1
    found = transcribe(
        PolicyEngine(model), read_utterances(data), max_length=8, num_beams=beams,
        fallback_seed=config.seed if method == "fallback" else None,
    )  # fmt: skip
    assert meta["truncated"] == [name for name in ids if not found[name][0].finished]
    assert (tmp_path / "nbest.jsonl").exists() == (method == "nbest")
    if method == "nbest":
        best = [json.loads(line) for line in lines(tmp_path / "nbest.jsonl")]
        assert [item["id"] for item in best] == ids
        for item, line in zip(best, lines(tmp_path / "text"), strict=True):
            assert len(item["hypotheses"]) == 3
            assert " ".join([item["id"], item["hypotheses"][0]["text"]]).strip() == line
            assert all(h["logp"] < 0 for h in item["hypotheses"])


@pytest.mark.parametrize("text", ["", "   ", "two\nlines", " a\t b\u2028c ", "\r"])
def test_whatever_is_heard_stays_in_its_line(text, data, model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(model.tokenizer, "decode", lambda ids: text)
    decode_set(model, tiny_config(), data, tmp_path)
    written = lines(tmp_path / "text")
    assert len(written) == 7
    for line in written:
        assert len(line.splitlines()) == 1
        assert line == line.strip()
        assert line.split(maxsplit=1)[1:] == ([" ".join(text.split())] if text.split() else [])


def test_what_is_decoded_is_known(data: Path, model, tmp_path: Path) -> None:
    out, exp = tmp_path / "out", data.parent / "exp"

    def is_decoded(config: Config) -> bool:
        return Transcriber(config).stamp(exp, data, out).is_current()

    assert not is_decoded(tiny_config())
    decode_set(model, tiny_config(), data, out)
    assert is_decoded(tiny_config())
    assert is_decoded(tiny_config({"decode.batch_seconds": 3.0, "decode.num_beams": 9, "seed": 5}))
    assert not is_decoded(tiny_config({"decode.method": "nbest"}))
    assert not is_decoded(tiny_config({"decode.method": "fallback"}))
    assert not is_decoded(tiny_config({"decode.max_completion_length": 99}))
    (out / "text").write_text((out / "text").read_text().partition("\n")[2])
    assert not is_decoded(tiny_config())


@pytest.fixture
def command(data: Path, model, tmp_path: Path, monkeypatch, capsys):
    """Runs the entry point on two experiments; returns the lines that it prints."""
    for name in ("sft", "grpo"):
        model.save(tmp_path / name / "model")
    shutil.copytree(data, tmp_path / "dump" / "test")
    (tmp_path / "c.yaml").write_text(dump_config(tiny_config({"data.test": ["test"]})))
    monkeypatch.chdir(tmp_path)
    given = ["decode", "--config", "c.yaml", "--dump", "dump", "sft", "grpo"]
    monkeypatch.setattr(sys, "argv", given)

    def run() -> list[str]:
        decode.main()
        return capsys.readouterr().out.splitlines()

    return run


def test_the_command_decodes_what_is_out_of_date(command, tmp_path: Path) -> None:
    folders = [f"{name}/decode_greedy" for name in ("sft", "grpo")]
    assert command() == [f"wrote {folder}/test" for folder in folders]
    one, two = (tmp_path / folder / "test" / "text" for folder in folders)
    hypotheses = one.read_bytes()
    assert hypotheses == two.read_bytes()
    complete = [f"{folder} is complete: nothing to do" for folder in folders]
    assert command() == complete
    weights, text = tmp_path / "grpo/model/model.safetensors", tmp_path / "dump/test/text"
    content, times = weights.read_bytes(), (weights.stat().st_atime_ns, weights.stat().st_mtime_ns)
    for path in (weights, text):
        path.touch()
        os.utime(path, (4e9, 4e9))
        assert command() == complete
    # Another model with an old date, as `cp -a` and `rsync -a` bring it; and back again.
    other = tiny_model(spread=3.0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.neg_()
    other.save(tmp_path / "other")
    os.utime(tmp_path / "other" / "model.safetensors", ns=times)
    shutil.copy2(tmp_path / "other" / "model.safetensors", weights)
    again = [
        f"{folders[1]}/test is out of date: model/model.safetensors changed",
        f"wrote {folders[1]}/test",
    ]
    assert command() == [complete[0], *again]
    assert two.read_bytes() != hypotheses
    weights.write_bytes(content)
    os.utime(weights, ns=times)
    assert command() == [complete[0], *again]
    assert two.read_bytes() == hypotheses


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', '{"settings": {}}'])
def test_a_broken_report_is_decoded_anew(text: str, command, tmp_path: Path) -> None:
    command()
    (tmp_path / "sft" / "decode_greedy" / "test" / DONE).write_text(text)
    told = "is out of date: decode.json (of another version, or broken) changed"
    assert command()[:2] == [
        f"sft/decode_greedy/test {told}",
        "wrote sft/decode_greedy/test",
    ]
    assert command()[0] == "sft/decode_greedy is complete: nothing to do"


def test_a_second_decoding_is_refused(command, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "sft" / "decode_greedy"
    code = "import sys; from pathlib import Path; from audiorl.runtime.locks import exclusive\n"
    code += "with exclusive(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    root = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    holder = subprocess.Popen(
        [sys.executable, "-c", code, folder], env=root, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(SystemExit):
        cli.run(decode.main)
    told = f"error: sft/decode_greedy is being written by process {holder.pid} on "
    assert capsys.readouterr().err.startswith(told)
    assert not (folder / "test").exists()
    holder.kill()
    holder.wait()
    assert command() == [f"wrote {name}/decode_greedy/test" for name in ("sft", "grpo")]
