"""The generated corpus of egs/mini_tts: what is said, by whom, and what is written of it."""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from recipe_runs import EGS, run

from audiorl.data.utterance import read_utterances
from audiorl.data.validate import Checks, validate

LOCAL = EGS / "mini_tts" / "local"
GENERATOR = EGS / "mini_asr" / "local"
SPOKEN = "train dev judge_train test test_unusual test_hard".split()
TEXT_ONLY = ["rl", "rl_dev"]
MODULES = """acoustics espeak hard_sentences make_corpus plans render sentences sentences_en
sentences_zh sets speakers tables tts_corpus voices""".split()


@pytest.fixture(scope="module")
def local():
    """The modules of the recipe and of the generator; those of other recipes are put away."""
    sys.path[:0] = [str(LOCAL), str(GENERATOR)]
    before = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    try:
        yield SimpleNamespace(**{name: __import__(name) for name in MODULES})
    finally:
        for folder in (LOCAL, GENERATOR):
            sys.path.remove(str(folder))
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(before)


@pytest.fixture(scope="module")
def plans(local) -> dict[str, list]:
    """The whole corpus, before it is heard."""
    corpus = local.tts_corpus.CORPUS
    made = {}
    for spec in corpus.sets:
        planner = local.plans.Planner(corpus, spec, 1, "en")
        made[spec.name] = [planner.plan(index) for index in range(spec.size)]
    return made


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny corpus, in a folder with a blank in its name."""
    out = tmp_path_factory.mktemp("one job") / "data"
    run(LOCAL / "data.sh", "--out", out, "--scale", "0.005", "--nj", "1")
    return out


def texts(plans: dict[str, list], name: str) -> list[str]:
    return [utterance.sentences[0].text for utterance in plans[name]]


def test_what_the_sets_are(plans) -> None:
    sizes = {name: len(utterances) for name, utterances in plans.items()}
    assert list(sizes) == ["train", "dev", "judge_train", *TEXT_ONLY, *SPOKEN[-3:]]
    assert [sizes[name] for name in ("train", "rl", *SPOKEN[-3:])] == [3600, 1000, 200, 120, 60]
    for utterances in plans.values():
        for utterance in utterances:
            assert len(utterance.sentences) == 1
            assert math.isinf(utterance.snr) and not utterance.t60 and utterance.noise == "none"


def test_no_sentence_of_one_set_is_in_another(plans) -> None:
    for one, other in itertools.combinations(plans, 2):
        assert set(texts(plans, one)).isdisjoint(texts(plans, other))


def test_speakers_are_balanced_and_the_judge_hears_others_too(plans) -> None:
    people = {name: Counter(u.speaker.id for u in plans[name]) for name in plans}
    for name in ("train", "dev", *TEXT_ONLY, *SPOKEN[-3:]):
        assert people[name].keys() == people["train"].keys() and len(people[name]) == 8
        assert max(people[name].values()) - min(people[name].values()) <= 1
    assert people["train"].keys() < people["judge_train"].keys()
    assert len(people["judge_train"]) == 20
    genders = Counter({u.speaker.id: u.speaker.gender for u in plans["train"]}.values())
    assert genders == {"f": 4, "m": 4}


def test_words_are_known_but_for_those_of_test_hard(plans) -> None:
    known = Counter(word for text in texts(plans, "train") for word in text.split())
    assert 350 <= len(known) <= 450

    def unknown(name: str) -> float:
        return np.mean([word not in known for text in texts(plans, name) for word in text.split()])

    assert unknown("test") < 0.01
    assert unknown("test_unusual") == 0
    assert 0.01 < unknown("rl") < 0.1
    assert unknown("test_hard") > 0.15
    # The judge has heard all of it: it measures, and is not measured.
    judged = {word for text in texts(plans, "judge_train") for word in text.split()}
    hard = [word for text in texts(plans, "test_hard") for word in text.split()]
    assert np.mean([word not in judged for word in hard]) < 0.02


def test_texts_are_lower_case_words(plans) -> None:
    for name in plans:
        for text in texts(plans, name):
            assert re.fullmatch(r"[a-z]+( [a-z]+)+", text), text
    for name in ("train", "dev", *TEXT_ONLY, "test"):
        assert max(len(text.split()) for text in texts(plans, name)) <= 8


def test_hard_sentences_are_of_all_kinds_and_hard(plans) -> None:
    kinds: dict[str, list[list[str]]] = {}
    for utterance in plans["test_hard"]:
        sentence = utterance.sentences[0]
        kinds.setdefault(sentence.topic, []).append(sentence.text.split())
    assert sorted(kinds) == ["long", "name", "number", "repetition", "twister"]
    assert min(map(len, kinds.values())) >= 7
    assert np.mean([len(words) for words in kinds["long"]]) > 15
    assert all(max(Counter(words).values()) >= 2 for words in kinds["repetition"])
    lengths = [len(words) for words in kinds["number"]]
    assert np.mean(lengths) > 10
    alike = [Counter(word[0] for word in words).most_common(1)[0][1] for words in kinds["twister"]]
    assert min(alike) >= 3 and np.mean(alike) > 4


def test_unusual_sentences_are_longer_than_those_of_training(plans) -> None:
    """Of known words, so that a speech LM of short sentences may say them."""
    kinds = Counter(u.sentences[0].topic for u in plans["test_unusual"])
    assert sorted(kinds) == ["again", "list", "number", "pair"] and min(kinds.values()) >= 20
    lengths = [len(text.split()) for text in texts(plans, "test_unusual")]
    assert min(lengths) >= 9 and max(lengths) <= 15
    assert len(set(texts(plans, "test_unusual"))) >= 115


def test_rare_names_are_new_to_training(local, plans) -> None:
    tiers = local.sentences_en.KEYWORDS.values()
    rare = {name for lists in tiers for name in lists["test"]}
    for name in ("train", "dev", *TEXT_ONLY, "test"):
        assert rare.isdisjoint(word for text in texts(plans, name) for word in text.split())
    hard = {word for text in texts(plans, "test_hard") for word in text.split()}
    assert len(rare & hard) > 5


def test_every_set_is_a_valid_data_directory(corpus: Path) -> None:
    for name in SPOKEN:
        assert [p for p in validate(corpus / name, Checks()) if not p.warning] == []
        for utterance in read_utterances(corpus / name):
            info = soundfile.info(utterance.audio)
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            assert 0.5 < info.duration < 12


def test_sets_for_rl_are_texts_alone(corpus: Path) -> None:
    for name in TEXT_ONLY:
        files = {file.name for file in (corpus / name).iterdir()}
        assert {"text", "utt2spk", "spk2utt"} <= files
        assert files.isdisjoint({"wav.scp", "utt2dur", "utt2snr"})
        assert not (corpus / "wav" / name).exists()


def test_hard_sentences_carry_their_kind(corpus: Path) -> None:
    kinds = {u.tags["topic"] for u in read_utterances(corpus / "test_hard")}
    assert kinds <= {"long", "name", "number", "repetition", "twister"}
    assert all("topic" in u.tags for u in read_utterances(corpus / "test_unusual"))
    assert not (corpus / "test" / "utt2topic").exists()


def test_speech_is_cut_closely_and_evenly_loud(corpus: Path) -> None:
    levels = []
    for utterance in read_utterances(corpus / "train"):
        samples, rate = soundfile.read(utterance.audio)
        loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
        assert loud[0] / rate < 0.15 and (len(samples) - loud[-1]) / rate < 0.2
        frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
        power = np.mean(frames**2, axis=1)
        levels.append(10 * np.log10(power[power > power.max() / 1000].mean()))
    assert max(levels) - min(levels) < 4


def fundamental(samples: np.ndarray, rate: int) -> float:
    """Median F0 in Hz of the voiced frames, from the autocorrelation."""
    found = []
    for start in range(0, len(samples) - 1024, 320):
        spectrum = np.fft.rfft(samples[start : start + 1024] * np.hanning(1024), 4096)
        correlation = np.fft.irfft(np.abs(spectrum) ** 2)
        low, high = rate // 400, rate // 55
        lag = low + int(correlation[low:high].argmax())
        if correlation[0] > 1e-3 and correlation[lag] > 0.4 * correlation[0]:
            found.append(rate / lag)
    return float(np.median(found))


def test_the_voices_differ_in_pitch(local) -> None:
    """Each well above the one below it."""
    text = "the yellow mouse is waiting in the garden"
    pitches = {}
    for person in local.voices.VOICES:
        speech = local.espeak.Speech(person.voice, person.rate, person.pitch, text)
        samples = local.acoustics.resample(local.espeak.synthesise(speech), 22050)
        pitches[person.id] = fundamental(samples, 16000)
    ordered = sorted(pitches.values())
    assert min(high / low for low, high in itertools.pairwise(ordered)) > 1.05
    women = [pitches[p.id] for p in local.voices.VOICES if p.gender == "f"]
    men = [pitches[p.id] for p in local.voices.VOICES if p.gender == "m"]
    assert min(women) > max(men)


def test_the_voices_to_be_cloned_were_never_heard(local) -> None:
    """Nobody of the test set has a variant of espeak that anybody else has."""
    voices = {group: local.voices.people(group, "en") for group in ("many_more", "unheard")}
    variants = {group: {who.voice for who in people} for group, people in voices.items()}
    assert len(voices["many_more"]) == 72 and len(variants["unheard"]) == 12
    assert not variants["many_more"] & variants["unheard"]
    assert len({who.id for who in voices["many_more"]}) == 72
    everyone = [who for people in voices.values() for who in people]
    assert len({(who.voice, who.rate, who.pitch, who.formants) for who in everyone}) == 84


def test_formants_move_and_tempo_stays(local) -> None:
    said = local.espeak.Speech("gmw/en-US+m1", 140, 40, "we went to the old house by the sea")
    low, usual, high = (local.render.speak(said, factor) for factor in (0.88, 1.0, 1.14))
    assert max(map(len, (low, usual, high))) < 1.15 * min(map(len, (low, usual, high)))
    centre = [_centroid(wave) for wave in (low, usual, high)]
    assert centre[0] < 0.96 * centre[1] and centre[2] > 1.04 * centre[1]


def _centroid(wave: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float((power * np.arange(len(power))).sum() / power.sum() / len(wave))


def test_an_utterance_to_be_cloned_has_a_prompt(tmp_path: Path) -> None:
    run(LOCAL / "data.sh", "--voices", "many", "--out", tmp_path, "--scale", "0.07", "--nj", "1")
    found = read_utterances(tmp_path / "zero_shot")
    assert all(u.prompt.speaker == u.speaker and u.prompt.id != u.id for u in found if u.prompt)
    assert sum(u.prompt is not None for u in found) == 4  # of 14, two people speak twice


def test_a_second_call_does_nothing_and_a_folder_of_mini_asr_is_refused(
    corpus: Path, tmp_path: Path
) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    said = run(LOCAL / "data.sh", "--out", corpus, "--scale", "0.005").stdout
    assert said.count("\n") == 1 and "nothing to do" in said
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == stamps
    run(GENERATOR / "data.sh", "--out", tmp_path / "asr", "--scale", "0.0001", "--nj", "1")
    done = run(LOCAL / "data.sh", "--out", tmp_path / "asr", expect=1)
    assert done.stderr.count("\n") == 1 and "was made with version" in done.stderr


def test_the_same_seed_makes_the_same_sound(corpus: Path, tmp_path: Path) -> None:
    run(LOCAL / "data.sh", "--out", tmp_path / "again", "--scale", "0.0002", "--nj", "2")
    for file in (tmp_path / "again" / "wav").rglob("*.wav"):
        assert file.read_bytes() == (corpus / file.relative_to(tmp_path / "again")).read_bytes()


def test_there_is_one_language() -> None:
    assert "{en}" in run(LOCAL / "data.sh", "--help").stdout
