"""Hallucination: the detectors on labelled cases and on real transcripts, and the reward."""

from __future__ import annotations

from collections import Counter

import pytest
import soundfile
from hallucinated import NORMALIZER, Case, make_cases

from audiorl.config.decoding import ScoreConfig
from audiorl.config.rewards import reward_options
from audiorl.data.utterance import Utterance
from audiorl.rewards import Context, Sample, build_reward
from audiorl.text import detectors
from audiorl.text.align import align
from audiorl.text.normalise import normal_units, normalizer

CASES = make_cases()
KINDS = ("loop", "compression", "burst", "overlong", "beyond_audio", "foreign", "silence")
MAX_RATE = 8.0


def score_config(language: str) -> ScoreConfig:
    return ScoreConfig(normalizer=NORMALIZER[language], unit="mixed")


def found(case: Case) -> set[str]:
    """The kinds that the detectors see in a case."""
    name = NORMALIZER[case.language]
    ref, hyp = (normal_units(text, name, "mixed") for text in (case.ref, case.hyp))
    if not ref:
        return {"silence"} if case.hyp else set()
    texts = (normalizer(name)(text) for text in (case.hyp, case.ref))
    spans = {
        "loop": detectors.loops(hyp, ref),
        "compression": detectors.compressible(hyp, *texts),
        "burst": detectors.bursts(align(ref, hyp)),
        "overlong": detectors.overlong(hyp, ref),
        "beyond_audio": detectors.beyond_audio(hyp, case.seconds, MAX_RATE, len(ref)),
        "foreign": detectors.foreign(hyp, ref),
    }
    assert all(0 <= s.start < s.end <= len(hyp) for kind in spans.values() for s in kind)
    return {kind for kind, where in spans.items() if where}


def reward_of(case: Case, kind: str = "auto") -> float:
    options = reward_options("hallucination", kind=kind)
    reward = build_reward(options, Context(score_config(case.language)))
    utterance = Utterance("u", "", case.ref, "s", duration=case.seconds)
    return reward.function([Sample(utterance, case.hyp, True)])[0]


def rates(outcomes: Counter[tuple[bool, bool]]) -> tuple[float, float]:
    """Precision and recall of counted (expected, found)."""
    hits = outcomes[True, True]
    return hits / (hits + outcomes[False, True]), hits / (hits + outcomes[True, False])


def test_there_are_enough_cases_of_each_kind() -> None:
    assert len(CASES) >= 300
    for language in NORMALIZER:
        own = [case for case in CASES if case.language == language]
        assert sum(not case.kinds for case in own) >= 90
        for kind in KINDS:
            assert sum(kind in case.kinds for case in own) >= 14, (language, kind)


@pytest.mark.parametrize("language", NORMALIZER)
@pytest.mark.parametrize("kind", KINDS)
def test_precision_and_recall_of_each_detector(kind: str, language: str) -> None:
    outcomes = Counter(
        (kind in case.kinds, kind in found(case))
        for case in CASES
        if case.language == language and kind not in case.maybe
    )
    precision, recall = rates(outcomes)
    assert precision >= 0.95 and recall >= 0.9, (precision, recall)


@pytest.mark.parametrize("language", NORMALIZER)
def test_precision_and_recall_of_the_gate(language: str) -> None:
    outcomes = Counter(
        (bool(case.kinds), reward_of(case, "gate") < 0)
        for case in CASES
        if case.language == language
    )
    precision, recall = rates(outcomes)
    assert precision >= 0.95 and recall >= 0.9, (precision, recall)


def test_another_seed_is_no_worse() -> None:
    """The rates do not hang on the cases that the detectors were looked at with."""
    outcomes = Counter(
        (bool(case.kinds), reward_of(case, "gate") < 0)
        for seed in (2, 3, 4)
        for case in make_cases(10, seed)
    )
    precision, recall = rates(outcomes)
    assert precision >= 0.95 and recall >= 0.9, (precision, recall)


@pytest.mark.parametrize(
    ("ref", "hyp", "seconds", "value"),
    [
        ("turn on the light", "turn on the light", 2.0, 0.0),
        ("turn on the light", "turn off a light", 2.0, 0.0),
        ("turn on the light", "", 2.0, 0.0),
        ("turn on the light", "turn on the light to to to to", 9.0, -3 / 8),
        ("打开空调", "turn on the air", 2.0, -1.0),
        ("a b c d e f g h", "a b c d 1 2 3 4 5 6 e f g h", 9.0, -6 / 14),
        ("a b c d e f", "a b c d e f g h", 0.5, -2 / 8),
        ("", "", 2.0, 0.0),
        ("", ".", 2.0, -0.5 - 0.5 * 1 / 5 / 16),
        ("", " . . . .", 2.0, -0.5 - 0.5 * 4 / 5 / 16),
        ("", "  ", 2.0, -0.5 - 0.5 * 2 / 5 / 16),
        ("", "\u200b", 2.0, -0.5 - 0.5 * 1 / 5 / 16),
        ("", ". " * 400, 2.0, -1.0),
        ("", "thank you", 2.0, -0.5 - 0.5 * 8 / 5 / 16),
        ("", "thank you " * 20, 2.0, -1.0),
        ("", "thank you", None, -1.0),
    ],
)
def test_the_penalty_is_the_share_that_is_made_up(ref, hyp, seconds, value) -> None:
    for kind, expected in (("auto", value), ("gate", -1.0 if value else 0.0)):
        options = reward_options("hallucination", kind=kind)
        reward = build_reward(options, Context(ScoreConfig("none", "word")))
        utterance = Utterance("u", "", ref, "s", duration=seconds)
        found = reward.function([Sample(utterance, hyp, True)])
        assert found == [pytest.approx(expected)]
    assert reward.kind == "gate"


def rewarded(ref: str, *hyps: str, score: ScoreConfig | None = None, **how) -> list[float]:
    """The reward of some hypotheses on a recording of two seconds; `finished` applies to all."""
    finished = how.pop("finished", True)
    options = reward_options("hallucination", **how)
    reward = build_reward(options, Context(score or ScoreConfig("english", "word")))
    utterance = Utterance("u", "", ref, "s", duration=2.0)
    return reward.function([Sample(utterance, hyp, finished) for hyp in hyps])


SIGNS = [
    ".",
    ". . . .",
    "…",
    "!",
    "。",
    " ",
    "\u200b",
    "\n",
    "♪",
    "-",
    "um",
    "[music]",
    "(wind blowing)",
]


@pytest.mark.parametrize("name", ["english", "mandarin", "none"])
@pytest.mark.parametrize("output", SIGNS)
def test_where_nobody_speaks_only_the_finished_empty_answer_is_free(output: str, name: str) -> None:
    score = ScoreConfig(name, "mixed")
    assert rewarded("", "", score=score) == [0.0]
    assert rewarded("", "", score=score, finished=False) == [-1.0]
    assert -1 < rewarded("", output, score=score)[0] <= -0.5
    assert rewarded("", output, score=score, finished=False) == [-1.0]
    assert rewarded("", output, score=score, kind="gate") == [-1.0]


def test_annotations_may_be_excused_where_nobody_speaks() -> None:
    score = ScoreConfig("english", "word", count_annotations=False)
    excused = ["[BLANK_AUDIO]", "(wind blowing)", "<noise>", "♪ ♪", "*sighs*", "[Music] [Applause]"]
    assert rewarded("", *excused, score=score) == [0.0] * 6
    assert rewarded("", *excused, score=score, finished=False) == [-1.0] * 6
    others = ["thank you", ".", "[music] thank you", "(and do not forget to subscribe to us)", "um"]
    assert max(rewarded("", *others, score=score)) <= -0.5


FILLERS = [
    "um",
    "Mm-hmm.",
    "hmm",
    "uh, um",
    "[laughter]",
    "(coughs)",
    "<noise>",
    "[NOISE] um",
    "...",
]


@pytest.mark.parametrize("name", ["english", "mandarin", "none"])
@pytest.mark.parametrize("ref", FILLERS)
def test_a_verbatim_transcript_is_never_worse_than_silence(ref: str, name: str) -> None:
    for kind in ("sample", "gate"):
        score = ScoreConfig(name, "mixed")
        verbatim, silent, hacked = rewarded(
            ref, ref, "", "thank you for watching and do not forget", score=score, kind=kind
        )
        assert verbatim == 0.0 and silent == 0.0
        assert hacked < -0.5


MADE_UP = "and do not forget to subscribe to the channel below"
FORGIVEN = [f"({MADE_UP})", f"[{MADE_UP}]", f"<{MADE_UP}>", "(thank you)", "[Music]", "um uh " * 4]
FORGIVEN += [f"（{MADE_UP}）", f"［{MADE_UP}］", "[(thanks)]", "⒯⒣⒜⒩⒦⒮"]


@pytest.mark.parametrize("hidden", FORGIVEN)
def test_what_the_error_rate_forgives_is_not_free(hidden: str) -> None:
    ref = "open the window please"
    for text in (f"{ref} {hidden}", f"{hidden} {ref}", ref.replace("the", f"the {hidden}")):
        assert normalizer("english")(text) == normalizer("english")(ref)
        hacked, right = rewarded(ref, text, ref)
        assert right == 0 and hacked <= -1 / 5


@pytest.mark.parametrize(
    ("ref", "hyp"),
    [
        ("open the [noise] window please", "open the [noise] window please"),
        ("open the [noise] window please", "open the window please"),
        ("open the window please", "open the (window) please"),
        ("open the window please", "um open the uh window please"),
        ("um um um um um well", "um um um um um well"),
        ("well [laughter] yes", "well yes"),
    ],
)
def test_brackets_and_fillers_that_are_said_are_free(ref: str, hyp: str) -> None:
    assert rewarded(ref, hyp) == [0.0]


def test_the_rate_of_the_corpus_is_an_option() -> None:
    utterance = Utterance("u", "", "a b", "s", duration=1.0)
    for rate, value in ((8.0, 0.0), (3.0, -1 / 4)):
        options = reward_options("hallucination", max_rate=rate)
        reward = build_reward(options, Context(ScoreConfig("none", "word")))
        assert reward.function([Sample(utterance, "a b c d", True)]) == [pytest.approx(value)]


def no_false_alarm(transcripts: list[tuple[str, float]], language: str) -> None:
    """No detector sees anything in what people said, with the transcript as reference or none."""
    name = NORMALIZER[language]
    assert len(transcripts) >= 100
    for text, seconds in transcripts:
        units, clean = normal_units(text, name, "mixed"), normalizer(name)(text)
        assert reward_of(Case(language, text, text, seconds), "gate") == 0.0, text
        assert detectors.loops(units) == [], text
        assert detectors.compressible(units, clean) == [], text
        assert detectors.beyond_audio(units, seconds, MAX_RATE) == [], text
        for other, _ in transcripts[:20]:
            assert detectors.foreign(units, normal_units(other, name, "mixed")) == [], text


def test_no_false_alarm_on_librispeech(shared_data) -> None:
    transcripts = []
    for path in sorted(shared_data("LibriSpeech").glob("train-clean-100/*/*/*.trans.txt")):
        for line in path.read_text().splitlines():
            name, _, text = line.partition(" ")
            transcripts.append((text, soundfile.info(path.parent / f"{name}.flac").duration))
    no_false_alarm(transcripts, "en")


def test_no_false_alarm_on_aishell(shared_data) -> None:
    folder = shared_data("data_aishell")
    audio = {path.stem: path for path in folder.glob("wav/**/*.wav")}
    lines = (folder / "transcript" / "aishell_transcript_v0.8.txt").read_text().splitlines()
    pairs = [line.split(maxsplit=1) for line in lines]
    transcripts = [
        (text, soundfile.info(audio[name]).duration) for name, text in pairs if name in audio
    ]
    no_false_alarm(transcripts, "zh")
