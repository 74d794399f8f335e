"""Long recordings, decoded in windows that end at pauses."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance
from audiorl.infer.hypothesis import Hypothesis
from audiorl.text.normalise import CJK

PAUSE_RATE = 8000  # Hz; enough to find pauses
PAUSE_FRAME = 400  # samples; 50 ms, of which windows are made
PAUSE = 4  # frames that are to be quiet around a cut; 0.2 s
SHORTEST = 4  # parts are no shorter than a window divided by that
NO_SPACE = re.compile(f"(?<=[{CJK}])\n(?=[{CJK}])")


def windows(utterances: Sequence[Utterance], most: float) -> dict[str, list[Utterance]]:
    """Return each utterance in parts of `most` seconds or less, by its id; 0: whole."""
    return {u.id: _parts(u, most) if 0 < most < u.duration else [u] for u in utterances}


def _parts(u: Utterance, most: float) -> list[Utterance]:
    """Return the parts of an utterance, each of which ends where it is quiet."""
    cuts = _cuts(_loudness(read_audio(u, PAUSE_RATE)), int(most * PAUSE_RATE / PAUSE_FRAME))
    bounds = [0.0, *(cut * PAUSE_FRAME / PAUSE_RATE for cut in cuts), u.duration]
    return [
        # No utterance of a set has an id like that.
        replace(u, id=f"{u.id}/{n:05}", start=u.start + a, end=u.start + b, duration=b - a)
        for n, (a, b) in enumerate(pairwise(bounds))
    ]


def _cuts(loudness: np.ndarray, most: int) -> list[int]:
    """Return the frames to cut at, so that no part has more than `most` of the frames [T].

    The sum of the loudness at the cuts is the least, where a cut more costs as much as the mean
    (shortest path over frames).
    """
    total, least = len(loudness) + 1, max(most // SHORTEST, 1)  # the last frame may be broken
    cost, before = np.full(total + 1, np.inf), np.zeros(total + 1, int)
    cost[0], mean = 0.0, loudness.mean()
    for end in range(least, total + 1):
        first = max(0, end - most)
        before[end] = first + cost[first : end - least + 1].argmin()
        cost[end] = cost[before[end]] + mean + (loudness[end] if end < total - 1 else 0.0)
    cuts, at = [], int(before[total])
    while at > 0:
        cuts.append(at)
        at = int(before[at])
    return cuts[::-1]


def _loudness(wave: np.ndarray) -> np.ndarray:
    """Return the mean square around the beginning of each frame of a wave [S] at PAUSE_RATE."""
    power = (wave[: len(wave) // PAUSE_FRAME * PAUSE_FRAME].reshape(-1, PAUSE_FRAME) ** 2).mean(
        axis=1
    )
    padded = np.pad(power, PAUSE // 2, mode="edge")
    return np.convolve(padded, np.ones(PAUSE) / PAUSE, mode="valid")[: len(power)]


def join(
    parts: Mapping[str, Sequence[Utterance]], found: Mapping[str, Sequence[Hypothesis]]
) -> dict[str, list[Hypothesis]]:
    """Return the hypotheses of whole utterances, best first, from those of their parts in time.

    Of n-best lists, the n likeliest sequences of the parts' hypotheses.
    """
    whole = {}
    for name, own in parts.items():
        best = list(found[own[0].id])
        for part in own[1:]:
            both = [_after(one, two) for one in best for two in found[part.id]]
            best = heapq.nlargest(len(found[part.id]), both, key=lambda one: one.logp)
        whole[name] = best
    return whole


def join_texts(texts: Iterable[str]) -> str:
    """Return texts one after the other, with a space between them where their script has spaces."""
    text = "\n".join(filter(None, (text.strip() for text in texts)))
    return NO_SPACE.sub("", text).replace("\n", " ")


def _after(one: Hypothesis, two: Hypothesis) -> Hypothesis:
    text = join_texts((one.text, two.text))
    return Hypothesis(text, one.logp + two.logp, one.finished and two.finished)
