"""Stage 1 of synthesis: recordings for the judge alone.

A judge trained on the data of the codec and the reward model may make the same mistakes. So one
part in four of the training data is for the judge, and no other model trains on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from audiorl.data.utterance import Utterance

JUDGE_STRIDE = 4  # one part in so many
FEWEST_PARTS = 2 * JUDGE_STRIDE  # where there are fewer, single utterances are parts
FEWEST = 200  # utterances; of fewer, codec and speech LM want them all


def set_aside(
    train: Sequence[Utterance], part: Callable[[Utterance], str], parts: str
) -> tuple[list[Utterance], list[Utterance]]:
    """Take the judge's recordings out of `train`; return (these, the rest).

    Deterministic. part: the unit that is taken whole, speaker or chapter of an utterance; parts:
    its name in the printed line. The first list is empty for a small corpus.
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
    chosen = sorted(groups)[JUDGE_STRIDE - 1 :: JUDGE_STRIDE]
    judge = [utterance for name in chosen for utterance in groups[name]]
    taken = {utterance.id for utterance in judge}
    print(
        f"for the judge alone: {len(judge):,} of {len(ordered):,} utterances for training, "
        f"{len(chosen):,} of {len(groups):,} {what}"
    )
    return judge, [utterance for utterance in ordered if utterance.id not in taken]
