"""What a policy finds when it looks for reward without listening: none of it pays."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hallucinated import NORMALIZER, Maker

from audiorl.config import load_config
from audiorl.config.decoding import ScoreConfig
from audiorl.config.rewards import REWARDS, reward_options
from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance
from audiorl.models.voice import Voice, Voices
from audiorl.rewards import Context, Models, Sample, WeightedSum, build_reward, build_rewards
from audiorl.text.align import count_errors

ROOT = Path(__file__).resolve().parents[2]
RECOMMENDED = ROOT / "conf" / "rewards" / "recommended.yaml"
SHIPPED = sorted(ROOT.glob("conf/rewards/*.yaml")) + sorted(ROOT.glob("egs/*/conf/rewards/*.yaml"))
ERROR_RATE = 0.3
PROMPT = Config().llm.prompt.replace("{audio}", "").strip()

Hack = Callable[[list[str], list[str], random.Random], list[str]]  # reference, keywords, chance


def most_frequent(ref: list[str], keywords: list[str], draw: random.Random) -> list[str]:
    ranked = [unit for unit, _ in Counter(ref).most_common(3)]
    return (ranked * len(ref))[: len(ref)]


HACKS: dict[str, Hack] = {
    "empty output": lambda ref, keywords, draw: [],
    "most frequent words": most_frequent,
    "the most frequent word": lambda ref, k, draw: [Counter(ref).most_common(1)[0][0]] * len(ref),
    "keywords alone": lambda ref, keywords, draw: keywords,
    "keywords over and over": lambda ref, keywords, draw: keywords * 30,
    "keywords up to the length": lambda ref, k, draw: (k * len(ref))[: len(ref)],
    "keywords and filling": lambda ref, k, draw: (k + ["the", "的"] * len(ref))[: len(ref)],
    "endless repetition": lambda ref, keywords, draw: ref[:2] * 60,
    "right, then endless": lambda ref, keywords, draw: ref + ref[-1:] * 120,
    "the instruction": lambda ref, keywords, draw: PROMPT.split(),
    "the instruction, over and over": lambda ref, k, draw: PROMPT.split() * len(ref),
    "another language": lambda ref, k, draw: "打 开 空 调".split() if ref[0].isascii() else ["on"],
    "the reference twice": lambda ref, keywords, draw: ref * 2,
    "words in alphabetical order": lambda ref, keywords, draw: sorted(ref),
}
# Behind a right transcript: what a normaliser takes away, or makes one number of.
CONCEALED = {
    "um": " um" * 300,
    "brackets": " (thank you for watching)" * 20,
    "signs": "!" * 400,
    "apostrophes": " '" * 60,
    "full stops": "。" * 500,
    "what cannot be seen": "\u200b" * 500,
    "minus": " minus" * 60,
    "per cent": "%" * 60,
    "one": " one" * 60,
}


def honest(ref: list[str], draw: random.Random) -> list[str]:
    """30 % errors, rounded up, drawn over the whole reference: keywords suffer like any word."""
    errors = -(-len(ref) * 3 // 10)
    hyp: list[list[str]] = [[unit] for unit in ref]
    for at in draw.sample(range(len(ref)), errors):
        hyp[at] = draw.choice([[], ["qua"], [ref[at], "qua"]])
    units = [unit for piece in hyp for unit in piece]
    return units if count_errors(ref, units).errors == errors else honest(ref, draw)


def rewards_of(path: Path, language: str) -> WeightedSum:
    """Those of a config, for texts of a language."""
    config = load_config(path)
    config.score.normalizer, config.score.unit = NORMALIZER[language], "mixed"
    return build_rewards(config)


def utterances(language: str, count: int) -> list[tuple[Utterance, list[str], list[str]]]:
    """With their units and keywords; every other one has a keyword of one or two units."""
    maker, made = Maker(language, seed=7), []
    for number in range(count):
        ref = maker.sentence(maker.draw.randint(1, 3))
        length = maker.draw.randint(1, 2) if language == "en" else maker.draw.randint(2, 4)
        at = maker.draw.randrange(len(ref) - length)
        keywords = ref[at : at + length] if number % 2 else []
        utterance = Utterance(
            f"u{number}",
            "",
            maker.join(ref),
            "s",
            duration=len(ref) / 3,
            keywords=(maker.join(keywords),) if keywords else (),
        )
        made.append((utterance, ref, keywords))
    return made


@pytest.mark.parametrize("language", NORMALIZER)
@pytest.mark.parametrize("hack", HACKS)
@pytest.mark.parametrize("rewards", SHIPPED, ids=lambda path: path.stem)
def test_no_hack_beats_an_honest_output_with_30_percent_errors(
    rewards: Path, hack: str, language: str
) -> None:
    score = rewards_of(rewards, language)
    draw = random.Random(11)
    for utterance, ref, keywords in utterances(language, 40):
        hyps = [HACKS[hack](ref, keywords, draw)] + [honest(ref, draw) for _ in range(4)]
        scores = score([Sample(utterance, " ".join(hyp), True) for hyp in hyps])
        assert all(total > scores.total[0] for total in scores.total[1:]), (hyps, scores)


@pytest.mark.parametrize("language", NORMALIZER)
@pytest.mark.parametrize("hack", CONCEALED)
def test_what_a_normaliser_takes_away_is_not_free(hack: str, language: str) -> None:
    rewards = rewards_of(RECOMMENDED, language)
    for utterance, _, _ in utterances(language, 20):
        right, hacked = utterance.text, utterance.text + CONCEALED[hack]
        scores = rewards([Sample(utterance, text, True) for text in (right, hacked)])
        assert scores.parts["hallucination"] == [0.0, -1.0]
        assert scores.total[1] <= scores.total[0] - 0.5
    silence = Utterance("u", "", "", "s", duration=4.0)
    spoken = [hack for hack in CONCEALED.values() if any(map(str.isalnum, hack))]
    totals = rewards([Sample(silence, hack, True) for hack in spoken]).total
    assert max(totals) <= -0.25


@pytest.mark.parametrize("language", NORMALIZER)
def test_leaving_out_the_spaces_does_not_make_it_less(language: str) -> None:
    """A policy that was rewarded for few words where nobody speaks learnt to write one of them."""
    utterance = Utterance("u", "", "", "s", duration=4.0)
    words = Maker(language, seed=1).sentence(2)
    samples = [Sample(utterance, space.join(words), True) for space in (" ", "")]
    spaced, glued = rewards_of(RECOMMENDED, language)(samples).total
    assert glued == pytest.approx(spaced) and glued < -0.25


def test_the_recommended_rewards_are_what_the_documents_say() -> None:
    rl = load_config(RECOMMENDED).rl
    assert rl.reward_combination == "sum"
    weights = {reward.name: reward.weight for reward in rl.rewards}
    assert weights == {"wer": 1.0, "hallucination": 0.5, "keywords": 0.3, "language": 1.5}
    lowest = -weights["wer"] - weights["hallucination"]
    assert -weights["language"] <= lowest


@pytest.mark.parametrize("language", NORMALIZER)
def test_silence_is_best_where_nobody_speaks(language: str) -> None:
    utterance = Utterance("u", "", "", "s", duration=4.0)
    words = Maker(language, seed=1).sentence(4)
    hyps = ["", " ".join(words[:1]), " ".join(words[:10]), " ".join(words)]
    totals = rewards_of(RECOMMENDED, language)([Sample(utterance, hyp, True) for hyp in hyps]).total
    assert totals[0] == 0.0 and totals == sorted(totals, reverse=True)
    assert len(set(totals)) == 4  # shorter is better: a group that all speaks still learns


# Outputs without anything that was heard, and whether they end: `LIMIT` tokens are the longest.
LIMIT = 200
WITHOUT_CONTENT = {
    "a full stop": (".", True),
    "signs": (". . . .", True),
    "Chinese signs": ("。，。，", True),
    "dashes": ("- - -", True),
    "notes": ("♪♪", True),
    "signs up to the limit": (". " * LIMIT, False),
    "one sign up to the limit": ("!" * LIMIT, False),
    "a space": (" ", True),
    "spaces": ("      ", True),
    "lines": ("\n\n", True),
    "spaces up to the limit": (" " * LIMIT, False),
    "zero-width marks": ("\u200b\u200d\ufeff", True),
    "zero-width marks up to the limit": ("\u200b" * LIMIT, False),
    "nothing, without an end": ("", False),
    "an annotation": ("[BLANK_AUDIO]", True),
    "brackets": ("(thank you for watching)", True),
    "brackets up to the limit": ("[Music] " * LIMIT, False),
    "fillers": ("um uh hmm mm um uh", True),
    "fillers up to the limit": ("um " * LIMIT, False),
    "Chinese fillers": ("嗯嗯嗯嗯嗯嗯", True),
    "repeated words": ("thank you thank you thank you thank you", True),
    "repeated words up to the limit": ("the " * LIMIT, False),
}
REFERENCES = ["turn on the light in oslo", "请打开客厅里的灯", "um", "Mm-hmm.", "[laughter]", ""]
RATE = 25.0  # Hz, of speech tokens
# They hold whatever a user's own function or server returns.
OF_THE_USER = {"file", "http"}


class Ear:
    """A recogniser that expects of a text the tokens that `spoken_well` gives it."""

    def units(self, text: str) -> int:
        return len(text) + 1

    def pad(self, rows):
        return rows, [len(row) for row in rows]

    def embed(self, rows):
        return rows

    def log_likelihood(self, rows, lengths, texts):
        import torch

        pairs = zip(rows, texts, strict=True)
        return torch.tensor(
            [
                -math.inf if len(row) < len(text) else -float(row != spoken_well(text, 0))
                for row, text in pairs
            ]
        )


def spoken_well(text: str, variant: int) -> tuple[int, ...]:
    tokens = random.Random(text).choices(range(50), k=2 * len(text) + 10)
    return (*tokens[:-1], 50 + variant) if variant else tuple(tokens)


def voice(waves) -> object:
    import torch

    return torch.stack([torch.tensor([1.0, 0.0] if wave.any() else [0.0, 1.0]) for wave in waves])


def walked(name: str, ref: str, output: str, finished: bool) -> list[float] | None:
    """The values of a reward on an output, then on three honest ones; None: it does not apply."""
    import torch

    models = Models(Ear(), voice, Voices({"s": Voice(vector=torch.tensor([1.0, 0.0]))}), RATE)
    context = Context(ScoreConfig("english", "word"), models)
    reward = build_reward(reward_options(name), context)
    honest_tokens = [spoken_well(ref, variant) for variant in range(3)]
    seconds = len(honest_tokens[0]) / RATE
    utterance = Utterance("u", "", ref, "s", duration=seconds, keywords=("oslo", "客厅"))
    if not reward.applies(utterance):
        return None
    heard = any(map(str.isalnum, output))
    loop = (7,) * (LIMIT * heard if finished else 2 * LIMIT)  # signs have no sound
    samples = [Sample(utterance, output, finished, loop, torch.zeros(1600), 16000)]
    samples += [
        Sample(utterance, ref, True, tokens, torch.ones(1600), 16000) for tokens in honest_tokens
    ]
    return reward.function(samples)


@pytest.mark.parametrize("name", sorted(set(REWARDS) - OF_THE_USER))
def test_no_output_without_content_beats_the_honest_transcript(name: str) -> None:
    """All rewards there are, one of a user's own included, with the honest empty answer, too."""
    applied = 0
    for ref in REFERENCES:
        for what, (output, finished) in WITHOUT_CONTENT.items():
            if values := walked(name, ref, output, finished):
                applied += 1
                hacked, *honest = values
                assert hacked <= min(honest), (ref, what, values)
    assert applied


@pytest.mark.parametrize("what", WITHOUT_CONTENT)
@pytest.mark.parametrize("rewards", SHIPPED, ids=lambda path: path.stem)
def test_no_output_without_content_pays_in_the_shipped_rewards(rewards: Path, what: str) -> None:
    output, finished = WITHOUT_CONTENT[what]
    for language, ref in (("en", REFERENCES[0]), ("zh", REFERENCES[1]), ("en", "")):
        utterance = Utterance("u", "", ref, "s", duration=2.0)
        right, hacked = rewards_of(rewards, language)(
            [Sample(utterance, ref, True), Sample(utterance, output, finished)]
        ).total
        if math.isnan(right):  # no reward of the recipe applies where nobody speaks
            assert not ref and math.isnan(hacked)
        else:
            assert hacked <= right - 0.25, language
