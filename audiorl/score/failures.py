"""Failures that an error rate hides: nothing said, the same said again and again, things made up.

An LLM decoder fails in ways a CTC or transducer model does not (Whisper's authors list them). All
are counted per utterance, so that a mean does not hide ten bad ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from audiorl.text import detectors
from audiorl.text.align import Alignment

NAMES = ("empty", "looping", "insertion_burst", "other_language", "truncated")


def find_failures(
    ref: Sequence[str], hyp: Sequence[str], ref_text: str, hyp_text: str, alignment: Alignment
) -> list[str]:
    """Return the names of the failures of one hypothesis on speech.

    empty: nothing was output. looping: an n-gram repeated over and over, or text that compresses
    better than Whisper allows, where the reference does not do so itself. insertion_burst: five
    insertions in a row, or more than twice as long as the reference. other_language: in a script
    or language that the reference does not use. See `detectors`.
    """
    if not ref:
        return []
    signs = {
        "empty": not hyp,
        "looping": detectors.loops(hyp, ref) or detectors.compressible(hyp, hyp_text, ref_text),
        "insertion_burst": detectors.bursts(alignment) or detectors.overlong(hyp, ref),
        "other_language": detectors.foreign(hyp, ref),
    }
    return [name for name, found in signs.items() if found]
