"""Records of a run: metrics.jsonl, TensorBoard, completions.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

from audiorl.runs.checkpoint import truncate_jsonl
from audiorl.runtime.files import disk_errors


class Reporter:
    """Appends the metrics of steps; a resumed run replaces what it does again."""

    def __init__(self, folder: Path, last_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.metrics_path = folder / "metrics.jsonl"
        self.completions_path = folder / "completions.jsonl"
        truncate_jsonl(self.metrics_path, last_step)
        truncate_jsonl(self.completions_path, last_step)
        self.tensorboard = SummaryWriter(folder / "tensorboard", purge_step=last_step + 1)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write a line of metrics.jsonl; NaN (nothing to measure) becomes null."""
        line = {k: float(f"{v:.6g}") if math.isfinite(v) else None for k, v in metrics.items()}
        self._append(self.metrics_path, [{"step": step, **line}])
        with disk_errors(self.tensorboard.log_dir):
            for name, value in metrics.items():
                self.tensorboard.add_scalar(name, value, step)

    def completions(self, step: int, lines: Iterable[dict]) -> None:
        """Write the hypotheses of a step to completions.jsonl, one line each."""
        self._append(self.completions_path, [{"step": step, **line} for line in lines])

    def audio(self, step: int, tag: str, wave, sample_rate: int, text: str) -> None:
        """Write a wave to TensorBoard, with the text recognised in it."""
        self.tensorboard.add_audio(tag, wave, step, sample_rate)
        self.tensorboard.add_text(tag, text, step)

    def close(self) -> None:
        self.tensorboard.close()

    @staticmethod
    def _append(path: Path, lines: Iterable[dict]) -> None:
        with disk_errors(path), open(path, "a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
