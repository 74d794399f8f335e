"""Case and punctuation of hypotheses, which normalisers take away before errors are counted."""

from __future__ import annotations

from dataclasses import dataclass

from audiorl.text.align import Counts, count_errors

ENDS = tuple(".?!…。？！")
CLOSING = "\"'”’)」』"  # may follow the end of a sentence


@dataclass(frozen=True)
class Formatting:
    """Signs of case and punctuation in one hypothesis as it was written."""

    cased: bool  # its first letter is a capital
    punctuated: bool  # it ends like a sentence
    counts: Counts  # words as written; none where the reference has no case


def formatting(ref: str, hyp: str) -> Formatting:
    """Return the formatting of a hypothesis; both texts as written, not normalised.

    A word counts as an error if its case or a sign at it differs. References in letters of one
    case, as those of many corpora, are left out of the counts.
    """
    cased = any(map(str.islower, ref)) and any(map(str.isupper, ref))
    words = (ref.split(), hyp.split()) if cased else ([], [])
    return Formatting(is_cased(hyp), is_punctuated(hyp), count_errors(*words))


def is_cased(text: str) -> bool:
    """Return whether the first letter is a capital and another letter is not."""
    letters = [sign for sign in text if sign.isalpha()]
    return bool(letters) and letters[0].isupper() and any(map(str.islower, letters))


def is_punctuated(text: str) -> bool:
    """Return whether a text ends like a sentence."""
    return text.rstrip().rstrip(CLOSING).endswith(ENDS)
