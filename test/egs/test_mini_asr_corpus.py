"""The generated corpus of egs/mini_asr: made by its own data.sh, in real processes."""

from __future__ import annotations

import itertools
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from audiorl.data.validate import Checks, validate
from audiorl.errors import UserError

LOCAL = Path(__file__).resolve().parents[2] / "egs" / "mini_asr" / "local"
SCALE = "0.005"
SETS = """train dev rl rl_keyword rl_nospeech rl_dev test_clean test_noisy test_long test_keyword
test_nospeech""".split()
NO_SPEECH = ["rl_nospeech", "test_nospeech"]
MODULES = """acoustics espeak make_corpus plans render sentences sentences_en sentences_zh sets
speakers tables""".split()


@pytest.fixture(scope="module")
def local():
    """The recipe's modules; other recipes have modules of the same names, so they are put away."""
    sys.path.insert(0, str(LOCAL))
    before = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    try:
        yield SimpleNamespace(**{name: __import__(name) for name in MODULES})
    finally:
        sys.path.remove(str(LOCAL))
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def command(out: Path, *options: str) -> list[str]:
    return [str(LOCAL / "data.sh"), "--out", str(out), "--scale", SCALE, *options]


def make(out: Path, *options: str, expect: int = 0) -> subprocess.CompletedProcess:
    environment = {**os.environ, "AUDIORL_PYTHON": sys.executable}
    done = subprocess.run(command(out, *options), capture_output=True, text=True, env=environment)
    assert done.returncode == expect, done.stderr
    return done


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A tiny corpus, in a folder with a blank in its name."""
    out = tmp_path_factory.mktemp("one job") / "data"
    summary = make(out, "--nj", "1").stdout
    (out.parent / "summary.txt").write_text(summary, encoding="utf-8")
    return out


def table(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


def problems(folder: Path) -> list:
    """What the validator finds; that a tiny set has a single speaker is but a warning."""
    found = validate(folder, Checks(no_speech=folder.name in NO_SPEECH))
    return [problem for problem in found if not problem.warning]


def contents(out: Path) -> dict[str, bytes]:
    """Every file below `out`, with its own path taken out of what it says."""
    return {
        str(path.relative_to(out)): path.read_bytes().replace(str(out).encode(), b"")
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def spec_of(local, name: str):
    return next(spec for spec in local.sets.SETS if spec.name == name)


def split_of(name: str) -> str:
    """The sets whose speakers and sentences are the same: all tests, and all of RL but rl_dev."""
    return name if name == "rl_dev" else name.partition("_")[0]


def all_plans(local, language: str = "en", scale: float = 1.0) -> dict[str, list]:
    made = {}
    for spec in local.sets.SETS:
        planner = local.plans.Planner(local.make_corpus.CORPUS, spec, 1, language)
        made[spec.name] = [planner.plan(index) for index in range(round(spec.size * scale))]
    return made


@pytest.fixture(scope="module")
def plans(local):
    """The whole English corpus, before it is heard."""
    return all_plans(local)


@pytest.fixture(scope="module")
def planned(local, plans):
    """By language; of the Mandarin corpus a part."""
    return {"en": plans, "zh": all_plans(local, "zh", 0.3)}


# What is written


def test_every_set_is_a_valid_kaldi_directory(corpus):
    for name in SETS:
        folder = corpus / name
        ids = list(table(folder / "utt2spk"))
        assert ids
        for file in "wav.scp text utt2spk utt2dur utt2snr".split():
            text = (folder / file).read_text(encoding="utf-8")
            assert text.endswith("\n")
            assert list(table(folder / file)) == ids == sorted(ids, key=str.encode)
        utt2spk = table(folder / "utt2spk")
        assert all(utterance.startswith(speaker) for utterance, speaker in utt2spk.items())
        assert list(utt2spk.values()) == sorted(utt2spk.values())
        inverse = table(folder / "spk2utt")
        assert [(u, s) for s, line in inverse.items() for u in line.split()] == [*utt2spk.items()]
        assert problems(folder) == []


def test_durations_are_those_of_the_audio(corpus):
    for name in SETS:
        durations = table(corpus / name / "utt2dur")
        for key, path in table(corpus / name / "wav.scp").items():
            info = soundfile.info(path)
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            assert float(durations[key]) == pytest.approx(info.duration, abs=1e-4)


def test_audio_is_neither_silent_nor_clipped(corpus):
    for name in SETS:
        for path in table(corpus / name / "wav.scp").values():
            samples, _ = soundfile.read(path)
            peak, loudness = np.abs(samples).max(), 10 * np.log10(np.mean(samples**2))
            assert peak < 0.99
            assert loudness > (-80 if name in NO_SPEECH else -45)


def test_lengths_follow_the_sets(corpus):
    seconds = {
        name: [float(value) for value in table(corpus / name / "utt2dur").values()] for name in SETS
    }
    assert max(seconds["train"]) < 7
    assert min(seconds["test_long"]) > max(seconds["train"])
    assert np.mean(seconds["rl"]) > 1.5 * np.mean(seconds["train"])


def test_nobody_speaks_in_nospeech(corpus):
    for name in NO_SPEECH:
        assert set(table(corpus / name / "text").values()) == {""}
        assert set(table(corpus / name / "utt2snr").values()) == {"-inf"}
        assert not (corpus / name / "utt2keywords").exists()


def test_the_summary_has_a_row_for_every_set(corpus):
    summary = (corpus.parent / "summary.txt").read_text(encoding="utf-8")
    rows = [line.split() for line in summary.splitlines()]
    assert rows[1] == "set utts speakers minutes mean s SNR dB words vocab".split()
    assert [row[0] for row in rows[2:]] == SETS
    assert rows[2][1:3] == ["30", "24"]
    assert rows[-1][-2:] == ["0", "0"]


# The plan: speakers, sentences, keywords


def test_speakers_are_disjoint_and_their_voices_too(local, plans):
    people, voices = {}, {}
    for name, utterances in plans.items():
        group = split_of(name)
        heard = [u.speaker for u in utterances if u.speaker]
        people.setdefault(group, set()).update(speaker.id for speaker in heard)
        voices.setdefault(group, set()).update(speaker.voice.split("+")[1] for speaker in heard)
    for one, other in itertools.combinations(people, 2):
        assert people[one].isdisjoint(people[other])
        assert voices[one].isdisjoint(voices[other])
    assert len(people["train"]) == 24


def test_babble_is_of_other_people_of_the_same_group(local, plans):
    crowds = [u for utterances in plans.values() for u in utterances if u.noise == "babble"]
    assert crowds
    for utterance in crowds:
        talkers = {speaker.id for speaker, _ in utterance.talkers}
        assert talkers and utterance.speaker_id not in talkers
        if utterance.speaker:
            assert all(talker[:2] == utterance.speaker.id[:2] for talker in talkers)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_sentence_of_one_split_is_in_another(planned, language):
    sentences = {}
    for name, utterances in planned[language].items():
        split = split_of(name)
        spoken = [s.text for u in utterances for s in u.sentences]
        background = [s.text for u in utterances for _, s in u.talkers]
        sentences.setdefault(split, set()).update(spoken, background)
    for one, other in itertools.combinations(sentences, 2):
        assert sentences[one].isdisjoint(sentences[other])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_keywords_are_said_and_kept_from_training_as_promised(local, planned, language):
    grammar = local.make_corpus.GRAMMARS[language]
    tiers = {
        tier: {word for lists in grammar.keywords.values() for word in lists[tier]}
        for tier in ("train", "rl", "test")
    }
    assert 60 <= sum(map(len, tiers.values())) <= 100
    heard = {}
    for name, utterances in planned[language].items():
        heard[name] = {keyword for u in utterances for keyword in u.keywords}
        everything = tiers["train"] | tiers["rl"] | tiers["test"]
        for utterance in utterances:
            text = grammar.separator.join(s.text for s in utterance.sentences)
            assert all(keyword in text for keyword in utterance.keywords)
            if language == "en":
                assert everything & set(text.split()) == set(utterance.keywords)
    assert heard["train"] | heard["dev"] <= tiers["train"]
    assert heard["rl"] | heard["rl_dev"] <= tiers["train"] | tiers["rl"]
    assert len(heard["rl"] & tiers["rl"]) > 0.7 * len(tiers["rl"])
    assert len(heard["test_keyword"] & tiers["test"]) > 0.4 * len(tiers["test"])


def test_half_of_the_tested_keywords_were_never_in_training(plans):
    trained = {keyword for u in plans["train"] for keyword in u.keywords}
    tested = [keyword for u in plans["test_keyword"] for keyword in u.keywords]
    assert all(utterance.keywords for utterance in plans["test_keyword"])
    assert 0.4 < np.mean([keyword not in trained for keyword in tested]) < 0.6
    assert np.mean([bool(u.keywords) for u in plans["train"]]) < 0.1


def test_keyword_table_agrees_with_the_text(corpus):
    for name in ("rl", "test_keyword"):
        text = table(corpus / name / "text")
        keywords = table(corpus / name / "utt2keywords")
        assert keywords
        for key, line in keywords.items():
            assert all(f" {keyword} " in f" {text[key]} " for keyword in line.split(";"))


def test_texts_are_lower_case_words(plans):
    texts = [s.text for utterances in plans.values() for u in utterances for s in u.sentences]
    assert all(re.fullmatch(r"[a-z]+( [a-z]+)+", text) for text in texts)
    assert not [text for text in texts if re.search(r"\ba [aeiou]", text)]
    common = {word for u in plans["train"] for s in u.sentences for word in s.text.split()}
    assert 500 <= len(common) <= 700


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_grammar_has_hundreds_of_thousands_of_sentences(local, language):
    grammar = local.make_corpus.GRAMMARS[language]

    def ways(template: str) -> int:
        return math.prod(choices(slot) for slot in local.sentences.SLOT.findall(template))

    def choices(slot: str) -> int:
        entries = grammar.slots[slot]
        if callable(entries):  # numbers, times, dates, digits: at least what 300 draws give
            rng = np.random.default_rng(1)
            return len({entries(rng) for _ in range(300)})
        return sum(map(ways, entries))

    assert sum(ways(t) for templates in grammar.topics.values() for t in templates) > 200_000


@pytest.mark.parametrize(
    ("value", "english", "mandarin"),
    [
        (10, "ten", "十"),
        (15, "fifteen", "十五"),
        (40, "forty", "四十"),
        (99, "ninety nine", "九十九"),
        (100, "one hundred", "一百"),
        (205, "two hundred five", "二百零五"),
        (315, "three hundred fifteen", "三百一十五"),
        (680, "six hundred eighty", "六百八十"),
    ],
)
def test_numbers_in_words(local, value, english, mandarin):
    assert local.sentences_en.number(value) == english
    assert local.sentences_zh.number(value) == mandarin


def test_ordinals(local):
    assert [local.sentences_en.ordinal(n) for n in (1, 12, 20, 21, 30, 31)] == [
        "first", "twelfth", "twentieth", "twenty first", "thirtieth", "thirty first",
    ]  # fmt: skip


# Sound


def active_level(speech: np.ndarray) -> float:
    """dB of the frames (20 ms) within 30 dB of the loudest, computed apart from the recipe."""
    levels = [
        np.mean(frame.astype(float) ** 2)
        for frame in np.split(speech, range(320, len(speech), 320))[:-1]
    ]
    return 10 * np.log10(np.mean([level for level in levels if level >= max(levels) / 1000]))


@pytest.mark.parametrize("name", ["train", "rl", "test_noisy", "test_long"])
def test_snr_is_the_nominal_one_and_the_file_is_its_parts(local, corpus, name):
    paths, nominal = table(corpus / name / "wav.scp"), table(corpus / name / "utt2snr")
    planner = local.plans.Planner(local.make_corpus.CORPUS, spec_of(local, name), 1, "en")
    spec = spec_of(local, name)
    for index in range(min(8, len(paths))):
        utterance = planner.plan(index)
        speech, noise = local.render.render(utterance)
        written, _ = soundfile.read(paths[utterance.id], dtype="float32")
        assert np.abs(written - (speech + noise)).max() < 1 / 32000
        snr = float(nominal[utterance.id])
        if math.isinf(snr):
            assert not noise.any() and spec.clean > 0
            continue
        assert spec.snr[0] <= snr <= spec.snr[1]
        noise_level = 10 * np.log10(np.mean(noise.astype(float) ** 2))
        assert active_level(speech) - noise_level == pytest.approx(snr, abs=0.5)


@pytest.mark.parametrize(("colour", "slope"), [("white", 0), ("pink", -3), ("brown", -6)])
def test_coloured_noise_falls_as_it_should(local, colour, slope):
    noise = local.acoustics.coloured(colour, 160_000, np.random.default_rng(1))
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequencies = np.fft.rfftfreq(len(noise), 1 / 16000)
    octaves = [
        10 * np.log10(power[(frequencies >= low) & (frequencies < 2 * low)].mean())
        for low in (200, 400, 800, 1600)
    ]
    assert np.mean(np.square(noise)) == pytest.approx(1, rel=1e-3)
    assert np.diff(octaves) == pytest.approx([slope] * 3, abs=0.7)


def test_reverberation_decays_by_sixty_decibels_in_t60(local):
    impulse = np.zeros(1600, np.float32)
    impulse[0] = 1
    room = local.acoustics.reverberate(impulse, 0.4, np.random.default_rng(2))
    tail = room[160:6400].astype(float) ** 2
    decay = 10 * np.log10(np.cumsum(tail[::-1])[::-1])  # Schroeder's backward integration
    seconds = np.arange(len(tail)) / 16000
    slope, _ = np.polyfit(seconds[:3200], decay[:3200], 1)
    assert -60 / slope == pytest.approx(0.4, rel=0.1)
    assert room[0] == pytest.approx(1)


def test_resampling_keeps_a_tone_and_removes_what_would_alias(local):
    time_axis = np.arange(22050) / 22050
    kept = local.acoustics.resample(np.sin(2 * np.pi * 1000 * time_axis), 22050)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    assert len(kept) == 16000
    assert np.abs(kept - expected)[500:-500].max() < 0.01
    removed = local.acoustics.resample(np.sin(2 * np.pi * 9500 * time_axis), 22050)
    assert np.abs(removed)[500:-500].max() < 0.01


def test_the_synthesiser_forgets_what_it_said_before(local):
    speech = local.espeak.Speech("gmw/en-US+f5", 170, 50, "turn on the kitchen lights")
    first = local.espeak.synthesise(speech)
    local.espeak.synthesise(local.espeak.Speech("gmw/en+m3", 190, 30, "something else"))
    assert np.array_equal(local.espeak.synthesise(speech), first)
    assert 1 < len(first) / local.espeak.SAMPLE_RATE < 3


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_voice_is_clipped_or_mute(local, language):
    text = {"en": "how far is it to toronto", "zh": "打开厨房的空调"}[language]
    for group in local.speakers.VARIANTS:
        for person in local.speakers.speakers(group, language):
            speech = local.espeak.Speech(person.voice, person.rate, person.pitch, text)
            assert 0.05 < np.abs(local.espeak.synthesise(speech)).max() < 0.99, person


def test_an_unknown_voice_is_one_sentence(local):
    with pytest.raises(UserError, match="no voice xx"):
        local.espeak.phonemes("xx", "hello")


# Mandarin


def bare(phonemes: str) -> str:
    """Phonemes without stress, and without the marks between syllables."""
    return re.sub(r"[',_|: ]", "", phonemes)


def test_mandarin_is_read_syllable_by_syllable_without_english(local):
    texts = {
        s.text
        for utterances in all_plans(local, "zh", 0.03).values()
        for u in utterances
        for s in u.sentences
    }
    grammar = local.sentences_zh.GRAMMAR
    texts.update(w for lists in grammar.keywords.values() for tier in lists.values() for w in tier)
    characters = set("".join(texts))
    assert len(characters) > 250
    for text in texts:
        phonemes = local.espeak.phonemes("sit/cmn", text)
        assert "(" not in phonemes, f"{text} is read in another language: {phonemes}"
        assert len(re.findall(r"\d+", phonemes)) == len(text), f"{text}: {phonemes}"


def test_a_word_outside_the_lists_shows_what_a_fallback_looks_like(local):
    assert "(en)" in local.espeak.phonemes("sit/cmn", "熊猫")
    assert "(en)" in local.espeak.phonemes("sit/cmn", "iphone")


@pytest.mark.parametrize(
    ("word", "pinyin"),
    [
        ("打开", "da3 kai1"), ("银行", "yin2 hang2"), ("自行车", "zi4 xing2 che1"),
        ("音乐", "yin1 yue4"), ("快乐", "kuai4 le4"), ("还书", "huan2 shu1"),
        ("睡觉", "shui4 jiao4"), ("暖和", "nuan3 huo5"), ("号码", "hao4 ma3"),
        ("厨房", "chu2 fang2"), ("公共汽车", "gong1 gong4 qi4 che1"), ("绿色", "lv4 se4"),
        ("三百二十五", "san1 bai3 er4 shi2 wu3"), ("两点", "liang3 dian3"),
        ("广州", "guang3 zhou1"), ("重庆", "chong2 qing4"), ("长孙", "zhang3 sun1"),
        ("乌鲁木齐", "wu1 lu3 mu4 qi2"), ("尔", "er3"), ("葡萄", "pu2 tao5"),
    ],
)  # fmt: skip
def test_characters_sound_as_their_pinyin(local, word, pinyin):
    read = local.espeak.phonemes("sit/cmn", word)
    spelt = local.espeak.phonemes("sit/cmn-Latn-pinyin", pinyin)
    assert bare(read) == bare(spelt)


def test_mandarin_corpus(tmp_path):
    make(tmp_path / "zh", "--language", "zh", "--nj", "2")
    for name in SETS:
        texts = table(tmp_path / "zh" / name / "text").values()
        assert texts and all(re.fullmatch(r"[\u4e00-\u9fff]*", text) for text in texts)
        assert problems(tmp_path / "zh" / name) == []


# Running it again, and what can go wrong


def test_same_bytes_whatever_the_number_of_jobs_after_a_kill(tmp_path, corpus):
    """Killed on its way (SIGKILL) and run again with two jobs: the same corpus as undisturbed."""
    out = tmp_path / "data"
    environment = {**os.environ, "AUDIORL_PYTHON": sys.executable}
    process = subprocess.Popen(
        command(out, "--nj", "2"), env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(list(out.rglob("*.wav"))) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while group_lives(process.pid):
        assert time.monotonic() < deadline, "the workers outlive their parent"
        time.sleep(0.05)
    made = len(list(out.rglob("*.wav")))
    assert made < len(list(corpus.rglob("*.wav")))
    first_line = make(out, "--nj", "2").stdout.splitlines()[0]
    assert f"{made} of 49 utterances are there" in first_line
    files = contents(out)
    assert {name: b for name, b in files.items() if not name.endswith(".tmp")} == contents(corpus)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_second_call_does_nothing_and_says_so(corpus):
    stamps = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    lines = make(corpus).stdout.splitlines()
    assert len(lines) == 1 and "nothing to do" in lines[0]
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == stamps


def test_deleted_files_come_back_the_same_and_a_larger_scale_adds_to_them(tmp_path, corpus):
    out = tmp_path / "data"
    shutil.copytree(corpus, out)
    for path in [*sorted(out.rglob("*.wav"))[::9], out / "rl" / "text"]:
        path.unlink()
    make(out, "--nj", "1", "--scale", "0.006")
    assert contents(corpus / "wav").items() < contents(out / "wav").items()
    assert len(table(out / "train" / "text")) == 36
    assert all(problems(out / name) == [] for name in SETS)


@pytest.mark.parametrize(("seed", "language", "named"), [(2, "en", "seed"), (1, "zh", "language")])
def test_other_options_are_refused_and_nothing_is_lost(local, corpus, seed, language, named):
    before = contents(corpus)
    with pytest.raises(UserError, match=rf"corpus\.json: .* with {named} .*--out"):
        local.make_corpus.make_corpus(local.make_corpus.CORPUS, corpus, 1, language, seed, 0.005)
    assert contents(corpus) == before


def test_a_damaged_note_is_one_sentence(local, tmp_path):
    (tmp_path / "corpus.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"corpus\.json is not whole"):
        local.make_corpus.make_corpus(local.make_corpus.CORPUS, tmp_path, 1, "en", 1, 0.005)


def test_another_seed_makes_another_corpus(local, plans):
    spec = local.sets.SETS[0]
    other = [
        local.plans.Planner(local.make_corpus.CORPUS, spec, 2, "en").plan(index)
        for index in range(200)
    ]
    same = [a.sentences == b.sentences for a, b in zip(plans["train"], other, strict=False)]
    assert np.mean(same) < 0.05


@pytest.mark.parametrize("wrong", ["--nj 0", "--scale 0.0", "--scale nan", "--seed -1"])
def test_senseless_options_are_one_sentence(local, tmp_path, monkeypatch, wrong):
    arguments = ["make_corpus.py", "--out", str(tmp_path / "data"), *wrong.split()]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(UserError, match=f"^{wrong}: expected"):
        local.make_corpus.main()
    assert not (tmp_path / "data").exists()


def test_a_disk_that_refuses_is_one_sentence_and_what_was_made_is_whole(tmp_path, corpus):
    out = tmp_path / "data"
    # No file may grow beyond 64 KiB: the longer utterances cannot be written.
    limited = f'ulimit -f 64; exec "{LOCAL}/data.sh" --out "{out}" --scale {SCALE} --nj 1'
    environment = {**os.environ, "AUDIORL_PYTHON": sys.executable}
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert ".wav: cannot be written" in done.stderr and "File too large" in done.stderr
    assert not list(out.rglob("*.tmp"))
    reference = contents(corpus)
    for name, written in contents(out).items():
        assert reference[name] == written


def test_help_shows_an_example():
    done = subprocess.run([LOCAL / "data.sh", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "example:" in done.stdout and "--language" in done.stdout
