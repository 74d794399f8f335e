"""The picture of an RL set. (Its tables: test_build.py.)"""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from pools import candidate

from audiorl.config.rl_data import SubsetConfig
from audiorl.rl_data.report import draw
from audiorl.rl_data.subsets import Choice

POOL = [
    candidate(f"u{i:02d}", seconds=1 + i / 7, reward_mean=i / 30, reward_std=(i % 5) / 10)
    for i in range(30)
]


def picture(path: Path, *sizes: int) -> np.ndarray:
    choices = [
        Choice(SubsetConfig(name=f"part{i}"), {c.utterance.id: "" for c in POOL[:size]})
        for i, size in enumerate(sizes)
    ]
    draw(POOL, choices, path)
    return matplotlib.image.imread(path)


@pytest.mark.parametrize("sizes", [(30,), (1, 30), (5, 10, 15, 20, 25, 30, 7)])
def test_any_number_of_subsets(sizes: tuple[int, ...], tmp_path: Path) -> None:
    assert picture(tmp_path / "a.png", *sizes).shape[:2] == (864, 1152)


def test_it_shows_what_it_is_about(tmp_path: Path) -> None:
    one, same = (picture(tmp_path / f"{i}.png", 10, 20) for i in range(2))
    assert np.array_equal(one, same)
    # The overlap of the same two subsets in another order: only the matrix and the lines move.
    other = picture(tmp_path / "other.png", 20, 10)
    left_below = np.s_[440:, :560]  # length and reward of the pool
    assert np.array_equal(one[left_below], other[left_below])
    assert not np.array_equal(one[440:, 640:], other[440:, 640:])
