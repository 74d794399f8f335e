from __future__ import annotations

import pytest
from tiny import write_set

from audiorl.data.utterance import Utterance

TEXTS = ["ba do", "ki lu me no", "pa", "ri so tu ba do ki", "lu lu lu"]


@pytest.fixture(scope="session")
def utterances(tmp_path_factory) -> list[Utterance]:
    """Five utterances of unlike lengths, with their audio."""
    return write_set(tmp_path_factory.mktemp("rl") / "train", TEXTS)
