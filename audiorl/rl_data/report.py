"""An RL set at a glance: a table for the terminal and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from audiorl.report.charts import COLOURS, INK, STYLE
from audiorl.rl_data.subsets import Candidate, Choice
from audiorl.runtime.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EDGES = (-1.0, 0.0, 0.25, 0.5, 0.75, 0.9, 1.0)  # of mean rewards, in the table
HEADER = "subset        utts  share  hours  seconds  error  pass  reward  spread  equal"


def print_tables(pool: Sequence[Candidate], choices: Sequence[Choice]) -> None:
    """Print the difficulty of the pool and of each subset."""
    print("\nmean reward    utterances  equal rewards")
    means = [c.difficulty.reward_mean for c in pool]
    bins = np.digitize(means, EDGES[1:-1])
    bounds = [f"{low:5.2f} .. {high:.2f}" for low, high in pairwise(EDGES)]
    bounds[0], bounds[-1] = f"    below {EDGES[1]:.2f}", f"{EDGES[-2]:5.2f} or more"
    for i, label in enumerate(bounds):
        inside = [c for c, b in zip(pool, bins, strict=True) if b == i]
        print(f"{label:<14}{len(inside):11d}{sum(c.difficulty.flat for c in inside):15d}")
    weights = sum(choice.subset.weight for choice in choices)
    print(f"\n{HEADER}")
    print(_row("(pool)", "", pool))
    for choice in choices:
        members = [c for c in pool if c.utterance.id in choice.reasons]
        share = f"{choice.subset.weight / weights:.0%}"
        print(_row(choice.subset.label, share, members))
    print("share: of the prompts in training; error: of the greedy hypothesis; pass,")
    print("reward, spread: of the sampled ones; equal: without spread\n")


def _row(label: str, share: str, members: Sequence[Candidate]) -> str:
    seconds = [c.utterance.duration for c in members]
    found = [c.difficulty for c in members]
    errors = [d.error for d in found if d.error is not None]
    return (
        f"{label if len(label) <= 12 else label[:11] + '…':<12}{len(members):6d}{share:>7}"
        f"{sum(seconds) / 3600:7.2f}{fmean(seconds):9.2f}{fmean(errors or [0.0]):7.0%}"
        f"{fmean(d.pass_rate for d in found):6.0%}{fmean(d.reward_mean for d in found):8.2f}"
        f"{fmean(d.reward_std for d in found):8.2f}{fmean(d.flat for d in found):7.0%}"
    )


def draw(pool: Sequence[Candidate], choices: Sequence[Choice], path: Path) -> None:
    """Difficulty and length of the pool and of each subset, and what subsets share, as a PNG."""
    import matplotlib.figure  # slow to import

    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(9.6, 7.2), layout="constrained")
        axes = figure.subplots(2, 2)
        _histograms(axes[0, 0], pool, choices, "mean reward of the sampled hypotheses", _reward)
        _histograms(axes[0, 1], pool, choices, "seconds", _seconds)
        axes[0, 1].legend()
        dots = axes[1, 0].scatter(
            [_seconds(c) for c in pool],
            [_reward(c) for c in pool],
            c=[c.difficulty.reward_std for c in pool],
            s=6,
            cmap="viridis",
        )
        axes[1, 0].set(xlabel="seconds", ylabel="mean reward")
        figure.colorbar(dots, label="standard deviation in the group")
        _overlap(axes[1, 1], choices)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120, facecolor="white")


def _reward(candidate: Candidate) -> float:
    return candidate.difficulty.reward_mean


def _seconds(candidate: Candidate) -> float:
    return candidate.utterance.duration


def _histograms(axes: Axes, pool, choices: Sequence[Choice], label: str, value) -> None:
    """The pool in grey, the subsets as lines over it."""
    edges = np.histogram_bin_edges([value(c) for c in pool], bins=30)
    axes.hist([value(c) for c in pool], edges, color=INK, alpha=0.2, label="pool")
    for i, choice in enumerate(choices):
        values = [value(c) for c in pool if c.utterance.id in choice.reasons]
        colour = COLOURS[i % len(COLOURS)]
        style = ("-", "--", ":")[i // len(COLOURS) % 3]
        axes.hist(values, edges, histtype="step", color=colour, ls=style, label=choice.subset.label)
    axes.set(xlabel=label, ylabel="utterances")


def _overlap(axes: Axes, choices: Sequence[Choice]) -> None:
    """Draw the number of utterances that two subsets share; shade: share of the row's subset."""
    counts = np.array(
        [[len(a.reasons.keys() & b.reasons.keys()) for b in choices] for a in choices]
    )
    axes.imshow(counts / counts.diagonal()[:, None], cmap="Blues", vmin=0, vmax=1.6)
    labels = [choice.subset.label for choice in choices]
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, str(count), ha="center", va="center")
    axes.grid(False)
    axes.set_title("utterances that two subsets share")
