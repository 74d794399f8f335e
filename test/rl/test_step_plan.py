"""Plans of steps and of stages, and the numbers of pages that come from them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from audiorl.bin import plan as command
from audiorl.config import load_config
from audiorl.rl import plan

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^\$ (python -m audiorl\.bin\.plan .*)\n((?:.*\n)*?)```", re.MULTILINE)


PAGES = {"docs/scaling.md": 4} | {
    f"egs/{recipe}/README.md": 1
    for recipe in ("librispeech", "aishell", "gigaspeech", "libritts", "aishell3", "ljspeech")
}


@pytest.mark.parametrize("page", PAGES)
def test_the_numbers_of_a_page_are_those_of_the_program(
    page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert len(blocks) == PAGES[page]
    monkeypatch.chdir(ROOT)
    for line, shown in blocks:
        monkeypatch.setattr("sys.argv", shlex.split(line)[2:])
        command.main()
        assert capsys.readouterr().out == shown, line


def test_more_gpus_take_less_of_each() -> None:
    config = load_config(ROOT / "conf" / "sizes" / "2b.yaml")
    sizes = plan.sizes_of(config, 10.0)
    assert sizes.body + sizes.head == pytest.approx(1.72e9, rel=0.01)
    one, eight = (plan.phases(config, sizes, plan.GPUS["H100"], n, 50.0) for n in (1, 8))
    assert eight["update"] == pytest.approx(one["update"] / 8)
    assert eight["rollout"] > one["rollout"] / 8  # each reads all weights for fewer rows
    assert one["links"] == 0 < eight["links"]
    shared, own = (plan.memory(config, sizes, 8, kept, 50.0) for kept in (True, False))
    assert own - shared == pytest.approx(12 * sizes.learning * 7 / 8)
