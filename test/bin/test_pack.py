"""A packed system arrives whole or not at all, and nothing leaves its folder."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from deaths import a_dead_process
from safetensors.torch import save

from audiorl.bin import unpack as unpack_module
from audiorl.bin.pack import merge, pack
from audiorl.bin.unpack import unpack
from audiorl.errors import UserError
from audiorl.models import save_weights

CREATED = datetime.datetime(2026, 1, 2, 3, 4, 6, tzinfo=datetime.UTC)
PACKED = {
    "config.yaml": b"seed: 1\n",
    "env.json": b"{}\n",
    "run.sh": b"echo\n",
    "RESULTS.md": b"# RESULTS\n",
    "report.html": b"<!DOCTYPE html>\n",
    "images/a b.png": b"\x89PNG",
    "model/config.yaml": b"family: audio_llm\nllm:\n  hidden_size: 8\n",
    "model/model.safetensors": save({"a": torch.rand(700)}),
    "model/tokenizer.model": b"tokens",
    "model/llm/tokenizer.json": b"{}",
    "decode_greedy/result.json": b"{}",
    "decode_greedy/test_clean/result.json": b"{}",
}
LEFT = ("checkpoints/1.pth", "train.log", "decode_greedy/test_clean/text", "model/.model.tmp")


@pytest.fixture
def exp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "exp" / "grpo"
    for name, content in PACKED.items() | {name: b"left" for name in LEFT}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def packed(exp: Path, tmp_path: Path) -> Path:
    assert pack(exp, tmp_path / "x.zip", CREATED)
    return tmp_path / "x.zip"


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def rewrite(source: Path, change: Callable[[zipfile.ZipInfo, bytes], tuple | None]) -> None:
    """Copies a zip; `change` returns each entry's new header and data, or None to drop it."""
    with zipfile.ZipFile(source) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(source, "w") as archive:
        for entry, data in entries:
            changed = change(entry, data)
            if changed:
                archive.writestr(*changed)


def test_round_trip(packed: Path, tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "there"
    meta = unpack(packed, target)
    arrived = content(target)
    assert json.loads(arrived.pop("meta.json")) == meta
    assert arrived == PACKED
    assert meta["created"] == "2026-01-02T03:04:06+00:00"
    assert meta["files"]["config.yaml"] == {
        "sha256": hashlib.sha256(PACKED["config.yaml"]).hexdigest(),
        "size": len(PACKED["config.yaml"]),
    }
    assert stat.S_IMODE((target / "run.sh").stat().st_mode) == 0o755
    assert not list(target.parent.glob(".*"))


def test_unpacked_folder_packs_to_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    unpack(packed, tmp_path / "there")
    pack(tmp_path / "there", tmp_path / "again.zip", CREATED)
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def test_bytes_depend_on_files_and_date_alone(exp: Path, packed: Path, tmp_path: Path) -> None:
    for path in exp.rglob("*"):
        os.utime(path, (1, 1))
    (exp / "env.json").chmod(0o600)
    pack(exp, tmp_path / "y.zip", CREATED)
    assert (tmp_path / "y.zip").read_bytes() == packed.read_bytes()
    pack(exp, tmp_path / "z.zip", CREATED.replace(year=2027))
    assert (tmp_path / "z.zip").read_bytes() != packed.read_bytes()


def test_what_a_killed_packing_left_is_removed(exp: Path, packed: Path) -> None:
    left = packed.with_name(f".x.zip.{a_dead_process()}.tmp")
    left.touch()
    pack(exp, packed, CREATED)
    assert not left.exists()


def test_packed_again_only_after_a_change(exp: Path, packed: Path) -> None:
    before = packed.read_bytes()
    assert not pack(exp, packed, CREATED.replace(year=2027))
    assert packed.read_bytes() == before
    (exp / "RESULTS.md").write_text("# better\n")
    assert pack(exp, packed, CREATED)
    packed.write_bytes(before[:1000])  # cut short
    assert pack(exp, packed, CREATED)


@pytest.mark.parametrize("name", ["config.yaml", "model/config.yaml", "model/model.safetensors"])
def test_model_is_needed(exp: Path, tmp_path: Path, name: str) -> None:
    (exp / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is missing.*; train first"):
        pack(exp, tmp_path / "x.zip", CREATED)
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.parametrize("damage", ["flip", "header", "cut"])
def test_a_damaged_model_gets_no_new_checksums(exp: Path, tmp_path: Path, damage: str) -> None:
    weights = exp / "model" / "model.safetensors"
    save_weights(torch.nn.Linear(9, 9), weights)
    pack(exp, tmp_path / "x.zip", CREATED)
    content = bytearray(weights.read_bytes())
    if damage == "flip":
        content[-100] ^= 1
    elif damage == "header":
        content[:200] = bytes(200)
    weights.write_bytes(content[: -10 if damage == "cut" else None])
    with pytest.raises(UserError, match=r"safetensors: cannot be loaded.*; restore the file"):
        pack(exp, tmp_path / "y.zip", CREATED)
    assert not (tmp_path / "y.zip").exists()


@pytest.mark.parametrize("path", ["/data/qwen", "~/qwen"])
@pytest.mark.parametrize("name", ["config.yaml", "model/config.yaml"])
def test_paths_of_this_machine_are_refused(exp: Path, tmp_path: Path, name, path) -> None:
    (exp / name).write_text(f"encoder:\n  init: {path}\n")
    with pytest.raises(UserError, match=rf"{name}: encoder.init is {path}, a path of this"):
        pack(exp, tmp_path / "x.zip", CREATED)
    (exp / name).write_text(f"rl:\n  rewards:\n  - {{name: wer, model: {path}}}\n")
    with pytest.raises(UserError, match=r"rl.rewards\[0\].model is "):
        pack(exp, tmp_path / "x.zip", CREATED)


def test_a_pack_holds_no_path_of_this_machine(exp: Path, tmp_path: Path, capsys) -> None:
    texts = {
        "run.sh": f"#!/bin/sh\ncd {tmp_path} || exit 1\nPYTHONPATH=/home/jane/audiorl exec "
        f"/home/jane/venv/bin/python -m x --out {exp} --data '/corpora/my own/x'\n",
        "RESULTS.md": f"cd {tmp_path}; `--dump {tmp_path}/dump` and/or 3/4/5 https://a.b/c/d\n",
        "report.html": f'<a href="{exp}/x">/data/x.wav</a><br/> &#39;/data/y/z&#39;\n',
        "decode_greedy/result.json": json.dumps({"folder": f"{exp}/decode_greedy"}),
    }
    for name, text in texts.items():
        (exp / name).write_text(text)
    (exp / "rewards").mkdir()
    (exp / "rewards" / "mine.py").write_text("MODEL = '/data/judge/model'\n")
    pack(exp, tmp_path / "x.zip", CREATED)
    unpack(tmp_path / "x.zip", tmp_path / "there")
    found = {name: (tmp_path / "there" / name).read_text() for name in texts}
    assert found["run.sh"] == (
        "#!/bin/sh\ncd . || exit 1\nPYTHONPATH=…/audiorl exec …/python -m x "
        "--out exp/grpo --data '…/my own/x'\n"
    )
    assert found["RESULTS.md"] == "cd .; `--dump dump` and/or 3/4/5 https://a.b/c/d\n"
    assert found["report.html"] == '<a href="exp/grpo/x">…/x.wav</a><br/> &#39;…/z&#39;\n'
    assert json.loads(found["decode_greedy/result.json"]) == {"folder": "exp/grpo/decode_greedy"}
    assert "mine.py names /data/judge/model, a path of this machine" in capsys.readouterr().out
    assert not pack(tmp_path / "there", tmp_path / "x.zip", CREATED)


def test_of_the_folder_that_a_model_came_from_the_name_is_packed(exp, tmp_path) -> None:
    (exp / "config.yaml").write_text("model:\n  pretrained: /data/models/whisper\n")
    (exp / "model" / "config.yaml").write_text("llm:\n  pretrained: /data/qwen\n")
    pack(exp, tmp_path / "x.zip", CREATED)
    unpack(tmp_path / "x.zip", tmp_path / "there")
    read = [(tmp_path / "there" / n).read_text() for n in ("config.yaml", "model/config.yaml")]
    assert read == ["model:\n  pretrained: whisper\n", "llm:\n  pretrained: qwen\n"]


@pytest.mark.parametrize("name", ["config.yaml", "run.sh", "report.html", "rewards/mine.py"])
def test_a_password_is_not_packed(exp: Path, tmp_path: Path, name: str) -> None:
    (exp / "rewards").mkdir()
    (exp / name).write_text("# url: https://jane:hidden@example.org/score\n")
    with pytest.raises(UserError, match="holds a password") as refusal:
        pack(exp, tmp_path / "x.zip", CREATED)
    assert "hidden" not in str(refusal.value) and not (tmp_path / "x.zip").exists()


def test_reward_file_is_packed(exp: Path, tmp_path: Path) -> None:
    entry = "rl:\n  rewards:\n    - {{name: file, reward_file: {}}}\n"
    (exp / "config.yaml").write_text(entry.format("local/my reward.py"))
    with pytest.raises(UserError, match=r"\[0\].reward_file is local/my reward.py, and .* no such"):
        pack(exp, tmp_path / "x.zip", CREATED)
    for folder, text in ((tmp_path, "edited since"), (exp, "raise SystemExit")):
        (folder / "local").mkdir()
        (folder / "local" / "my reward.py").write_text(text)
    pack(exp, tmp_path / "x.zip", CREATED)
    unpack(tmp_path / "x.zip", tmp_path / "there")
    assert (tmp_path / "there/local/my reward.py").read_text() == "raise SystemExit"
    pack(tmp_path / "there", tmp_path / "again.zip", CREATED)
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "x.zip").read_bytes()
    (exp / "config.yaml").write_text(entry.format("../secret.py"))
    (exp.parent / "secret.py").write_text("")
    with pytest.raises(UserError, match="though training keeps a copy"):
        pack(exp, tmp_path / "x.zip", CREATED)


# What unpack refuses; the folder must not appear.


def refused(source: Path, folder: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        unpack(source, folder)
    assert str(caught.value).count("\n") == 0
    assert not folder.exists()
    assert not list(folder.parent.glob(f".{folder.name}*"))


@pytest.mark.parametrize(
    "name", ["/tmp/evil", "../evil", "model/../../evil", "a\\..\\evil", "a//b", "./a", "dir/"]
)
def test_names_that_lead_out(packed: Path, tmp_path: Path, name: str) -> None:
    def add(archive: zipfile.ZipFile) -> None:
        entry = zipfile.ZipInfo("placeholder")
        entry.filename = name
        entry.external_attr = (stat.S_IFREG | 0o644) << 16
        archive.writestr(entry, b"evil")

    with zipfile.ZipFile(packed, "a") as archive:
        add(archive)
    refused(packed, tmp_path / "there", "leads out of its folder")
    assert not (tmp_path.parent / "evil").exists() and not (tmp_path / "evil").exists()


def test_links(packed: Path, tmp_path: Path) -> None:
    def link(entry: zipfile.ZipInfo, data: bytes):
        if entry.filename == "run.sh":
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        return entry, data

    rewrite(packed, link)
    refused(packed, tmp_path / "there", "run.sh is a link or no plain file")


def test_larger_than_declared(packed: Path, tmp_path: Path) -> None:
    rewrite(packed, lambda e, d: (e, bytes(10**6)) if e.filename == "env.json" else (e, d))
    refused(packed, tmp_path / "there", r"env.json expands to 1000000 bytes, not to the 3 that")


def test_more_data_than_the_header_says(packed: Path, tmp_path: Path) -> None:
    """Headers that lie about the size do not make more than they say."""
    rewrite(packed, lambda e, d: (e, bytes(10**6)) if e.filename == "env.json" else (e, d))
    data = packed.read_bytes()
    lie = data.replace((10**6).to_bytes(4, "little"), (3).to_bytes(4, "little"))
    assert lie.count((3).to_bytes(4, "little")) > data.count((3).to_bytes(4, "little"))
    packed.write_bytes(lie)
    refused(packed, tmp_path / "there", "is damaged or no zip|differs from the checksum")


def test_other_content(packed: Path, tmp_path: Path) -> None:
    rewrite(packed, lambda e, d: (e, b"seed: 2\n") if e.filename == "config.yaml" else (e, d))
    refused(packed, tmp_path / "there", "config.yaml differs from the checksum in meta.json")


def test_missing_and_surplus_members(packed: Path, tmp_path: Path) -> None:
    data = packed.read_bytes()
    rewrite(packed, lambda e, d: None if e.filename == "RESULTS.md" else (e, d))
    refused(packed, tmp_path / "there", "RESULTS.md is in the zip or in meta.json but not once")
    packed.write_bytes(data)
    with zipfile.ZipFile(packed, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        entry = archive.getinfo("RESULTS.md")
        archive.writestr(entry, PACKED["RESULTS.md"])
    refused(packed, tmp_path / "there", "RESULTS.md is in the zip or in meta.json but not once")


def test_damaged(packed: Path, tmp_path: Path) -> None:
    data = bytearray(packed.read_bytes())
    packed.write_bytes(data[: len(data) // 2])
    refused(packed, tmp_path / "there", "is damaged or no zip")
    packed.write_bytes(b"no zip at all")
    refused(packed, tmp_path / "there", "is damaged or no zip")
    place = data.index(PACKED["model/model.safetensors"]) + 50
    data[place] ^= 1
    packed.write_bytes(data)
    refused(packed, tmp_path / "there", "is damaged or no zip .*model.safetensors")


@pytest.mark.parametrize(
    "meta", [b"{", b"[]", b"{}", b'{"audiorl": 1, "created": 1, "files": {"a": {"size": "x"}}}']
)
def test_not_ours(packed: Path, tmp_path: Path, meta: bytes) -> None:
    rewrite(packed, lambda e, d: (e, meta) if e.filename == "meta.json" else (e, d))
    refused(packed, tmp_path / "there", "has no readable meta.json")
    rewrite(packed, lambda e, d: None if e.filename == "meta.json" else (e, d))
    refused(packed, tmp_path / "there", "has no readable meta.json")


def test_folder_is_never_overwritten(packed: Path, tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.mkdir()
    unpack(packed, target)  # empty: fine
    (target / "mine").write_text("kept")
    before = content(target)
    with pytest.raises(UserError, match="there is not an empty folder"):
        unpack(packed, target)
    assert content(target) == before
    with pytest.raises(UserError, match="mine is not an empty folder"):
        unpack(packed, target / "mine")
    refused(tmp_path / "absent.zip", tmp_path / "other", "absent.zip does not exist")


def test_full_disk(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 100

    monkeypatch.setattr(unpack_module.shutil, "disk_usage", lambda path: Usage)
    refused(packed, tmp_path / "there", "x.zip needs 0 MB; free the disk")


@pytest.mark.parametrize("adapters", [False, True])
def test_unpacked_model_decodes_the_same(
    adapters: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another folder, the original gone, and what its adapters belonged to: the same hypotheses."""
    import torch
    from tiny import tiny_model, write_set

    from audiorl.bin import cli, decode
    from audiorl.config import dump_config
    from audiorl.config.lora import LoRAConfig
    from audiorl.models.policy import load_policy

    exp, base = tmp_path / "exp" / "grpo", tmp_path / "exp" / "base"
    model = tiny_model({"data.test": ["test"]}, spread=4.0)
    model.save(exp / "model")
    (exp / "config.yaml").write_text(dump_config(model.recipe))
    write_set(tmp_path / "dump" / "test", ["ba do ki", "me no pa ri"])

    def decoded(folder: Path) -> str:
        options = ["--config", str(folder / "config.yaml"), "--dump", str(tmp_path / "dump")]
        monkeypatch.setattr(sys, "argv", ["decode", *options, str(folder)])
        cli.run(decode.main)
        return (folder / "decode_greedy" / "test" / "text").read_text()

    if adapters:
        exp.joinpath("model").rename(base)
        policy = load_policy(base)
        policy.adapt(LoRAConfig(rank=2, targets=["llm.v_proj"]), 0)
        policy.train_only(["llm"])
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                if ".lora_B." in name:
                    parameter.fill_(0.1)
        policy.save_adapters(exp / "model", base)
    before = decoded(exp)
    assert len(before.split()) > 2  # something was heard
    merge(exp)
    assert pack(exp, tmp_path / "x.zip", CREATED)
    merge(exp)
    assert not pack(exp, tmp_path / "x.zip", CREATED)
    shutil.rmtree(exp)
    shutil.rmtree(base, ignore_errors=True)
    unpack(tmp_path / "x.zip", tmp_path / "elsewhere" / "grpo")
    assert decoded(tmp_path / "elsewhere" / "grpo") == before


def run_main(monkeypatch: pytest.MonkeyPatch, module, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    module.main()


def test_unpacked_speech_lm_speaks_the_same(
    speaking: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Another folder, the original and the training recordings gone: identical tokens and waves."""
    from audiorl.bin import pack, synthesise, unpack

    def spoken(folder: str, codec: str) -> dict[str, bytes]:
        options = ["--config", f"{folder}/config.yaml", "--dump", "dump", "--codec", codec]
        run_main(monkeypatch, synthesise, *options, folder)
        made = Path(folder, "decode_greedy", "test")
        return {p.name: p.read_bytes() for p in (made / "tokens", *made.glob("wav/*"))}

    before = spoken("exp/both", "exp/codec")
    assert len(before) == 3 and all(map(len, before.values()))
    options = ["exp/both", "--out", "x.zip", "--dump", "dump", "--codec", "exp/codec"]
    run_main(monkeypatch, pack, *options)
    voices = Path("exp/both/codec/spk2vector")
    written = voices.stat().st_mtime_ns
    run_main(monkeypatch, pack, *options)
    assert "x.zip: up to date" in capsys.readouterr().out
    assert voices.stat().st_mtime_ns == written
    assert len(voices.read_text().splitlines()) == 3
    for gone in ("exp", "dump/train"):
        shutil.rmtree(gone)
    run_main(monkeypatch, unpack, "x.zip", "else where/both")
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == (
        "to speak: python -m audiorl.bin.synthesise --config 'else where/both/config.yaml' "
        "--dump dump --codec 'else where/both/codec' 'else where/both'"
    )
    assert spoken("else where/both", "else where/both/codec") == before
    run_main(monkeypatch, pack, "else where/both", "--out", "again.zip")
    unpack.unpack(Path("again.zip"), speaking / "third")
    assert spoken("third", "third/codec") == before


def test_speech_lm_is_not_packed_without_its_voice(
    speaking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny_codecs import native_codec

    from audiorl.bin import pack

    for options in ([], ["--codec", "exp/codec"], ["--dump", "dump"]):
        with pytest.raises(
            UserError, match=r"^exp/both is a speech LM, .*; name --codec, .*--dump"
        ):
            run_main(monkeypatch, pack, "exp/both", "--out", "x.zip", *options)
    native_codec(seed=7).save(speaking / "exp/other/model")
    with pytest.raises(UserError, match=r"^exp/other and exp/both are of .*; name the codec that"):
        options = ["--dump", "dump", "--codec", "exp/other"]
        run_main(monkeypatch, pack, "exp/both", "--out", "x.zip", *options)
    pack.keep_voices(Path("exp/both"), Path("exp/codec"), Path("dump"))
    config = speaking / "exp/codec/model/config.yaml"
    config.write_text("encoder:\n  init: /data/qwen\n")
    with pytest.raises(UserError, match=r"^exp/codec/model/config.yaml: encoder.init is /data/q"):
        pack.pack(Path("exp/both"), Path("x.zip"), CREATED, Path("exp/codec"))
    assert not (speaking / "x.zip").exists()


def test_each_command_refuses_the_other_task(
    speaking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny import tiny_model

    from audiorl.bin import decode, synthesise
    from audiorl.config import dump_config

    model = tiny_model({"data.test": ["test"]})
    model.save(speaking / "exp/asr/model")
    (speaking / "exp/asr/config.yaml").write_text(dump_config(model.recipe))

    def options(system: str) -> list[str]:
        return ["--config", f"exp/{system}/config.yaml", "--dump", "dump", f"exp/{system}"]

    with pytest.raises(UserError, match=r"^exp/both is a speech LM, .* audiorl.bin.synthesise on"):
        run_main(monkeypatch, decode, *options("both"))
    with pytest.raises(UserError, match=r"^exp/asr is a recogniser, .*; run audiorl.bin.decode on"):
        run_main(monkeypatch, synthesise, "--codec", "exp/none", *options("asr"))


def test_commands(exp: Path, tmp_path: Path) -> None:
    (exp / "env.json").unlink()

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", *arguments]
        path = str(Path(__file__).parents[2])
        env = os.environ | {"PYTHONPATH": path}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)

    done = run("audiorl.bin.pack", "exp/grpo", "--out", "exp/grpo/grpo.zip")
    assert done.returncode == 0, done.stderr
    assert "exp/grpo has no env.json: packed without." in done.stdout
    assert "exp/grpo/grpo.zip: packed, 0.0 MB" in done.stdout
    assert "up to date" in run("audiorl.bin.pack", "exp/grpo", "--out", "exp/grpo/grpo.zip").stdout
    done = run("audiorl.bin.unpack", "exp/grpo/grpo.zip", "there")
    assert done.stdout.startswith("there: 11 files, checksums right, packed 20")
    told = "to decode: python -m audiorl.bin.decode --config there/config.yaml --dump dump there"
    assert done.stdout.splitlines()[1:] == [told]
    again = run("audiorl.bin.unpack", "exp/grpo/grpo.zip", "there")
    assert again.returncode == 1
    assert again.stderr.startswith("error: there is not an empty folder")
    assert "Traceback" not in again.stderr
    assert "example:" in run("audiorl.bin.pack", "--help").stdout
    assert "example:" in run("audiorl.bin.unpack", "--help").stdout


@pytest.mark.parametrize("size", ["Infinity", "NaN", "1e999", '"3"', "true", "null", "3.0"])
def test_sizes_that_are_none(packed: Path, tmp_path: Path, size: str) -> None:
    def change(entry: zipfile.ZipInfo, data: bytes):
        if entry.filename == "meta.json":
            data = re.sub(rb'"size": \d+', f'"size": {size}'.encode(), data, count=1)
        return entry, data

    rewrite(packed, change)
    refused(packed, tmp_path / "there", "has no readable meta.json")


def test_a_name_that_is_not_utf8(packed: Path, tmp_path: Path) -> None:
    rewrite(packed, lambda e, d: ("ü.bin", d) if e.filename == "env.json" else (e, d))
    packed.write_bytes(packed.read_bytes().replace("ü.bin".encode(), b"\xff\xff.bin"))
    refused(packed, tmp_path / "there", "is damaged or no zip")


def test_texts_of_a_pack_are_shown_and_not_sent(packed: Path, tmp_path: Path, monkeypatch) -> None:
    def change(entry: zipfile.ZipInfo, data: bytes):
        if entry.filename == "meta.json":
            data = data.replace(b'"created": "2026', b'"created": "\\u001b[2J2026')
        return entry, data

    rewrite(packed, change)
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    run_main(monkeypatch, unpack_module, str(packed), str(tmp_path / "there"))
    assert "\x1b" not in shown.getvalue() and r"\x1b[2J2026" in shown.getvalue()


def test_what_a_killed_unpacking_left_is_removed(packed: Path, tmp_path: Path) -> None:
    left = tmp_path / f".there.{a_dead_process()}.tmp"
    left.mkdir()
    unpack(packed, tmp_path / "there")
    assert not left.exists()
