"""The page of synthesis: players, spectrograms and transcripts, in one file."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_voices import make_voices, tone
from PIL import Image
from test_report import Page

from audiorl.config import Config
from audiorl.report import charts
from audiorl.report.media import SHADES, clip, mp3, spectrogram
from audiorl.report.report import write_report
from audiorl.report.voices import _sentences
from audiorl.score.asr import SystemScore, score_systems
from audiorl.score.metrics import measures_of

RATE = 16000
SYSTEMS = {"base": 0.4, "grpo": 0.2, "both": 0.05}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config, list[Path]]:
    """Three systems and the natural recordings; one wave is missing, a text has a `<`."""
    root = tmp_path_factory.mktemp("a recipe")
    config = make_voices(root, SYSTEMS, utterances=15)
    for name in config.data.test:
        text = root / "dump" / name / "text"
        text.write_text(text.read_text().replace(" the ", " <the> "))
    for wave in (root / "exp/grpo/decode_greedy/test/wav").iterdir():
        wave.unlink()
    return root, config, [root / "exp" / name for name in (*SYSTEMS, "natural")]


@pytest.fixture(scope="module")
def systems(recipe) -> list[SystemScore]:
    root, config, exps = recipe
    return score_systems(exps, root / "dump", config, measures_of(config.task))


@pytest.fixture(scope="module")
def text(recipe) -> str:
    root, config, exps = recipe
    assert write_report(exps, root / "dump", exps[2], config, measures_of(config.task), "report")
    assert not write_report(
        exps, root / "dump", exps[2], config, measures_of(config.task), "report"
    )
    return (exps[2] / "report.html").read_text()


def test_elsewhere_the_report_is_about_the_last_system(recipe, tmp_path: Path) -> None:
    """Not about the recordings, which come after it."""
    root, config, exps = recipe
    assert write_report(
        exps, root / "dump", tmp_path / "report", config, measures_of(config.task), "report"
    )
    results = (tmp_path / "report" / "RESULTS.md").read_text()
    assert re.search(r"both changes the pooled|both \w+ the pooled", results)


def test_page_is_balanced_and_self_contained(text: str) -> None:
    page = Page(text)
    assert page.open == []
    for _, attributes in page.tags:
        for key in ("src", "href"):
            inside = ("#", "data:audio/mpeg;base64,", "data:image/png;base64,")
            assert (attributes.get(key) or "#").startswith(inside)
    assert "<the>" not in text
    pictures = page.all("img")
    assert len(pictures) == len(page.all("audio")) >= 30
    assert all(re.match(r"Mel spectrogram of \S+ by \w+, ", a["alt"]) for a in pictures)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"][1:] for a in page.all("a")]
    assert {"systems", "voices", "worst-voices", "training-all"} <= set(links) <= set(ids)


def test_page_content(text: str) -> None:
    for title in (
        "both lowers the pooled WER", "WER and speaker similarity", "Speech: test_hard",
        "WER, natural", "The same sentence", "base: 5 worst of each set", "both: 5 worst of",
        "Training, side by side", "Judge&#39;s score on the dev set", "similarity 8",
        "No audio: ", '<ins title="inserted">',
    ):  # fmt: skip
        assert title in text, title
    assert "natural: 5 worst" not in text
    assert "Changed most for the better" not in text  # recognition's, of recordings


def test_the_same_sentence_by_every_system(text: str, systems: list[SystemScore]) -> None:
    """In each row all systems say one utterance, and what the judge heard stands below."""
    part = text[text.index('<section id="voices"') : text.index('<section id="worst-voices"')]
    rows = re.findall(r"<article>.*?</article>", part, re.DOTALL)
    places = _sentences(systems[0], systems[2])
    assert len(rows) == len(places) >= 4
    for row, (place, why) in zip(rows, places.items(), strict=True):
        assert f" · {why}</p>" in row
        labels = re.findall(r"<figcaption>(\w+)<small>(\d+) error", row)
        expected = [(s.label, str(s.pooled.utterances[place].errors)) for s in systems]
        assert labels == expected
        said = systems[0].pooled.utterances[place].utterance
        assert all(f"of {said.id} by" in name for name in re.findall('aria-label="([^"]+)"', row))


def rates(system: SystemScore, name: str) -> list[float]:
    return [u.alignment.counts.rate for u in system.pooled.utterances if u.set == name]


def test_chosen_sentences(systems: list[SystemScore]) -> None:
    """An ordinary one of each set leads; then come the largest changes of rate in each set."""
    first, focus = systems[0], systems[2]
    chosen = list(_sentences(first, focus).items())
    assert [why for _, why in chosen[:2]] == ["ordinary", "ordinary"]
    for (place, _), name in zip(chosen[:2], ("test", "test_hard"), strict=True):
        u = focus.pooled.utterances[place]
        assert u.set == name
        assert u.alignment.counts.rate == sorted(rates(focus, name))[len(rates(focus, name)) // 2]
    improved = [place for place, why in chosen[2:] if why == "improved most"]
    assert [focus.pooled.utterances[place].set for place in improved] == ["test", "test_hard"]
    for place in improved:
        name = focus.pooled.utterances[place].set
        pairs = zip(rates(first, name), rates(focus, name), strict=True)
        was, now = (s.pooled.utterances[place].alignment.counts.rate for s in (first, focus))
        assert now - was == min(after - before for before, after in pairs)
    assert set(_sentences(first, first).values()) == {"ordinary"}  # nothing changed


def test_long_gibberish_does_not_lead(tmp_path: Path) -> None:
    """What nobody says well is one set among others, however many its errors."""
    config = make_voices(tmp_path, {"base": 0.4, "both": 0.1}, utterances=9)
    uid = "ann-test_hard-000"
    text = tmp_path / "dump" / "test_hard" / "text"
    lines = [line for line in text.read_text().splitlines() if not line.startswith(uid)]
    text.write_text("\n".join([f"{uid} {' '.join(['word'] * 80)}", *lines]) + "\n")
    exps = [tmp_path / "exp" / name for name in ("base", "both")]
    first, focus = score_systems(exps, tmp_path / "dump", config, measures_of(config.task))
    said = focus.pooled.utterances
    hard = next(place for place, u in enumerate(said) if u.utterance.id == uid)
    assert said[hard].errors == max(u.errors for u in said) > 60
    chosen = list(_sentences(first, focus))
    assert hard not in chosen
    assert said[chosen[0]].set == "test"


def test_headline_has_each_set(text: str, systems: list[SystemScore]) -> None:
    """Sets of synthesis differ too much for one number."""
    part = text[text.index('<section id="result"') : text.index('<section id="systems"')]
    for name in ("test", "test_hard"):
        tiles = part[part.index(f"<h3>{name}</h3>") :]
        tiles = re.match(
            r'<h3>\w+</h3>\s*(<div class="tiles">.*?</div>\s*</div>)', tiles, re.DOTALL
        )[1]
        for system in (systems[0], systems[2], systems[3]):
            rate = 100 * system.speech[name].summary["wer"]["rate"]
            assert f"<span>WER, {system.label}</span><strong>{rate:.2f} %</strong>" in tiles
        assert f"{100 * systems[2].against[name].relative:+.1f} %" in tiles
    assert part.count('class="tiles"') == 2


def decoded(url: str) -> bytes:
    return base64.b64decode(url.split(",")[1])


def test_player_holds_the_wave() -> None:
    wave = tone(1.0, 200.0)
    url = mp3(wave, RATE)
    heard, rate = soundfile.read(io.BytesIO(decoded(url)))
    assert rate == RATE
    assert abs(len(heard) - len(wave)) < 0.1 * RATE
    assert len(url) < 25_000
    power = np.abs(np.fft.rfft(heard))
    assert abs(power.argmax() * RATE / len(heard) - 200) < 20


def test_spectrogram_shows_the_wave() -> None:
    """Time from left to right, low frequencies below, the loud bright."""
    time = np.arange(RATE // 2) / RATE
    low, high = np.sin(2 * np.pi * 300 * time), np.sin(2 * np.pi * 5000 * time)
    made = clip(np.concatenate([low, high]), RATE, "x", picture=True)
    assert made.description == "Mel spectrogram of x, 1.0 s, 0 to 8 kHz."
    picture = Image.open(io.BytesIO(decoded(made.spectrogram)))
    assert picture.width == 98 and len(made.spectrogram) < 10_000
    points = np.asarray(picture)  # indices of colours
    assert points.max() == SHADES - 1
    rows = points.argmax(axis=0)
    assert set(rows[:45]) != set(rows[55:])
    assert rows[:45].min() > 0.7 * picture.height > 0.3 * picture.height > rows[55:].max()
    palette = np.array(picture.getpalette()[: 3 * SHADES]).reshape(-1, 3).sum(axis=1)
    assert (np.diff(palette) > 0).all()


@pytest.mark.parametrize("samples", [0, 10, 8000])
def test_silence_can_be_shown(samples: int) -> None:
    silence = np.zeros(samples, np.float32)
    assert Image.open(io.BytesIO(decoded(spectrogram(silence, RATE)))).width >= 1
    assert mp3(silence, RATE).startswith("data:audio/mpeg;base64,")


def test_curves_side_by_side(tmp_path: Path) -> None:
    steps = np.arange(3.0)
    metrics = {
        "base": {"loss": (steps, steps)},
        "grpo": {"reward": (steps, steps), "eval/judge": (steps, -steps)},
        "both": {"reward": (steps, 2 * steps)},
    }
    (chart,) = charts.side_by_side(metrics, tmp_path)
    assert chart.title == "Reward"
    assert "grpo from 0 to 2; both from 0 to 4" in chart.description
    assert chart.svg.count("<path") > 2
    assert (tmp_path / "all_reward.png").exists()
