"""Whether somebody speaks, by the transcript as written, and what is output where nobody does.

A normaliser decides how two texts are compared. It removes `um` and `[laughter]`, which somebody
says, and full stops, which a model may write for ever: that a text is empty after it is no sign of
silence.
"""

from __future__ import annotations

import re
import unicodedata

from audiorl.text.normalise import split_units, spoken

# What models write about a sound: [BLANK_AUDIO], (wind blowing), <noise>, *sighs*, ♪ music ♪, and
# what people do: ((mumble)), {breath}, 〔笑〕. A bracket closes at whatever width.
ANNOTATION = re.compile(
    r"[\[［]+[^][［］]*[\]］]+|[(（]+[^()（）]*[)）]+|[<＜]+[^<>＜＞]*[>＞]+|[{｛]+[^{}｛｝]*[}｝]+"
    r"|\*+[^*]+\*+|[♪♫♬🎵🎶]+[^♪♫♬🎵🎶]*[♪♫♬🎵🎶]*|【[^【】]*】|〔[^〔〕]*〕"
)
LONGEST = 6  # words of annotations; beyond that it is a text in brackets


def is_silent(transcript: str) -> bool:
    """Return whether nobody speaks: the transcript as written has nothing that can be seen."""
    return all(c.isspace() or unicodedata.category(c)[0] == "C" for c in transcript)


def is_annotation(text: str) -> bool:
    """Return whether the text is one annotation or several, of `LONGEST` words together."""
    if is_silent(text) or not is_silent(ANNOTATION.sub("", text)):
        return False
    return len(split_units(spoken(text).replace("_", " "), "mixed")) <= LONGEST


def output_on_silence(text: str, count_annotations: bool) -> str:
    """Return what a hypothesis outputs where nobody speaks: all of it, be it words or signs.

    count_annotations: off, annotations alone are no output.
    """
    return "" if not count_annotations and is_annotation(text) else text
