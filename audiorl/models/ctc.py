"""Connectionist temporal classification: its loss, and the likeliest labels. Label 0 is blank."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BLANK = 0


def ctc_log_likelihood(logits: Tensor, lengths: Tensor, labels: Sequence[Tensor]) -> Tensor:
    """Return log P(labels) [B] by logits [T, B, U] of `lengths` [B] frames; labels [L_i] >= 1.

    Labels that need more frames than there are have no alignment: -inf, without a gradient.
    """
    logp = logits.float().log_softmax(-1)
    targets = torch.cat(list(labels)).to(logp.device)
    sizes = torch.tensor([len(row) for row in labels])
    frames = lengths.cpu()
    loss = F.ctc_loss(logp, targets, frames, sizes, reduction="none", zero_infinity=True)
    needed = torch.tensor([frames_needed(row) for row in labels])
    return (-loss).masked_fill((needed > frames).to(loss.device), -torch.inf)


def frames_needed(labels: Tensor) -> int:
    """Return the frames of the shortest alignment of labels [L]: blanks part equal ones."""
    return len(labels) + int((labels[1:] == labels[:-1]).sum())


def best_path(logits: Tensor, lengths: Tensor) -> list[list[int]]:
    """Return the likeliest label of each frame, without repeats and blanks.

    logits [T, B, U], lengths [B]. It is the likeliest path, not the likeliest text, whose paths
    would have to be summed.
    """
    best = logits.argmax(-1).T.tolist()  # [B, T]
    paths = (row[:n] for row, n in zip(best, lengths.tolist(), strict=True))
    return [
        [label for at, label in enumerate(path) if label != BLANK and path[at - 1 : at] != [label]]
        for path in paths
    ]
