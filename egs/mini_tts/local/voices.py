"""Who speaks: eight voices that the models learn, and others whom the judge alone hears."""

from __future__ import annotations

from speakers import Speaker

# One accent, so that a word is the same sounds from everyone; voices and pitches far apart. They
# take their time, as who reads aloud does: some 14 characters in the 25 tokens of a second.
VOICES = [
    Speaker("anna", "gmw/en-US+f1", 140, 35, "f"),
    Speaker("bella", "gmw/en-US+belinda", 146, 55, "f"),
    Speaker("carl", "gmw/en-US+m1", 136, 30, "m"),
    Speaker("diane", "gmw/en-US+shelby", 138, 50, "f"),
    Speaker("eric", "gmw/en-US+Michael", 144, 60, "m"),
    Speaker("fiona", "gmw/en-US+anika", 134, 60, "f"),
    Speaker("george", "gmw/en-US+Andy", 148, 75, "m"),
    Speaker("henry", "gmw/en-US+norbert", 142, 45, "m"),
]
WOMEN = "f3 Annie f4 grandma f5 Andrea".split()
MEN = "m2 robert m4 antonio Denis paul".split()
OTHERS = [
    Speaker(f"other{number:02}", f"gmw/en-US+{variant}", 130 + 3 * number, 40 + 2 * number, gender)
    for number, (variant, gender) in enumerate(
        [*((variant, "f") for variant in WOMEN), *((variant, "m") for variant in MEN)], start=1
    )
]


def people(group: str, _language: str) -> list[Speaker]:
    """The speakers of a group: `voices`, or `all`."""
    return {"voices": VOICES, "all": VOICES + OTHERS}[group]
