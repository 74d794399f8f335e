"""What trips speech synthesis: repetition, tongue twisters, numbers, length, names never heard.

The kinds of HARD are those of the hard sets of Seed-TTS-Eval and CV3-Eval; the sentences are our
own, and a few tongue twisters that everybody knows. UNUSUAL has everyday words alone, in sentences
of 9 to 15 words that the everyday grammar does not make.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sentences import Grammar, choose
from sentences_en import KEYWORD_TEMPLATES, KEYWORDS, ONES, SLOTS, TOPICS, number, polish, words

# Words that begin alike: how many, which, what, do what, where.
ALLITERATIONS = [
    tuple(map(words, family))
    for family in (
        (
            "six seven several", "slim silver silent slippery", "snakes swans sailors sisters",
            "slide swim sleep sing", "slowly southward silently", "seaside station school",
        ),
        (
            "four five fifty", "fresh funny frozen famous", "farmers fishes flowers foxes",
            "fry follow find fear", "fast freely finally", "field forest fountain",
        ),
        (
            "two ten twelve", "tiny tired tall tender", "tigers toads teachers turtles",
            "talk turn travel tumble", "together twice today", "tower temple town",
        ),
        (
            "plenty_of pairs_of", "pretty purple polite proud", "penguins parrots painters pigs",
            "push paint print pass", "patiently properly perfectly", "palace park port",
        ),
        (
            "both better bigger", "big black brown brave", "bears beetles bakers boats",
            "bite bring build break", "badly backwards bravely", "bakery bridge bay",
        ),
        (
            "three thirty_three thirteen", "thin thick thirsty thoughtful", "thieves thrushes",
            "think throw thank thrive", "thoroughly thrice", "theatre throne thicket",
        ),
        (
            "real rather", "red round rough royal", "rabbits rivers robbers ravens",
            "run read ride rest", "rarely rapidly regularly", "road roof railway",
        ),
        (
            "which what", "wild white wet wise", "whales wolves witches waiters",
            "wait wish wander whistle", "warmly wildly willingly", "well window wall",
        ),
    )
]  # fmt: skip


def alliteration(rng: np.random.Generator) -> str:
    """As `six slim slippery snakes slide slowly by the seaside`."""
    count, quality, who, does, how, where = choose(rng, ALLITERATIONS)
    first, second = rng.permutation(quality)[:2]
    start = f"{choose(rng, count)} {first} {second} {choose(rng, who)} {choose(rng, does)}"
    return f"{start} {choose(rng, how)} by the {choose(rng, where)}"


def repeated(vocabulary: str, least: int, most: int) -> Callable[[np.random.Generator], str]:
    """A slot: one of the words, `least` to `most` times."""

    def slot(rng: np.random.Generator) -> str:
        return " ".join([choose(rng, words(vocabulary))] * int(rng.integers(least, most + 1)))

    return slot


def thousands(rng: np.random.Generator) -> str:
    """A number of six figures."""
    return f"{number(int(rng.integers(100, 1000)))} thousand {number(int(rng.integers(1, 1000)))}"


def telephone(rng: np.random.Generator) -> str:
    return " ".join(ONES[digit] for digit in rng.integers(0, 10, size=rng.integers(8, 13)))


def year(rng: np.random.Generator) -> str:
    century = number(int(rng.integers(11, 20)))
    return f"{century} {number(int(rng.integers(13, 100)))}"


TWISTERS = [
    "she sells sea shells by the sea shore",
    "peter piper picked a peck of pickled peppers",
    "how much wood would a woodchuck chuck if a woodchuck could chuck wood",
    "red lorry yellow lorry red lorry yellow lorry",
    "you know you need unique new york",
    "a proper copper coffee pot",
    "betty bought a bit of butter but the butter was too bitter",
    "which witch wished which wicked wish",
    "round the rugged rock the ragged rascal ran",
    "i scream you scream we all scream for ice cream",
    "a big black bug bit a big black bear",
    "whether the weather be cold or whether the weather be hot",
    "swan swam over the sea swim swan swim",
    "toy boat toy boat toy boat toy boat",
    "fresh fried fish fish fresh fried",
    "can you can a can as a canner can can a can",
]

HARD_SLOTS = SLOTS | {
    "alliteration": alliteration,
    "twister": TWISTERS,
    "very": repeated("very really so much_too", 3, 5),
    "no": repeated("no yes stop wait go", 4, 7),
    "again": repeated("again_and over_and round_and on_and", 3, 5),
    "same": repeated("zero two five seven nine", 5, 8),
    "and_on": repeated("and_on", 2, 4),
    "bounce": repeated("buffalo knock tick ding bang", 4, 7),
    "thousands": thousands,
    "telephone": telephone,
    "year": year,
    "everyday": [
        template
        for topic in ("home", "travel", "remarks", "weather")
        for template in TOPICS[topic]
        if not template.startswith("{polite}")
    ],
    "link": words("and_then but because while so_that"),
} | {slot: tiers["test"] for slot, tiers in KEYWORDS.items()}  # fmt: skip

HARD_TOPICS = {
    "repetition": [
        "it was {very} {climate} in the {room}",
        "{no} said the {relative} to the {relative}",
        "{name} turned the {device} {again} again",
        "the number is {same}",
        "{name} told {name} that {name} told {name} about the {animal}",
        "the {colour} {animal} the {colour} {animal} and the {colour} {animal} are {action}",
        "the {thing} of the {room} of the {spot} of the {spot} of {place}",
        "{bounce} went the {thing} and {bounce} went the {thing}",
        "the {vehicle} goes on {and_on} and never stops",
    ],
    "twister": [
        *["{alliteration}"] * 7,
        "{twister}",
    ],
    "number": [
        "the number of {who} is {telephone}",
        "dial {telephone} now",
        "the code for the {spot} is {telephone}",
        "the {object} costs {thousands} dollars",
        "{thousands} people live in {place}",
        "{thousands} plus {thousands}",
        "{who} was born on {date} {year}",
        "between {year} and {year} there were {big} fires in {place}",
        "page {big} of {big} chapter {number} line {number}",
    ],
    "long": ["{everyday} {link} {everyday} {link} {everyday}"],
    "name": KEYWORD_TEMPLATES,
}

HARD = Grammar(HARD_SLOTS, HARD_TOPICS, [], {}, polish=polish)

UNUSUAL_TOPICS = {
    "pair": [
        "it is {climate} in {place} and {climate} in {place} on {day}",
        "{name} is {action} in the {room} and the {animal} is {action}",
        "turn {turn} after the {side} and turn {turn} after the {side}",
        "my {relative} is {feeling} and my {relative} is {feeling} on {day}",
        "open the {room} {thing} and close the {thing} in the {room}",
        "take me to the {spot} and find the nearest {spot} in {place}",
    ],
    "list": [
        "{name} {name} {name} and {name} are {action} in the {room}",
        "the {animal} the {animal} and the {animal} are {action} in the {room}",
        "there was {weather} {weather} {weather} and {weather} in {place} on {day}",
        "bring a {object} a {object} a {object} and a {object}",
        "my {relative} has a {size} {colour} {animal} and a {colour} {animal}",
    ],
    "again": [
        "the {animal} is {action} and {action} and {action} in the {room}",
        "it is {climate} and {climate} and {climate} and {climate} in {place}",
        "turn {turn} and {turn} and {turn} again after the {side}",
        "it was {number} degrees and {number} degrees and {number} degrees",
    ],
    "number": [
        "there are {number} people in the {room} and {number} in the {room}",
        "page {big} and page {big} of the {size} book",
        "the {vehicle} to {place} leaves at {clock} and at {clock}",
        "there was {weather} and it was {number} degrees in {place}",
    ],
}

UNUSUAL = Grammar(SLOTS, UNUSUAL_TOPICS, [], {}, polish=polish)
