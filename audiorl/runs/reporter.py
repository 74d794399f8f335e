"""Records of a run: metrics.jsonl, TensorBoard, completions.jsonl; wandb or trackio if asked."""

from __future__ import annotations

import importlib
import json
import math
import uuid
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from audiorl.config.dump import flow
from audiorl.config.keys import key_values
from audiorl.config.schema import Config
from audiorl.errors import UserError
from audiorl.runs.checkpoint import truncate_jsonl
from audiorl.runtime import ranks
from audiorl.runtime.files import atomic_write, disk_errors

TRACKED = "tracked_as"  # file with the name of a run in the project of wandb or trackio


class Reporter:
    """Appends the metrics of steps; a resumed run replaces what it does again.

    Of several processes one writes.

    Of steps that are done again wandb keeps the first values, and trackio both.
    """

    def __init__(self, folder: Path, last_step: int, config: Config | None = None) -> None:
        """`config`: of the run, whose `report_to` is obeyed."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.metrics_path = folder / "metrics.jsonl"
        self.completions_path = folder / "completions.jsonl"
        self._writes = ranks.is_main()
        if not self._writes:
            return
        truncate_jsonl(self.metrics_path, last_step)
        truncate_jsonl(self.completions_path, last_step)
        self.tensorboard = SummaryWriter(folder / "tensorboard", purge_step=last_step + 1)
        self.tracker = _open_tracker(folder, config) if config else None

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write a line of metrics.jsonl; NaN (nothing to measure) becomes null."""
        if not self._writes:
            return
        line = {k: float(f"{v:.6g}") if math.isfinite(v) else None for k, v in metrics.items()}
        self._append(self.metrics_path, [{"step": step, **line}])
        with disk_errors(self.tensorboard.log_dir):
            for name, value in metrics.items():
                self.tensorboard.add_scalar(name, value, step)
        if self.tracker:
            known = {name: value for name, value in line.items() if value is not None}
            self.tracker.log(known, step=step)

    def completions(self, step: int, lines: Iterable[dict]) -> None:
        """Write the hypotheses of a step to completions.jsonl, one line each."""
        if self._writes:
            self._append(self.completions_path, [{"step": step, **line} for line in lines])

    def audio(self, step: int, tag: str, wave, sample_rate: int, text: str) -> None:
        """Write a wave to TensorBoard, with the text recognised in it."""
        if self._writes:
            self.tensorboard.add_audio(tag, wave, step, sample_rate)
            self.tensorboard.add_text(tag, text, step)

    def close(self) -> None:
        if not self._writes:
            return
        self.tensorboard.close()
        if self.tracker:
            self.tracker.finish()

    @staticmethod
    def _append(path: Path, lines: Iterable[dict]) -> None:
        with disk_errors(path), open(path, "a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _open_tracker(folder: Path, config: Config) -> ModuleType | None:
    """Return wandb or trackio with the run of `folder` begun or continued; None if none is asked.

    Raises UserError if it is not installed.
    """
    name = config.report_to
    if name == "tensorboard":
        return None
    try:
        tracker = importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"report_to: {name} is not installed; run `pip install {name}`, or set tensorboard."
        ) from error
    kept = folder / TRACKED
    if not kept.exists():
        with atomic_write(kept) as stream:
            stream.write("-".join([*folder.resolve().parts[-3:], uuid.uuid4().hex[:8]]))
    run = kept.read_text(encoding="utf-8")
    # wandb continues a run by its id, trackio by its name.
    own = {"id": run, "dir": str(folder)} if name == "wandb" else {}
    plain = (str, int, float)
    settings = {k: v if isinstance(v, plain) else flow(v) for k, v in key_values(config).items()}
    tracker.init(project="audiorl", name=run, config=settings, resume="allow", **own)
    return tracker
