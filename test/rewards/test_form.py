"""Rewards for keywords, language, format and length."""

from __future__ import annotations

import pytest

from audiorl.config.decoding import ScoreConfig
from audiorl.config.rewards import reward_options
from audiorl.data.utterance import Utterance
from audiorl.rewards import Context, Reward, Sample, build_reward


def make(name: str, normalizer: str = "none", unit: str = "word", **options) -> Reward:
    return build_reward(reward_options(name, **options), Context(ScoreConfig(normalizer, unit)))


def samples(ref: str, *hyps: str, keywords: tuple[str, ...] = (), finished: bool = True) -> list:
    utterance = Utterance("u", "", ref, "s", keywords=keywords)
    return [Sample(utterance, hyp, finished) for hyp in hyps]


REF = "call zephyra in new york"
NAMES = ("zephyra", "new york")


@pytest.mark.parametrize(
    ("hyp", "precision", "recall", "f1"),
    [
        ("call zephyra in new york", 1, 1, 1),
        ("tall zephyra at new york", 1, 1, 1),
        ("call zephyra in newyork", 1, 1, 1),
        ("call zephyras in new york", 1, 1, 1),
        ("call severe in new york", 1, 1 / 2, 2 / 3),
        ("call zephyra zephyra in york", 1 / 2, 1 / 2, 1 / 2),
        ("call me in the morning", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_keywords(hyp: str, precision: float, recall: float, f1: float) -> None:
    measures = {"precision": precision, "recall": recall, "f1": f1}
    measures["mean"] = (precision + recall) / 2
    for measure, value in measures.items():
        reward = make("keywords", measure=measure)
        assert reward.function(samples(REF, hyp, keywords=NAMES)) == [pytest.approx(value)]


def test_keywords_that_are_only_spammed_do_not_win() -> None:
    reward = make("keywords")
    honest, spam, repeated = reward.function(
        samples(
            "please call zephyra in the office at nine today",
            "please call severe in the office at nine",
            "zephyra",
            "zephyra " * 9,
            keywords=("zephyra",),
        )
    )
    assert honest == spam == repeated == 0.0
    (flood,) = reward.function(samples("call zephyra", "zephyra " * 5, keywords=("zephyra",)))
    assert flood == 0.0
    (half, most) = reward.function(
        samples("call zephyra at nine", "zephyra at", "call zephyra at", keywords=("zephyra",))
    )
    assert (half, most) == (0.0, 1.0)  # half of the words wrong, a quarter


def test_keywords_are_normalised_and_apply_where_there_are_some() -> None:
    reward = make("keywords", "mandarin", "mixed")
    (value,) = reward.function(samples("去张江路２号", "去张江路二号", keywords=("张江路2号",)))
    assert value == 1.0
    assert reward.applies(samples("x", "x", keywords=("张江",))[0].utterance)
    assert not reward.applies(samples("x", "x")[0].utterance)
    assert not reward.applies(samples("x", "x", keywords=("，",))[0].utterance)


@pytest.mark.parametrize("measure", ["f1", "precision", "recall", "mean"])
def test_keywords_of_a_list_that_are_not_said_cost_only_what_hears_them(measure: str) -> None:
    reward, listed = make("keywords", measure=measure), ("zephyra", "oslo", "new york")
    hyps = ("go home now", "go oslo now", "go hard now", "")
    assert reward.function(samples("go home now", *hyps, keywords=listed)) == [1, 0, 1, 0]
    right, more, less = reward.function(
        samples(
            "call zephyra at home now",
            "call zephyra at home now",
            "call zephyra oslo now",
            "call severe at home now",
            keywords=listed,
        )
    )
    assert right == 1 and less == 0
    assert (
        more == {"f1": pytest.approx(2 / 3), "precision": 0.5, "recall": 1, "mean": 0.75}[measure]
    )


def test_keywords_are_found_in_what_the_normaliser_makes_one_number() -> None:
    reward, said = make("keywords", "english"), "call seven eleven at nine please"
    hyps = (said, "call Severn at nine please", "Call seven, eleven at 9 please.")
    assert reward.function(samples(said, *hyps, keywords=("eleven",))) == [1, 0, 1]
    said = "I said five hundred times"
    assert reward.function(samples(said, said, keywords=("five",))) == [1]
    assert reward.function(samples("twenty two came in", "22 came in", keywords=("22",))) == [1]


def test_boundary_of_keywords_is_an_option() -> None:
    hyps = samples(REF, "call zephyras in new york", keywords=NAMES)
    assert make("keywords", boundary=0).function(hyps) == [pytest.approx(2 / 3)]


def test_language() -> None:
    reward = make("language", "mandarin", "mixed")
    assert reward.kind == "gate"
    hyps = ["打开空调", "打开空气", "", "turn on the air conditioner", "打开 the ac now please sir"]
    assert reward.function(samples("打开空调", *hyps)) == [0.0, 0.0, 0.0, -1.0, -1.0]
    assert not reward.applies(samples("，", "x")[0].utterance)
    assert make("language", kind="sample").kind == "sample"


@pytest.mark.parametrize("pair", ["()", "[]", "<>", "{}"])
def test_brackets_are_no_form_of_a_transcript_unless_they_are_in_it(pair: str) -> None:
    """The error rate forgives them, as Whisper's does; what is written there is output."""
    reward, (left, right) = make("format", "english"), pair
    hack = f"open the window please {left}and do not forget to subscribe{right}"
    assert reward.function(samples("open the window please", hack)) == [-1.0]


@pytest.mark.parametrize(
    "ref", ["[laughter]", "(coughs)", "<noise>", "well [noise] yes", "*sighs* no"]
)
def test_annotations_of_the_reference_are_in_form(ref: str) -> None:
    reward = make("format", "english")
    twice = f"{ref} {ref}"
    assert reward.function(samples(ref, ref, "well yes", twice)) == [0.0, 0.0, -1.0]
    template = make("format", pattern="<text>.*</text>")
    assert template.function(samples(ref, ref, f"<text>{ref}</text>")) == [-1.0, 0.0]


def test_format() -> None:
    reward = make("format")
    hyps = ["turn on the light", "", "<|en|> turn on", "# Title\ntext", "{'text': 'on'}", "**on**"]
    assert reward.function(samples("x", *hyps)) == [0.0, 0.0, -1.0, -1.0, -1.0, -1.0]
    assert reward.function(samples("x", "turn on", finished=False)) == [-1.0]
    lower = make("format", pattern="[a-z ]+", kind="gate")
    assert lower.kind == "gate"
    assert lower.function(samples("x", "turn on", "Turn on")) == [0.0, -1.0]


def test_length_against_the_reference() -> None:
    reward = make("length")
    hyps = ["a b c d", "w x y z", "a b", "", "a b c d e f", "a " * 50]
    assert reward.function(samples("a b c d", *hyps)) == [0.0, 0.0, -0.5, -1.0, -0.5, -1.0]
    assert not reward.applies(samples("", "x")[0].utterance)
    assert make("length", unit="char").function(samples("ab cd", "abcd")) == [0.0]


def test_length_against_the_group() -> None:
    reward = make("group_length")
    assert reward.kind == "group"
    assert reward.function(samples("", "a b", "a b c d", "a b c d", "a b c d e f g")) == [
        -0.5,
        0.0,
        0.0,
        -0.75,
    ]
    assert reward.function(samples("", "", "", "a")) == [0.0, 0.0, -1.0]
