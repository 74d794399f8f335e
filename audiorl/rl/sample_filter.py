"""Choice of rollouts that DiffRO learns from (arXiv 2509.18569, section 5.2: the sample filter).

A rollout that never stops, or loops, has a history that no text was spoken in: pulling its tokens
towards the text makes such histories likelier. They are kept out always; `positive_advantage` keeps
out, too, what is no better than the rest of its group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audiorl.text.detectors import token_loops


@dataclass(frozen=True)
class Filtered:
    """Kept rollouts, and the first reason against each of the others."""

    kept: list[bool]
    reasons: dict[str, int]  # reason -> how many

    def metrics(self) -> dict[str, float]:
        """For the log."""
        counts = {"total": len(self.kept), "kept": sum(self.kept), **self.reasons}
        return {f"diffro/{name}": float(count) for name, count in counts.items()}


def filter_samples(
    tokens: Sequence[Sequence[int]],
    finished: Sequence[bool],
    has_room: Sequence[bool],
    advantages: Sequence[float] | None,
) -> Filtered:
    """Looks at responses (their stop tokens left out), `has_room`: enough of them for the text.

    `advantages`, where given, must be above 0; an unscorable sample's is NaN, which is not.
    """
    reasons = {"unterminated": 0, "looping": 0, "too_short": 0}
    if advantages is not None:
        reasons["not_positive"] = 0
    kept = []
    for i, row in enumerate(tokens):
        reason = None
        if not finished[i]:
            reason = "unterminated"
        elif token_loops(row):
            reason = "looping"
        elif not has_room[i]:
            reason = "too_short"
        elif advantages is not None and not advantages[i] > 0:
            reason = "not_positive"
        if reason:
            reasons[reason] += 1
        kept.append(reason is None)
    return Filtered(kept, reasons)
