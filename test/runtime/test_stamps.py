"""Stamps: contents decide, times never do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from audiorl.runtime import stamps
from audiorl.runtime.stamps import ABSENT, Stamp, digest, folder_files


@pytest.fixture
def stamp(tmp_path: Path) -> Callable[..., Stamp]:
    """Makes the stamp of an output, by default as it was made."""
    (tmp_path / "weights").write_text("one")
    (tmp_path / "made").write_text("1")

    def make(settings: dict | None = None, **inputs) -> Stamp:
        settings = {"seed": 1, "decode": {"top_p": 0.9, "keys": (1, 2)}, **(settings or {})}
        files = {"weights": tmp_path / "weights", "lines": "abc", **inputs}
        return Stamp(tmp_path / "stamp.json", settings, files, [tmp_path / "made"])

    return make


def test_what_was_never_made_is_not_current(stamp, capsys) -> None:
    assert not stamp().is_current("it")
    assert capsys.readouterr().out == ""
    stamp().write()
    assert stamp().is_current("it")
    assert capsys.readouterr().out == ""


def touch(path: Path) -> None:
    path.touch()


def back_in_time(path: Path) -> None:
    os.utime(path, (1, 1))


def into_the_future(path: Path) -> None:
    os.utime(path, (4e9, 4e9))


def away_and_back(path: Path) -> None:
    shutil.move(path, path.with_name("away"))
    shutil.copyfile(path.with_name("away"), path)


@pytest.mark.parametrize("do", [touch, back_in_time, into_the_future, away_and_back])
@pytest.mark.parametrize("name", ["weights", "made"])
def test_the_same_bytes_are_unchanged(name: str, do, stamp, tmp_path: Path) -> None:
    stamp().write()
    do(tmp_path / name)
    assert stamp().is_current()


def written(path: Path) -> None:
    path.write_text("two")


def copied_as_it_was(path: Path) -> None:
    """As `cp -a` and `rsync -a` do: an older file with its date."""
    other = path.with_name("other")
    other.write_text("two")
    os.utime(other, (1, 1))
    shutil.copy2(other, path)


def with_the_same_date(path: Path) -> None:
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_text("two")
    os.utime(path, ns=times)


def replaced_by_name(path: Path) -> None:
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.with_name("other").write_text("two")
    os.utime(path.with_name("other"), ns=times)
    os.replace(path.with_name("other"), path)


CHANGES = [written, copied_as_it_was, with_the_same_date, replaced_by_name, Path.unlink]


@pytest.mark.parametrize("do", CHANGES)
@pytest.mark.parametrize("name", ["weights", "made"])
@pytest.mark.parametrize("settled", [0, stamps.SETTLED])
def test_other_bytes_are_changed(name, do, settled, stamp, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(stamps, "SETTLED", settled)
    stamp().write()
    do(tmp_path / name)
    assert not stamp().is_current("it")
    assert capsys.readouterr().out == f"it is out of date: {name} changed\n"
    assert not stamp().is_current()
    assert capsys.readouterr().out == ""


def test_a_folder_or_nothing_has_no_digest(tmp_path: Path) -> None:
    assert digest(tmp_path) == digest(tmp_path / "none") == ABSENT


@pytest.mark.parametrize(
    ("settings", "inputs", "names"),
    [
        ({"seed": 2}, {}, "seed"),
        ({"seed": True}, {}, ""),
        ({"seed": "1"}, {}, "seed"),
        ({"decode": {"top_p": 0.9, "keys": [1, 2]}}, {}, ""),
        ({"decode": {"top_p": 0.8, "keys": [1]}}, {}, "decode.keys, decode.top_p"),
        ({"decode": {"top_p": 0.9}}, {}, "decode.keys"),
        ({"decode": None}, {}, "decode"),
        ({"more": None}, {}, "more"),
        ({}, {"lines": "abd"}, "lines"),
        ({}, {"new/text": "x"}, "new/text"),
        ({"seed": 3}, {"lines": ""}, "seed, lines"),
    ],
)
def test_what_changed_is_named(settings, inputs, names: str, stamp, capsys) -> None:
    stamp().write()
    assert stamp(settings, **inputs).is_current("it") == (not names)
    assert capsys.readouterr().out == (f"it is out of date: {names} changed\n" if names else "")


def test_of_many_changes_the_first_are_named(stamp, capsys) -> None:
    stamp().write()
    assert not stamp(**{f"wav{i}": "x" for i in range(8)}).is_current("it")
    told = "it is out of date: wav0, wav1, wav2, wav3, wav4 and 3 more changed\n"
    assert capsys.readouterr().out == told


BROKEN = ["", "{", "[1]", "null", "{}", '{"format": 0}', '{"format": "1"}', "\xff"]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_stamp_is_out_of_date(text: str, stamp, tmp_path: Path, capsys) -> None:
    stamp().write()
    (tmp_path / "stamp.json").write_bytes(text.encode("latin-1"))
    assert not stamp().is_current("it")
    told = "it is out of date: stamp.json (of another version, or broken) changed\n"
    assert capsys.readouterr().out == told


@pytest.mark.parametrize("part", ["settings", "inputs", "outputs"])
def test_a_stamp_without_a_part_is_out_of_date(part: str, stamp, tmp_path: Path) -> None:
    stamp().write()
    found = json.loads((tmp_path / "stamp.json").read_text())
    for value in (None, [], "x", 3):
        (tmp_path / "stamp.json").write_text(json.dumps({**found, part: value}))
        assert stamp().changes() == [part]
    del found[part]
    (tmp_path / "stamp.json").write_text(json.dumps(found))
    assert stamp().changes() == [part]


def test_another_format_is_out_of_date(stamp, monkeypatch) -> None:
    stamp().write()
    monkeypatch.setattr(stamps, "FORMAT", stamps.FORMAT + 1)
    assert not stamp().is_current()


def test_inputs_are_those_of_the_beginning(stamp, tmp_path: Path) -> None:
    """A change while outputs are made is noticed later."""
    begun = stamp()
    (tmp_path / "weights").write_text("while it ran")
    begun.write()
    assert stamp().changes() == ["weights"]


def test_facts_are_kept_beside_it(stamp) -> None:
    stamp().write(seconds=1.5)
    assert stamp().facts() == {"seconds": 1.5}
    assert stamp().is_current()


def test_other_outputs_of_the_same(stamp, tmp_path: Path) -> None:
    (tmp_path / "part").touch()
    part = stamp().at(tmp_path / "part.json", [tmp_path / "part"], without="lin")
    part.write()
    assert stamp(lines="x").at(tmp_path / "part.json", [tmp_path / "part"], "lin").is_current()
    assert stamp(lines="x").at(tmp_path / "part.json", [tmp_path / "part"]).changes() == ["lines"]
    (tmp_path / "made").unlink()
    assert part.is_current() and not part.changes()
    (tmp_path / "part").write_text("1")
    assert part.changes() == ["part"]


def test_a_stamp_may_stand_elsewhere(stamp) -> None:
    header = json.loads(json.dumps(stamp().content))
    assert stamp().changes(header) == []
    assert stamp(lines="x").changes(header) == ["lines"]
    assert stamp().changes({}) != []


def test_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model" / "deeper").mkdir(parents=True)
    for name in ("b", "a", ".hidden", "deeper/c"):
        (tmp_path / "model" / name).touch()
    assert list(folder_files(tmp_path / "model")) == ["model/a", "model/b"]
    assert folder_files(tmp_path / "none") == {}
