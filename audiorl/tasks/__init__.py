"""Tasks: recognition and synthesis, found by the name in a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audiorl.config.schema import Config
    from audiorl.tasks.task import Folders, Task


def make_task(config: Config, folders: Folders) -> Task:
    """Return the task of a recipe."""
    from audiorl.tasks.recognition import Recognition
    from audiorl.tasks.synthesis import Synthesis

    return {"asr": Recognition, "tts": Synthesis}[config.task](config, folders)
