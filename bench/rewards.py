"""Measures how fast the rule rewards are: seconds for all of them on many pairs, one core.

example:
  python bench/rewards.py
  python bench/rewards.py --language zh --pairs 20000

The pairs are groups of 8 hypotheses of an utterance, all different, as in RL: most with 20 %
errors, some in a loop, empty, or in the wrong language.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from audiorl.config.rewards import REWARDS, SYNTHESIS, reward_options  # noqa: E402
from audiorl.config.schema import Config  # noqa: E402
from audiorl.data.utterance import Utterance  # noqa: E402
from audiorl.rewards import Sample, build_rewards  # noqa: E402
from audiorl.rewards.core.counting import errors  # noqa: E402
from audiorl.text.normalise import normal_units, normalizer  # noqa: E402

GROUP = 8
LANGUAGES = {"en": ("english", "word"), "zh": ("mandarin", "mixed")}
OTHERS_CODE = ("file", "http")  # their time is their own


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--language", choices=sorted(LANGUAGES), default="en")
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    samples = make_samples(args.language, args.pairs, args.seed)
    config = Config()
    config.score.normalizer, config.score.unit = LANGUAGES[args.language]
    names = [n for n in REWARDS if n not in OTHERS_CODE]
    names = [n for n in names if not SYNTHESIS.intersection(reward_options(n).needs)]
    length = sum(len(sample.text) for sample in samples) / len(samples)
    load = os.getloadavg()[0] / os.cpu_count()
    print(f"{len(samples)} pairs, {length:.0f} characters on average, load per core {load:.1f}")
    for chosen in (*([name] for name in names), names):
        config.rl.rewards = [reward_options(name) for name in chosen]
        seconds = measure(config, samples)
        label = chosen[0] if len(chosen) == 1 else f"all {len(names)} together"
        print(f"{label:<18} {seconds:6.2f} s  {len(samples) / seconds:10,.0f} pairs a second")


def measure(config: Config, samples: list[Sample]) -> float:
    """CPU seconds, nothing remembered of earlier texts."""
    rewards = build_rewards(config)
    rewards(samples[:1])  # loads the normaliser
    for remembered in (normal_units, errors, normalizer(config.score.normalizer)):
        remembered.cache_clear()
    start = time.process_time()
    rewards(samples)
    return time.process_time() - start


def make_samples(language: str, count: int, seed: int) -> list[Sample]:
    """Groups of hypotheses, no two of them alike."""
    sys.path.insert(0, str(ROOT / "egs" / "mini_asr" / "local"))
    grammar = importlib.import_module(f"sentences_{language}").GRAMMAR
    rng, draw = np.random.default_rng(seed), random.Random(seed)
    samples, seen = [], set()
    while len(samples) < count:
        tiers = sorted(next(iter(grammar.keywords.values()))) if draw.random() < 0.3 else ()
        parts = [grammar.sentence(rng, tiers) for _ in range(2)]
        words = [token for part in parts for token in grammar.tokens(part.text)]
        utterance = Utterance(
            id=f"u{len(samples)}",
            audio="",
            text=grammar.separator.join(words),
            speaker="s",
            duration=len(words) / 3,
            keywords=tuple(keyword for part in parts for keyword in part.keywords),
        )
        group = 0
        while group < GROUP:
            text = grammar.separator.join(hypothesis(words, draw))
            if text not in seen:
                seen.add(text)
                samples.append(Sample(utterance, text, draw.random() < 0.98))
                group += 1
    return samples[:count]


def hypothesis(words: list[str], draw: random.Random) -> list[str]:
    """What a recogniser might output for the words."""
    kind = draw.random()
    if kind < 0.02:
        return words + words[-2:] * draw.randint(4, 40)
    if kind < 0.03:
        return draw.choices("一二三四五六七八九十" if words[0].isascii() else "abcdef", k=8)
    noisy = []
    for word in words:
        error = draw.random()
        if error < 0.1:
            noisy.append(draw.choice(words))
        elif error < 0.15:
            noisy += [word, draw.choice(words)]
        elif error > 0.2:
            noisy.append(word)
    return noisy


if __name__ == "__main__":
    main()
