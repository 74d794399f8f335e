"""Progress where there is no terminal: a line now and then, for logs."""

from __future__ import annotations

import pytest

from audiorl.runtime import files


def test_without_a_terminal_there_is_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 10_000, 5))  # each look at the clock is 5 s later
    monkeypatch.setattr(files.time, "monotonic", lambda: next(clock))
    with files.progress(desc="training", total=100, unit="step") as bar:
        bar.mininterval = 0
        for _ in range(40):
            bar.update()
            bar.set_postfix(loss="0.5")
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 40 * 2 * 5 / 60 + 1
    assert all(line.startswith("training: ") and " of 100 (step) in " in line for line in lines)
    assert lines[-1].endswith("left, loss=0.5")


def test_what_is_short_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(files.progress(range(3), "quick")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
