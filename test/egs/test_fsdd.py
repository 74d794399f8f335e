"""egs/fsdd: the strings that it makes, on recordings made here, and all its stages on real ones."""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from recipe_runs import EGS, QUICK, check_outputs, ids, run, run_recipe, settings, write_tar

from audiorl.data.utterance import read_utterances
from audiorl.data.validate import validate
from audiorl.errors import UserError

LOCAL = EGS / "fsdd" / "local"
DATA_SH = LOCAL / "data.sh"
SPEAKERS = "george jackson lucas nicolas theo yweweler".split()
TESTS = ["test_clean", "test_noisy", "test_speakers"]
TAKES = [0, 5, 35, 38, 47]  # the first that each purpose has
PER_SET = {"train": 40, "dev": 2, "rl": 10, "rl_dev": 2} | dict.fromkeys(TESTS, 3)  # scale 0.01


@pytest.fixture(scope="module")
def local() -> Iterator[SimpleNamespace]:
    """The recipe's modules; others have modules of the same names, so they are put away."""
    places, names = [str(LOCAL), str(EGS / "mini_asr" / "local")], ["prepare", "sound", "strings"]
    shared = [*names, "acoustics"]
    before = {name: sys.modules.pop(name) for name in shared if name in sys.modules}
    sys.path[:0] = places
    try:
        yield SimpleNamespace(**{name: __import__(name) for name in names})
    finally:
        for place in places:
            sys.path.remove(place)
        for name in shared:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def write_recording(path: Path, rate: int = 8000) -> None:
    """A tone of 0.2 to 0.3 s: its pitch says the digit, its loudness the speaker."""
    digit, speaker, take = path.stem.split("_")
    time = np.arange(1600 + 80 * int(digit)) / rate
    loudness = 0.5 * 0.5 ** SPEAKERS.index(speaker)
    samples = loudness * np.sin(2 * np.pi * (300 + 100 * int(digit) + int(take)) * time)
    soundfile.write(path, samples, rate, subtype="PCM_16")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All speakers and digits in a few takes, in a folder with a blank."""
    made = tmp_path_factory.mktemp("corpora") / "spoken digits"
    (made / "recordings").mkdir(parents=True)
    for digit, speaker, take in itertools.product(range(10), SPEAKERS, TAKES):
        write_recording(made / "recordings" / f"{digit}_{speaker}_{take}.wav")
    return made


def make(corpus: Path, out: Path, *options: str, expect: int = 0):
    where = ("--corpus", corpus, "--out", out, "--scale", "0.01")
    return run(DATA_SH, *where, *options, expect=expect)


@pytest.fixture(scope="module")
def data(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("work") / "data"
    make(corpus, out)
    return out


def sounds(data: Path) -> dict[str, bytes]:
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*.wav")}


@pytest.fixture(scope="module")
def plans(local: SimpleNamespace) -> dict[str, list]:
    """All strings of the recipe, from the names of all recordings of the release."""
    everything = [
        local.strings.Recording(digit, speaker, take, Path(f"/{digit}_{speaker}_{take}.wav"))
        for digit, speaker, take in itertools.product(range(10), SPEAKERS, range(50))
    ]
    made = {}
    for spec in local.strings.SETS:
        voices = local.strings.voices_of(spec, everything)
        made[spec.name] = [local.strings.plan(spec, i, 1, voices) for i in range(spec.size)]
    return made


# The sets


def test_the_directories_are_valid(data: Path) -> None:
    for name, count in PER_SET.items():
        utterances = read_utterances(data / name)
        assert len(utterances) == count
        assert not [p for p in validate(data / name) if not p.warning]
        for utterance in utterances:
            assert utterance.id.startswith(f"{utterance.speaker}-{name}-")
            assert 3 <= len(utterance.text.split()) <= 7
            info = soundfile.info(utterance.audio)
            assert (info.samplerate, info.channels, info.subtype) == (8000, 1, "PCM_16")


def test_snr_is_that_of_the_set(local: SimpleNamespace, data: Path, plans: dict) -> None:
    bounds = dict.fromkeys(("train", "dev", "test_clean"), (12, 30))
    bounds |= dict.fromkeys(("rl", "rl_dev", "test_noisy"), (-5, 10)) | {"test_speakers": (-5, 30)}
    for name, (low, high) in bounds.items():
        assert all(low <= float(u.tags["snr"]) <= high for u in read_utterances(data / name))
        levels = [u.snr for u in plans[name]]
        assert np.mean(levels) == pytest.approx((low + high) / 2, abs=0.1 * (high - low))


def test_purposes_share_no_recording_and_tests_have_the_official_ones(plans: dict) -> None:
    used: dict[str, set[Path]] = {}
    for name, utterances in plans.items():
        strings = [s for u in utterances for s in (u.recordings, *u.talkers)]
        purpose = "test" if name in TESTS else name
        used.setdefault(purpose, set()).update(r.path for s in strings for r in s)
    for one, other in itertools.combinations(used, 2):
        assert used[one].isdisjoint(used[other])
    takes = {name: {int(p.stem.split("_")[2]) for p in paths} for name, paths in used.items()}
    assert takes.pop("test") == set(range(5))
    assert set().union(*takes.values()) == set(range(5, 50))
    assert len(used["train"]) == 4 * 10 * 30


def test_two_speakers_are_in_one_test_alone(plans: dict) -> None:
    heard = {name: {u.speaker for u in utterances} for name, utterances in plans.items()}
    assert heard.pop("test_speakers") == {"lucas", "theo"}
    assert all(speakers == set(SPEAKERS) - {"lucas", "theo"} for speakers in heard.values())


def test_strings_and_digits_vary(plans: dict) -> None:
    texts = [u.text.split() for u in plans["train"]]
    assert {len(text) for text in texts} == set(range(3, 8))
    counts = np.unique([word for text in texts for word in text], return_counts=True)[1]
    assert len(counts) == 10 and counts.max() < 1.15 * counts.min()
    assert len({u.text for u in plans["test_noisy"]}) > 280
    noises = [u.noise for u in plans["train"]]
    assert all(noises.count(noise) > 900 for noise in ("white", "pink", "brown", "babble"))


def test_babble_is_of_others(plans: dict) -> None:
    for utterance in itertools.chain(*plans.values()):
        assert len(utterance.talkers) == (4 if utterance.noise == "babble" else 0)
        assert all(r.speaker != utterance.speaker for said in utterance.talkers for r in said)


# Sound


def active_level(speech: np.ndarray) -> float:
    """dB of the frames (20 ms) within 30 dB of the loudest, computed apart from the recipe."""
    frames = [speech[i : i + 160].astype(float) for i in range(0, len(speech) - 159, 160)]
    levels = np.array([np.mean(frame**2) for frame in frames])
    return 10 * np.log10(levels[levels >= levels.max() / 1000].mean())


def test_the_file_is_its_parts_at_the_nominal_snr(
    local: SimpleNamespace, corpus: Path, data: Path
) -> None:
    recordings = local.prepare.find_recordings(str(corpus))
    for spec in local.strings.SETS:
        voices = local.strings.voices_of(spec, recordings)
        paths = {u.id: u.audio for u in read_utterances(data / spec.name)}
        for index in range(PER_SET[spec.name]):
            utterance = local.strings.plan(spec, index, 1, voices)
            speech, noise = local.sound.render(utterance)
            written, _ = soundfile.read(paths[utterance.id], dtype="float32")
            assert np.abs(written - (speech + noise)).max() < 1 / 32000
            assert np.abs(written).max() < 0.99
            level = active_level(speech)
            noise_level = 10 * np.log10(np.mean(noise.astype(float) ** 2))
            assert level - noise_level == pytest.approx(utterance.snr, abs=0.1)
            assert -45 < level < -19


def test_digits_are_as_loud_as_each_other_but_for_the_gain(
    local: SimpleNamespace, corpus: Path
) -> None:
    """Whatever the recording: that of the last speaker is 30 dB below that of the first."""
    loud, soft = (corpus / "recordings" / f"3_{name}_5.wav" for name in (SPEAKERS[0], SPEAKERS[-1]))
    levels = [active_level(local.sound.levelled(path)) for path in (loud, soft)]
    assert levels == pytest.approx([0, 0], abs=0.1)
    said = [local.strings.Recording(3, "george", 5, loud)] * 40
    speech = local.sound.join(tuple(said), np.random.default_rng(1))
    edges = np.flatnonzero(np.diff(np.r_[False, speech != 0, False].astype(int)))
    # Silence parts digits; a sine has zeros of its own, which last a sample or two.
    runs = [(a, b) for a, b in zip(edges[1::2], edges[2::2], strict=False) if b - a > 8]
    gaps = [(b - a) / 8000 for a, b in runs]
    assert 25 <= len(gaps) <= 39 and max(gaps) <= 0.3 and np.std(gaps) > 0.05
    begins = [edges[0], *(b for _, b in runs)]
    peaks = [20 * np.log10(np.abs(speech[start : start + 1600]).max()) for start in begins]
    assert -1.1 < min(peaks) < 1 and 5 < max(peaks) < 7.1  # a sine of power 1 has a peak of 3 dB


def test_the_same_seed_makes_the_same_sound(corpus: Path, data: Path, tmp_path: Path) -> None:
    """From flac, too."""
    lossless = tmp_path / "flac"
    lossless.mkdir()
    for path in (corpus / "recordings").iterdir():
        samples, rate = soundfile.read(path, dtype="int16")
        soundfile.write(lossless / f"{path.stem}.flac", samples, rate)
    make(lossless, tmp_path / "again")
    assert sounds(tmp_path / "again") == sounds(data)
    make(corpus, tmp_path / "other", "--seed", "2")
    one, other = ((folder / "rl" / "text").read_text() for folder in (data, tmp_path / "other"))
    assert one != other


def test_what_is_there_is_not_made_again(corpus: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(corpus, data)
    expected = sounds(data)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    assert make(corpus, data).stdout.count("up to date") == len(PER_SET)
    lost = next((data / "wav" / "rl").rglob("*.wav"))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    lost.unlink()
    make(corpus, data)
    assert sounds(data) == expected
    assert [path for path in before if path.stat().st_mtime_ns != before[path]] == [lost]


# Corpora


@pytest.fixture
def links(corpus: Path, tmp_path: Path) -> Path:
    """The corpus as links, to be harmed."""
    folder = tmp_path / "links"
    folder.mkdir()
    for path in (corpus / "recordings").iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def test_what_is_missing_or_foreign_is_said(links: Path, tmp_path: Path) -> None:
    (links / "3_theo_35.wav").unlink()  # not needed: theo is in no dev set
    write_recording(links / "3_theo_50.wav")
    (links / "notes.txt").touch()
    said = make(links, tmp_path / "data").stdout
    assert "kept 299 of 301 files" in said
    rows = [" ".join(line.split()) for line in said.splitlines()]
    assert "theo 49 500 partial" in rows and "george 50 500 partial" in rows


def remove_digit(links: Path) -> None:
    (links / "3_nicolas_38.wav").unlink()


def change_rate(links: Path) -> None:
    for path in links.glob("4_*"):
        path.unlink()
        write_recording(path, rate=16000)


def silence(links: Path) -> None:
    for path in links.glob("5_*"):
        path.unlink()
        soundfile.write(path, np.zeros(1600), 8000)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (remove_digit, "rl needs a recording of 3 by nicolas with an index of 38 to 46"),
        (change_rate, "expected speech at 8000 Hz, found 16000 Hz"),
        (silence, "found 8000 Hz and a peak of 0;"),
    ],
)
def test_a_corpus_that_will_not_do(
    links: Path, tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    harm(links)
    done = make(links, tmp_path / "data", expect=1)
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "data" / "train").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--corpus is needed"),
        (["--corpus", "{tmp}"], "{tmp} holds no recordings named like 7_jackson_32.wav"),
        (["--corpus", "{tmp}", "--scale", "0"], "expected --seed from 0 and --scale above 0"),
    ],
)
def test_what_cannot_be_prepared(tmp_path: Path, options: list[str], message: str) -> None:
    options = [option.format(tmp=tmp_path) for option in options]
    done = run(DATA_SH, *options, "--out", tmp_path / "data", expect=1)
    assert done.stderr.startswith("error: ") and message.format(tmp=tmp_path) in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "data").exists()


def test_a_folder_is_not_mixed_with_another_corpus(corpus: Path, links: Path, data: Path) -> None:
    assert "was made with seed 1, not 2" in make(corpus, data, "--seed", "2", expect=1).stderr
    (links / "3_theo_35.wav").unlink()
    assert "was made with recordings" in make(links, data, expect=1).stderr


def test_download(
    local: SimpleNamespace,
    mirror: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From an archive on this disk; the transport has its own tests."""
    (served, address), folder = mirror, tmp_path / "downloads"
    content = {"README.md": b"CC BY-SA 4.0", "recordings/0_theo_0.wav": b"RIFF", "utils/x.py": b""}
    inside = "free-spoken-digit-dataset-1.0.10"
    members = {f"{inside}/{name}": value for name, value in content.items()}
    archive = write_tar(served / "v1.0.10.tar.gz", members)
    with pytest.raises(UserError, match="sha256 checksum"):
        local.prepare.download(folder, address)
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(local.prepare, "SHA256", checksum)
    local.prepare.download(folder, address)
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert found == {"README.md", "recordings/0_theo_0.wav"}
    archive.unlink()
    local.prepare.download(folder, address)  # nothing is left to fetch


# Real speech


def test_the_real_corpus_is_read_whole(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    said = make(shared_data("fsdd"), tmp_path / "data").stdout
    assert "kept 3,000 of 3,000 files" in said and said.count("500         500  complete") == 6
    for name in PER_SET:
        assert not [p for p in validate(tmp_path / "data" / name) if not p.warning]


def test_all_stages_on_real_speech(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    small = QUICK | {
        "sft.schedule.max_steps": 20,
        "sft.ctc_steps": 5,
        "sft.schedule.eval_steps": 20,
    }
    small |= {"rl.max_completion_length": 24, "decode.max_completion_length": 24}
    places = ["--corpus", str(shared_data("fsdd")), "--data", str(tmp_path / "data")]
    run_recipe("fsdd", tmp_path, *places, "--scale", "0.02", *settings(small))
    check_outputs(tmp_path, TESTS)
    assert len(ids(tmp_path / "dump" / "train" / "text")) == 80
