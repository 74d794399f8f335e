"""Makes the corpus of mini_tts with the generator of mini_asr: clean speech, and texts for RL.

example: python local/tts_corpus.py --out data --nj 2 --seed 1 --scale 1.0
         python local/tts_corpus.py --voices many --out data_many    # for cloning voices
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import sentences_en as english
from hard_sentences import HARD, UNUSUAL
from make_corpus import VERSION, main
from plans import Corpus
from sentences import Grammar
from sets import SetSpec
from voices import people

from audiorl.bin.cli import run

# About 400 words, so that a small model meets each of them often.
TOPICS = ("home", "travel", "remarks", "weather")
EVERYDAY = Grammar(
    english.SLOTS,
    {topic: english.TOPICS[topic] for topic in TOPICS},
    english.KEYWORD_TEMPLATES,
    english.KEYWORDS,
    polish=english.polish,
)

# Speech as it is recorded for synthesis: no noise, cut closely, evenly loud.
spoken = partial(
    SetSpec, joined=(1.0,), longest=8, clean=1.0, reverberant=0.0, keyword_share=0.0,
    lead=(0.05, 0.1), tail=(0.08, 0.14), level=(-25.0, -23.0),
)  # fmt: skip
TRAIN, DEV, JUDGE = (0, 39), (40, 44), (45, 67)
RL, RL_DEV, TEST = (68, 79), (80, 83), (84, 99)
ALL_TIERS = ("train", "rl", "test")
SETS = [
    spoken("train", 3600, "voices", TRAIN),
    spoken("dev", 100, "voices", DEV),
    # The judge has to know more than what it judges: more people, rare names, hard sentences.
    spoken("judge_train", 2500, "all", JUDGE, keyword_share=0.1, tiers=ALL_TIERS, hard=0.2),
    spoken("rl", 1000, "voices", RL, keyword_share=0.15, tiers=("train", "rl"), audio=False),
    spoken("rl_dev", 100, "voices", RL_DEV, keyword_share=0.15, tiers=("train", "rl"), audio=False),
    spoken("test", 200, "voices", TEST),
    spoken("test_unusual", 120, "voices", TEST, hard=1.0, hard_kind="unusual"),
    spoken("test_hard", 60, "voices", TEST, hard=1.0),
]
KINDS = {"hard": HARD, "unusual": UNUSUAL}

# Raise the last number when the same options make other sentences or other sound.
CORPUS = Corpus(f"{VERSION} tts 2", SETS, people, {"en": EVERYDAY}, KINDS)

# Voices are to be cloned: many to learn from, and in the test set others, each with a prompt.
MANY_SETS = [
    spoken("train", 2400, "many", TRAIN),
    spoken("dev", 96, "many", DEV),
    spoken("judge_train", 1800, "many_more", JUDGE),
    spoken("rl", 480, "many", RL, audio=False),
    spoken("rl_dev", 96, "many", RL_DEV, audio=False),
    spoken("zero_shot", 192, "unheard", TEST, prompts=True),
]
MANY = Corpus(f"{VERSION} many 1", MANY_SETS, people, {"en": EVERYDAY})


def of_voices() -> None:
    """The corpus of `--voices`."""
    choice = argparse.ArgumentParser(add_help=False)
    choice.add_argument("--voices", choices=("eight", "many"), default="eight")
    chosen, sys.argv[1:] = choice.parse_known_args()
    main({"eight": CORPUS, "many": MANY}[chosen.voices], __doc__)


if __name__ == "__main__":
    run(of_voices)
