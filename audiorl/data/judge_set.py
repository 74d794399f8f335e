"""Stage 1 of synthesis: recordings for the judge alone.

A judge that has heard what the codec and the reward model learn from may make their mistakes. So
one part in four of the training data is its own, and nothing else learns from it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from audiorl.data.utterance import Utterance

STRIDE = 4  # one part in so many
FEWEST_PARTS = 2 * STRIDE  # where there are fewer, single utterances are parts
FEWEST = 200  # utterances; of fewer, codec and speech LM want them all


def set_aside(
    train: Sequence[Utterance], part: Callable[[Utterance], str], parts: str
) -> tuple[list[Utterance], list[Utterance]]:
    """Takes the judge's recordings out of `train`, always the same -> (those, the rest).

    part: what is taken whole, the speaker or the chapter of an utterance; `parts`: what to call
    them. Prints what it did. Of a small corpus nothing is taken, and the first list is empty.
    """
    ordered = sorted(train, key=lambda utterance: utterance.id)
    if len(ordered) < FEWEST:
        print(
            f"NO DATA OF ITS OWN for the judge: {len(ordered):,} utterances, fewer than {FEWEST}, "
            "are too few to part. It learns from what it judges; trust its scores less."
        )
        return [], ordered
    groups: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in ordered:
        groups[part(utterance)].append(utterance)
    what = parts
    if len(groups) < FEWEST_PARTS:
        what = f"utterances ({len(groups)} {parts} are too few to part)"
        groups = {utterance.id: [utterance] for utterance in ordered}
    chosen = sorted(groups)[STRIDE - 1 :: STRIDE]
    judge = [utterance for name in chosen for utterance in groups[name]]
    taken = {utterance.id for utterance in judge}
    print(
        f"for the judge alone: {len(judge):,} of {len(ordered):,} utterances for training, "
        f"{len(chosen):,} of {len(groups):,} {what}"
    )
    return judge, [utterance for utterance in ordered if utterance.id not in taken]
