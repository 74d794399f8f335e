"""Who speaks: eight voices that the models learn, and others whom the judge alone hears."""

from __future__ import annotations

import numpy as np
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


# For cloning: variants of espeak x pitch x rate x formants. Nobody in one group has a variant that
# one in another has, so that the voices of the test set have never been heard.
VARIANTS = {
    "many": """f1 m1 belinda Michael shelby Andy anika norbert f2 m3 grandma m5 Annie robert Diogo
        travis Andrea quincy antonio rob gustave ian pedro aunty""".split(),
    "more": "f4 m2 linda paul steph2 m8 miguel zac Jacky Hugo Gene victor".split(),
    "unheard": "f3 m4 f5 m6 steph m7 Alicia Henrique ed Denis adam sandro".split(),
}
FEMALE = set("f1 f2 f3 f4 f5 belinda shelby anika grandma Annie Andrea aunty linda steph".split())
FEMALE |= {"steph2", "Alicia"}
TIMES = {"many": 2, "more": 2, "unheard": 1}  # that a variant speaks, each time somebody else


def crowd(group: str) -> list[Speaker]:
    """The people of a group of VARIANTS, always the same."""
    rng = np.random.default_rng(list(group.encode()))
    made = []
    for variant in VARIANTS[group] * TIMES[group]:
        low, high = (45, 75) if variant in FEMALE else (25, 60)
        made.append(
            Speaker(
                id=f"{group}{len(made) + 1:02d}",
                voice=f"gmw/en-US+{variant}",
                rate=int(rng.integers(130, 156)),
                pitch=int(rng.integers(low, high)),
                gender="f" if variant in FEMALE else "m",
                formants=round(float(rng.uniform(0.88, 1.14)), 3),
            )
        )
    return made


def people(group: str, _language: str) -> list[Speaker]:
    """The speakers of a group: `voices`, `all`, or of cloning `many`, `many_more`, `unheard`."""
    if group in ("voices", "all"):
        return {"voices": VOICES, "all": VOICES + OTHERS}[group]
    return [person for part in group.split("_") for person in crowd(part)]
