"""Keywords where none are given: words that are rare in a background text, such as names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError, reason
from audiorl.text.keywords import KEYWORD_UNIT
from audiorl.text.normalise import CJK, normal_units


def find_keywords(utterances: list[Utterance], config: Config, dump: Path) -> list[Utterance]:
    """The utterances, those without keywords with the rare words of their transcripts."""
    path, name = config.rl_data.background, config.score.normalizer
    texts = _lines(path) if path else (u.text for u in read_utterances(dump / config.data.train))
    counts = Counter(unit for text in texts for unit in normal_units(text, name, KEYWORD_UNIT))
    found = []
    for u in utterances:
        words = u.keywords or rare_words(normal_units(u.text, name, KEYWORD_UNIT), counts)
        found.append(replace(u, keywords=words))
    given, having = (sum(bool(u.keywords) for u in some) for some in (utterances, found))
    print(f"{having} of {len(found)} utterances have keywords, {having - given} of them found")
    return found


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"rl_data.background: {path} cannot be read ({reason(error)}); name a text file in "
            "UTF-8, or leave the key empty."
        ) from error


def rare_words(units: Sequence[str], counts: Counter[str]) -> tuple[str, ...]:
    """The words that `counts` does not have, each once; neighbours are one keyword.

    A name of several words is one keyword then, and so are the rare characters of a Chinese one.
    Numbers are no keywords.
    """

    def is_rare(unit: str) -> bool:
        return not counts[unit] and not any(map(str.isdigit, unit))

    runs = [" ".join(run) for rare, run in groupby(units, is_rare) if rare]
    return tuple(dict.fromkeys(re.sub(f"(?<=[{CJK}]) (?=[{CJK}])", "", run) for run in runs))
