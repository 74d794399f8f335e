"""Several processes learn what one learns: equal completions and metrics, and weights to 1e-5."""

from __future__ import annotations

import pytest
from ranks_grid import KINDS, Apart, Cell, Kept, Learnt, Trainings, cells
from runs import Corpus

# Those of recognition have every choice together; of others, whose losses they share, a few.
FEW = {"control": 1, "adapters": 2, "tts": 3, "diffro": 2}
CELLS = [cell for kind in KINDS for cell in cells(kind, 1)[: FEW.get(kind)]]


@pytest.fixture(scope="module")
def trainings(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(tmp_path_factory.mktemp("ranks"), corpus)


@pytest.fixture(scope="module")
def one(trainings: Trainings) -> dict[Cell, Learnt]:
    found = trainings.all_of([(cell, "replicate") for cell in CELLS])
    return {cell: learnt for (cell, _), learnt in found.items()}


def in_turn(first: int) -> list[Kept]:
    """Keep the weights of each cell in another way than those of the cell before."""
    return [(cell, cell.ways[(n + first) % len(cell.ways)]) for n, cell in enumerate(CELLS)]


def agree(found: dict[Kept, Learnt], one: dict[Cell, Learnt]) -> None:
    apart = {f"{cell}; {way}": Apart.of(f, one[cell]) for (cell, way), f in found.items()}
    assert {name: a for name, a in apart.items() if not a.is_rounding} == {}


def test_one_process_learns(one: dict[Cell, Learnt]) -> None:
    for cell, learnt in one.items():
        assert max(metrics["grad_norm"] for metrics in learnt.metrics) > 1e-3, cell


def test_two_processes_learn_what_one_learns(trainings: Trainings, one: dict[Cell, Learnt]) -> None:
    agree(trainings.several(2, in_turn(0)), one)


def test_four_processes_learn_what_one_learns(
    trainings: Trainings, one: dict[Cell, Learnt]
) -> None:
    agree(trainings.several(4, in_turn(1)), one)
