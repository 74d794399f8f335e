"""RL set on disk: JSON lines, each an utterance, its subsets with reasons, and its difficulty.

    {"id": …, "audio": …, "text": …, …,
     "subsets": {"hard": {"weight": 1.0, "reason": "hypotheses differ by 0.42"}},
     "difficulty": {"reward_mean": 0.61, "reward_std": 0.12, …},
     "provenance": {"set": "rl", "policy": "exp/sft", "seed": 1}}

Any data directory or list of utterances is an RL set, too: one subset, of unknown difficulty. A
prompt of synthesis is a text with empty `audio`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from audiorl.data.utterance import Utterance, is_number, read_utterances
from audiorl.errors import UserError
from audiorl.runtime.files import read_json_lines
from audiorl.runtime.stamps import differs_from_stamp

REBUILD = "build the RL set again (stage 4)"
WHOLE = "all"  # the subset of utterances that belong to none


@dataclass(frozen=True)
class Item:
    """Utterance with the facts that decide the order of prompts."""

    utterance: Utterance
    subsets: dict[str, float] = field(default_factory=lambda: {WHOLE: 1.0})  # name -> weight
    reward_mean: float | None = None  # of the hypotheses that the policy sampled; None: not known
    reward_std: float | None = None


def read_rl_set(path: Path, texts_alone: bool = False) -> list[Item]:
    """Return the items of an RL set, sorted by id.

    texts_alone: accept items without audio. Raises UserError if the file is malformed, or not what
    stage 4 wrote, as far as its stamp is there.
    """
    utterances = read_utterances(path, texts_alone=texts_alone)
    if path.is_dir():
        return [Item(u) for u in utterances]
    if differs_from_stamp(path, stamp := path.with_suffix(".meta.json")):
        raise UserError(
            f"{path} is not what {stamp.name} says that it was, cut or changed; build the RL set "
            f"again (stage 4), or remove {stamp} to use it as it is."
        )
    lines = {line["id"]: line for _, line in read_json_lines(path, REBUILD)}
    return [_item(path, u, lines[u.id]) for u in utterances]


def _item(path: Path, utterance: Utterance, line: dict) -> Item:
    try:
        subsets = {name: s["weight"] for name, s in line.get("subsets", {}).items()}
        difficulty = line.get("difficulty", {})
        mean, std = (difficulty.get(name) for name in ("reward_mean", "reward_std"))
        if not all(is_number(weight) and weight > 0 for weight in subsets.values()):
            raise ValueError("a weight is no number above 0")
        if not all(value is None or is_number(value) for value in (mean, std)):
            raise ValueError("a reward is no number")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: {utterance.id} has no readable subsets or difficulty ({error!r}); {REBUILD}."
        ) from error
    return Item(utterance, subsets or {WHOLE: 1.0}, mean, std)
