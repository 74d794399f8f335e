"""Files that come from anywhere: a right reading or a sentence, never a traceback, and never more.

Some 10,000 files, always the same: damaged ones of each kind, and some made of its grammar alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from audiorl.bin.unpack import unpack
from audiorl.config import load_config
from audiorl.config.schema import Config
from audiorl.data.audio import read_audio
from audiorl.data.inspection import inspect
from audiorl.data.rl_set import Item, read_rl_set
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.data.validate import Checks, validate
from audiorl.errors import UserError
from audiorl.models import read_weights, save_weights, weights_of
from audiorl.runs.checkpoint import BestWeights, Checkpoints
from audiorl.runs.optimizer import Optimizers

LONGEST = 20_000  # characters of what is said; a terminal is shown less
EVIL = "/tmp/audiorl_fuzz_evil"  # what hostile files would make


def fuzz(count: int) -> Callable:
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


SIGNS = [
    *(
        b"\n",
        b"\0",
        b"\r\n",
        b"\xff\xfe",
        b"../",
        b"nan",
        b"1e999",
        b"-1",
        b"null",
        b"[",
        b"{",
        b"}",
    ),
    *(
        b"\xed\xa0\x80",
        b"\xe2\x80\xa8",
        b"\x1b[2J",
        b" ",
        b"\t",
        b'"',
        b":",
        b"&a",
        b"*a",
        b"9" * 30,
    ),
]
PIECES = st.one_of(st.binary(max_size=8), st.sampled_from(SIGNS))
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), PIECES), min_size=1, max_size=4)


def edited(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Return a file in which some bytes are replaced, removed or put in."""
    for place, removed, piece in edits:
        start = int(place * len(content))
        content = content[:start] + piece + content[start + removed :]
    return content


def reading(read: Callable[..., Any], *arguments: Any) -> Any:
    """Return what was read; None if it was refused, as everything that is wrong has to be."""
    try:
        found = read(*arguments)
    except UserError as error:
        assert str(error).strip() and len(str(error)) < LONGEST
        found = None
    assert not os.path.exists(EVIL)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "inside" / "here"


@pytest.fixture(autouse=True)
def nothing_outside(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    before = sorted(folder.parent.parent.glob("*")) + sorted(folder.parent.glob("*"))
    yield
    assert before == sorted(folder.parent.parent.glob("*")) + sorted(folder.parent.glob("*"))


RECIPE = b"""\
task: asr
seed: 3
data: {train: train, test: [test, other]}
llm: {hidden_size: 32, pretrained: ''}
rl:
  learning_rate: 1e-5
  rewards:
    - {name: wer, weight: 0.5}
    - {name: length}
"""
SCALARS = [
    *"1 -1 1e-5 1_000 0x1 yes null ~ .nan .inf '' text 2:30 2026-01-01 1e400 { \\".split(),
    *("[" * 50, "9" * 50, "!!python/name:os.system", "!!binary aGk=", "&a [*a]", "<<: {}"),
    f"!!python/object/apply:os.mkdir [{EVIL}]",
]
VALUES = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
        st.dictionaries(st.sampled_from(["name", "weight", "seed", "x"]), inner, max_size=2).map(
            lambda items: "{" + ", ".join(f"{k}: {v}" for k, v in items.items()) + "}"
        ),
    ),
    max_leaves=4,
)
KEYS = st.sampled_from(
    ["task", "seed", "device", "num_threads", "data", "llm", "rl", "rl_data", "score", "extends"]
)


@fuzz(1500)
@given(EDITS)
def test_damaged_recipes(folder: Path, edits) -> None:
    (folder / "x.yaml").write_bytes(edited(RECIPE, edits))
    assert isinstance(reading(load_config, folder / "x.yaml"), Config | None)


@fuzz(1500)
@given(st.lists(st.tuples(KEYS, VALUES), max_size=3))
def test_recipes_of_odd_values(folder: Path, pairs) -> None:
    text = "".join(f"{key}: {value}\n" for key, value in pairs)
    (folder / "x.yaml").write_text(text, encoding="utf-8")
    assert isinstance(reading(load_config, folder / "x.yaml"), Config | None)


TABLES = {
    "utt2spk": b"anna-1 anna\nanna-2 anna\nbob-1 bob\n",
    "text": b"anna-1 one two\nanna-2 three\nbob-1 four\n",
    "wav.scp": b"anna-1 /a.wav\nanna-2 x.ark:17\nbob-1 /b.wav\n",
    "segments": b"anna-1 anna-1 0.0 1.5\nanna-2 anna-2 1 2\nbob-1 bob-1 0 2.25\n",
    "utt2dur": b"anna-1 1.5\nanna-2 1\nbob-1 2.25\n",
    "spk2utt": b"anna anna-1 anna-2\nbob bob-1\n",
    "utt2keywords": b"anna-1 one; two\n",
}


@fuzz(2000)
@given(st.dictionaries(st.sampled_from(list(TABLES)), EDITS, min_size=1, max_size=2))
def test_damaged_data_directories(folder: Path, changes) -> None:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for name, content in TABLES.items():
        (data / name).write_bytes(edited(content, changes.get(name, [])))
    found = reading(read_utterances, data)
    assert found is None or all(isinstance(u, Utterance) and u.id for u in found)
    assert isinstance(reading(validate, data, Checks(audio=False)), list | None)


ITEM = {
    "id": "anna", "audio": "/a.wav", "text": "one", "speaker": "s", "duration": 1.0,
    "keywords": ["one"], "tags": {"snr": "5"}, "subsets": {"hard": {"weight": 1.0, "reason": "r"}},
    "difficulty": {"reward_mean": 0.5, "reward_std": 0.1},
}  # fmt: skip
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
        st.just(10**400), st.just(chr(0xD800)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=3,
)  # fmt: skip


@fuzz(1200)
@given(EDITS)
def test_damaged_rl_sets(folder: Path, edits) -> None:
    line = json.dumps(ITEM).encode() + b"\n"
    content = edited(line + line.replace(b"anna", b"bob"), edits)
    (folder / "x.jsonl").write_bytes(content)
    found = reading(read_rl_set, folder / "x.jsonl")
    assert found is None or all(isinstance(item, Item) for item in found)


@fuzz(1200)
@given(st.dictionaries(st.sampled_from(list(ITEM)), JSON, min_size=1, max_size=2))
def test_rl_sets_of_odd_values(folder: Path, changes) -> None:
    (folder / "x.jsonl").write_text(json.dumps(ITEM | changes) + "\n")
    for item in reading(read_rl_set, folder / "x.jsonl") or []:
        assert "\n".join([item.utterance.id, item.utterance.text]).encode()
        assert all(0 < weight < 1e15 for weight in item.subsets.values())


NAMES = [
    *(
        "a",
        "model/x",
        "../evil",
        EVIL,
        "..\\evil",
        "a/../../evil",
        "a//b",
        "./a",
        "a/",
        "",
        ".",
        "..",
    ),
    *("meta.json", "ü", "a\0b", "x" * 300, "a/b/c", "C:evil", "~/evil"),
]
MODES = [0o100644, 0o120777, 0o040755, 0]
MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.binary(max_size=20),
        st.sampled_from([0o100644, 0o120777, 0o040755, 0]),
    ),
    max_size=3,
)


def archive(members, meta: Any = None) -> bytes:
    """Return a zip; without `meta`, of a packed system with these members."""
    out = io.BytesIO()
    files = {n: {"sha256": hashlib.sha256(d).hexdigest(), "size": len(d)} for n, d, _ in members}
    meta = {"audiorl": "1", "created": "now", "files": files} if meta is None else meta
    with zipfile.ZipFile(out, "w") as zipped:
        zipped.writestr("meta.json", json.dumps(meta))
        for name, data, mode in members:
            entry = zipfile.ZipInfo(name or "x")
            entry.external_attr = mode << 16
            zipped.writestr(entry, data)
    return out.getvalue()


def unpacked(folder: Path, content: bytes) -> None:
    """Unpack into a new folder; whatever happens, nothing is elsewhere and nothing is half."""
    (folder / "x.zip").write_bytes(content)
    there = folder / "there"
    shutil.rmtree(there, ignore_errors=True)
    meta = reading(unpack, folder / "x.zip", there)
    assert there.exists() == (meta is not None)
    assert not list(folder.glob(".*"))
    if meta:
        found = {p.relative_to(there).as_posix() for p in there.rglob("*") if p.is_file()}
        assert found == {*meta["files"], "meta.json"}
        assert not any(path.is_symlink() for path in there.rglob("*"))


@fuzz(600)
@given(EDITS)
def test_damaged_archives(folder: Path, edits) -> None:
    members = [("config.yaml", b"seed: 1\n", 0o100644), ("model/x.bin", bytes(90), 0o100644)]
    unpacked(folder, edited(archive(members), edits))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@fuzz(800)
@given(MEMBERS, st.one_of(st.none(), st.none(), JSON))
def test_hostile_archives(folder: Path, members, meta) -> None:
    unpacked(folder, archive(members, meta))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable]:
    """A folder with one checkpoint, and a function that resumes from it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoints")
    model = torch.nn.Linear(3, 3)
    optimizer = Optimizers([model], 0.1, 0.0)
    best = BestWeights(path, 1)
    best.offer(1, 0.5, model)
    Checkpoints(path).save(1, model, optimizer, {"best": best.scores})

    def resume() -> tuple[int, dict | None]:
        return Checkpoints(path).resume(model, optimizer, BestWeights(path, 1))

    return path, resume


@fuzz(700)
@given(st.sampled_from(["model.safetensors", "trainer.pt", "sums.json", "best"]), EDITS)
def test_damaged_checkpoints(checkpoint, file: str, edits) -> None:
    """Whatever is changed is noticed, or it was the same bytes again."""
    path, resume = checkpoint
    damaged = path / ("best_00000001.safetensors" if file == "best" else f"step_00000001/{file}")
    content = damaged.read_bytes()
    try:
        damaged.write_bytes(edited(content, edits))
        found = reading(resume)
        harmless = damaged.read_bytes() == content or file == "sums.json"
        assert found is None or (found[0] == 1 and harmless)
    finally:
        damaged.write_bytes(content)


@fuzz(500)
@given(EDITS)
def test_damaged_weights(folder: Path, edits) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 3)
    save_weights(model, folder / "x.safetensors")
    content = (folder / "x.safetensors").read_bytes()
    (folder / "x.safetensors").write_bytes(edited(content, edits))
    found = reading(read_weights, folder / "x.safetensors")
    if found is not None and edited(content, edits) != content:
        assert all(torch.equal(found[n], t) for n, t in weights_of(model).items())


@pytest.fixture(scope="module")
def wav() -> bytes:
    out = io.BytesIO()
    soundfile.write(out, [0.1] * 400, 8000, format="WAV", subtype="PCM_16")
    return out.getvalue()


@fuzz(600)
@given(EDITS, st.booleans())
def test_damaged_wav_headers(folder: Path, wav: bytes, edits, anywhere: bool) -> None:
    """Most of the edits fall into the header, which is 44 bytes long."""
    content = edited(wav, edits) if anywhere else edited(wav[:44], edits) + wav[44:]
    (folder / "x.wav").write_bytes(content)
    utterance = Utterance("a", str(folder / "x.wav"), "", "s")
    inspected = reading(inspect, utterance.audio, {})
    samples = reading(read_audio, utterance, 8000)
    assert samples is None or (samples.ndim == 1 and np.isfinite(samples).all())
    assert inspected is None or inspected[0].duration > 0
