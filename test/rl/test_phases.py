"""Frames kept on the host, and seconds by phase."""

from __future__ import annotations

import time

import pytest
import torch
from tiny import sing, tiny_model

from audiorl.rl.frames import FrameArchive, FrameStore
from audiorl.rl.phases import Phases


def test_frames_are_those_of_the_wave(utterances) -> None:
    model = tiny_model()
    for u, frames in zip(utterances, FrameStore(model, True).get(utterances), strict=True):
        assert not frames.requires_grad
        with torch.no_grad():
            wave = torch.from_numpy(sing(u.text, int(u.id[-3:])))
            torch.testing.assert_close(frames, model.encode([wave])[0], rtol=0, atol=1e-3)


def test_a_frozen_encoder_gives_the_same_bits_in_any_company(utterances) -> None:
    """What a resumed run hears must not depend on what an undisturbed one heard before."""
    model = tiny_model()
    together = FrameStore(model, frozen=True).get(utterances)
    for i, u in enumerate(utterances):
        store = FrameStore(model, frozen=True)
        store.get(utterances[i + 1 :])
        assert torch.equal(store.get([u, utterances[0]])[0], together[i])


def test_what_is_kept_is_used(utterances, monkeypatch) -> None:
    encoded = []
    original = FrameStore.encode

    def counting(model, chosen):
        encoded.extend(u.id for u in chosen)
        return original(model, chosen)

    monkeypatch.setattr(FrameStore, "encode", staticmethod(counting))
    frozen = FrameStore(tiny_model(), frozen=True)
    first = frozen.get([utterances[0], utterances[1], utterances[0]])
    assert torch.equal(first[0], first[2])
    assert len(encoded) == 2
    again = frozen.get([utterances[1], utterances[2]])
    assert torch.equal(again[0], first[1])
    assert len(encoded) == 3

    encoded.clear()
    learning = FrameStore(tiny_model(), frozen=False)
    learning.get(utterances[:2])
    learning.get(utterances[:2])
    assert len(encoded) == 4


def test_no_more_is_kept_than_allowed(utterances) -> None:
    model = tiny_model()
    sizes = [f.numel() * 4 for f in FrameStore(model, True).get(utterances)]
    store = FrameStore(model, frozen=True, limit_bytes=sizes[0] + sizes[1] + 1)
    expected = FrameStore(model, frozen=True).get(utterances)
    for _ in range(2):
        for one, other in zip(store.get(utterances), expected, strict=True):
            assert torch.equal(one, other)
    kept = sum(f.numel() * 4 for f in store._frames.values())
    assert 0 < kept <= sizes[0] + sizes[1] + 1
    # Each has storage of its own: a view would keep the whole batch in memory.
    assert all(f.untyped_storage().nbytes() == f.numel() * 4 for f in store._frames.values())


def test_phases_add_up() -> None:
    phases = Phases(torch.device("cpu"))
    with phases("rollout"):
        time.sleep(0.02)
    for _ in range(2):
        with phases("update"):
            time.sleep(0.01)
    metrics = phases.metrics(audio_seconds=3.0)
    assert metrics["timing_s/rollout"] >= 0.02
    assert metrics["timing_s/update"] >= 0.02
    assert metrics["timing_s/step"] >= metrics["timing_s/rollout"] + metrics["timing_s/update"]
    assert metrics["perf/audio_seconds_per_second"] == pytest.approx(
        3.0 / metrics["timing_s/step"], rel=0.1
    )
    assert 0.01 < metrics["perf/max_memory_gb"] < 100


def test_frames_on_disk_are_not_encoded_again(utterances, tmp_path, monkeypatch) -> None:
    model = tiny_model()
    expected = FrameStore(model, frozen=True).get(utterances)

    def store() -> FrameStore:
        archive = FrameArchive(tmp_path / "frames", torch.float32)
        return FrameStore(model, frozen=True, limit_bytes=0, disk=archive)

    first = store()
    assert all(map(torch.equal, first.get(utterances[:3]), expected))
    encoded = []
    original = FrameStore.encode

    def counting(model, chosen):
        encoded.extend(u.id for u in chosen)
        return original(model, chosen)

    monkeypatch.setattr(FrameStore, "encode", staticmethod(counting))
    assert all(map(torch.equal, first.get(utterances[:3]), expected))
    assert all(map(torch.equal, store().get(utterances), expected))
    assert encoded == [u.id for u in utterances[3:]]


def test_an_archive_outlives_a_killed_run_and_a_move(tmp_path) -> None:
    frames = {name: torch.randn(3 + i, 4) for i, name in enumerate("abc")}
    archive = FrameArchive(tmp_path / "old", torch.float32)
    archive.write({"a": frames["a"], "b": frames["b"]})
    with archive.scp.open("a") as stream:
        stream.write("c /somewhere/frames.a")  # cut within its line
    with archive.ark.open("ab") as stream:
        stream.write(b"c \0BFM half a mat")
    (tmp_path / "old").rename(tmp_path / "new")
    moved = FrameArchive(tmp_path / "new", torch.float32)
    assert moved.read(["a", "c"]).keys() == {"a"}
    moved.write({"c": frames["c"]})
    for name, value in FrameArchive(tmp_path / "new", torch.float32).read("abc").items():
        assert torch.equal(value, frames[name])
    assert torch.equal(moved.read(["c"])["c"], frames["c"])
