"""Long recordings: where they are cut, how their parts are joined, and when they are refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny import RATE, tiny_config, tiny_model, write_set

from audiorl.data.audio import audio_digest, read_audio
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer import transcribe as transcribing
from audiorl.infer.decode import Transcriber
from audiorl.infer.transcribe import Hypothesis, transcribe
from audiorl.infer.windows import join, join_texts, windows


def recording(path: Path, words: list[float], pause: float = 0.3, **fields) -> Utterance:
    """Noise of so many seconds for each word, with pauses between them."""
    noise, silence = np.random.default_rng(1), np.zeros(round(pause * RATE))
    pieces = [piece for s in words for piece in (noise.normal(0, 0.1, round(s * RATE)), silence)]
    wave = np.concatenate(pieces[:-1])
    soundfile.write(path, wave, RATE)
    known = {"duration": len(wave) / RATE, "audio_hash": audio_digest(str(path))}
    return Utterance("u", str(path), "", "s", **(known | fields))


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("most", [1.5, 2.0, 3.1, 5.0])
def test_parts_join_to_the_whole_and_end_in_pauses(tmp_path: Path, suffix: str, most: float):
    u = recording(tmp_path / f"a.{suffix}", [0.7, 0.4, 0.9, 0.5, 0.8, 0.3, 0.6, 0.7, 0.5, 0.8])
    parts = windows([u], most)["u"]
    assert max(part.duration for part in parts) <= most + 1e-9
    assert parts[0].start == 0 and parts[-1].end == pytest.approx(u.duration)
    assert all(one.end == two.start for one, two in itertools.pairwise(parts))
    pieces = [read_audio(part, RATE) for part in parts]
    np.testing.assert_array_equal(np.concatenate(pieces), read_audio(u, RATE))
    for piece in pieces[1:]:
        assert np.abs(piece[: RATE // 20]).max() == 0
    assert len({part.id for part in parts}) == len(parts) < 2 * u.duration / most + 1


@pytest.mark.parametrize("seconds", [10.0, 10.001, 19.99, 20.0, 31.7])
def test_speech_without_a_pause_is_cut_anyway(tmp_path: Path, seconds: float) -> None:
    parts = windows([recording(tmp_path / "a.wav", [seconds])], 5.0)["u"]
    assert max(part.duration for part in parts) <= 5.0 + 1e-9
    assert min(part.duration for part in parts) > 1.2
    assert sum(part.duration for part in parts) == pytest.approx(seconds)


def test_short_ones_are_left_alone(tmp_path: Path) -> None:
    u = recording(tmp_path / "a.wav", [1.0, 1.0])
    assert windows([u], 0) == windows([u], 2.3) == windows([u], 99) == {"u": [u]}


def test_a_segment_is_cut_within_itself(tmp_path: Path) -> None:
    span = {"start": 1.25, "end": 5.5, "duration": 4.25}
    u = recording(tmp_path / "a.wav", [1.0] * 6, **span)
    parts = windows([u], 2.0)["u"]
    assert (parts[0].start, parts[-1].end) == (1.25, 5.5)
    whole = np.concatenate([read_audio(part, RATE) for part in parts])
    np.testing.assert_array_equal(whole, read_audio(u, RATE))


def heard(*texts: str, logp: float = -1.0, finished: bool = True) -> list[Hypothesis]:
    return [Hypothesis(text, logp - n, finished) for n, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (["hello ", " world"], "hello world"),
        (["你好", "世界"], "你好世界"),
        (["你好", "world", "世界"], "你好 world 世界"),
        (["a", "", "b"], "a b"),
        (["", ""], ""),
        (["two\nlines", "more"], "two lines more"),
    ],
)
def test_texts_are_joined_in_time(texts: list[str], joined: str) -> None:
    parts = {"u": [Utterance(f"u/{n}", "", "", "s") for n in range(len(texts))]}
    found = {f"u/{n}": heard(text) for n, text in enumerate(texts)}
    (whole,) = join(parts, dict(reversed(found.items())))["u"]
    assert whole == Hypothesis(joined, -float(len(texts)), True)


def test_nbest_lists_are_joined_by_probability_and_a_cut_part_is_told() -> None:
    parts = {"u": [Utterance("u/0", "", "", "s"), Utterance("u/1", "", "", "s")]}
    parts["v"] = [Utterance("v", "", "", "s")]
    found = {"u/0": heard("a", "b"), "u/1": heard("c", "d", logp=-1.5), "v": heard("e", "f")}
    found["u/1"][0].finished = False
    whole = join(parts, found)
    assert [(h.text, h.logp) for h in whole["u"]] == [("a c", -2.5), ("a d", -3.5)]
    assert not whole["u"][0].finished and whole["v"] == found["v"]


@pytest.fixture(scope="module")
def model():
    return tiny_model(spread=3.0)


@pytest.mark.parametrize("method", ["greedy", "nbest"])
def test_decoding_in_windows(tmp_path: Path, model, method: str, capsys) -> None:
    """Short recordings are decoded as without windows; a long one has the texts of its parts."""
    data = tmp_path / "dump" / "test"
    write_set(data, ["ba do", "ki lu me " * 5, "so"])
    decoded = {}
    for seconds in (0.0, 2.0):
        keys = {"decode.window_seconds": seconds, "decode.method": method, "decode.num_beams": 2}
        transcriber = Transcriber(tiny_config(keys))
        stamp = transcriber.stamp(tmp_path / "exp", data, tmp_path / "out")
        assert not stamp.is_current()
        transcriber.decode(PolicyEngine(model), data, stamp)
        assert stamp.is_current()
        lines = (tmp_path / "out" / "text").read_text(encoding="utf-8").splitlines()
        decoded[seconds] = [line.partition(" ")[2] for line in lines]
    assert "test: 1 of 3 recordings in " in capsys.readouterr().out
    u = read_utterances(data)
    long = max(range(3), key=lambda n: u[n].duration)
    for n in range(3):
        assert (decoded[0.0][n] == decoded[2.0][n]) == (n != long)
    beams = 2 if method == "nbest" else 1
    parts = windows([u[long]], 2.0)[u[long].id]
    found = transcribe(PolicyEngine(model), parts, max_length=8, num_beams=beams)
    expected = " ".join(found[part.id][0].text for part in parts)
    assert decoded[2.0][long].split() == expected.split()


def test_what_memory_cannot_hold_is_refused_before_decoding(tmp_path, model, monkeypatch) -> None:
    data = tmp_path / "test"
    write_set(data, ["ba do", "ki lu me " * 20])
    utterances = read_utterances(data)
    read = []
    monkeypatch.setattr(transcribing, "encode_utterances", lambda model, batch: read.append(batch))
    needed = model.encoding_bytes(max(u.duration for u in utterances))
    monkeypatch.setattr(transcribing, "free_memory", lambda device: needed * 0.9)
    longest = max(utterances, key=lambda u: u.duration)
    said = rf"{longest.id} lasts 9 s, .* set decode.window_seconds .*cut at pauses"
    with pytest.raises(UserError, match=said):
        transcribe(PolicyEngine(model), utterances, max_length=8, batch_seconds=9.0)
    assert read == []
    with pytest.raises(TypeError):  # goes on to what is replaced above
        transcribe(PolicyEngine(model), windows(utterances[:1], 0)[utterances[0].id], max_length=8)
    assert read


@pytest.mark.parametrize("kind", ["conformer", "transformer", "e_branchformer"])
def test_the_estimate_holds_the_scores_of_attention(kind: str) -> None:
    """Memory grows with the square of the length, and every layer forgets its scores."""
    model = tiny_model({"encoder.type": kind})
    frames = len(model.encode([torch.zeros(60 * RATE)])[0])
    assert model.encoding_bytes(60.0) == 8 * 4 * 2 * frames**2
    assert model.encoding_bytes(600.0) == pytest.approx(100 * model.encoding_bytes(60.0), rel=0.02)


def test_windows_serve_a_family_that_hears_no_more(tmp_path, model, monkeypatch) -> None:
    data = tmp_path / "dump" / "test"
    write_set(data, ["ba do ki", "ki lu me " * 5])
    monkeypatch.setattr(type(model), "seconds", (0.0, 2.0))
    for seconds in (0.0, 2.0):
        transcriber = Transcriber(tiny_config({"decode.window_seconds": seconds}))
        stamp = transcriber.stamp(tmp_path / "exp", data, tmp_path / "out")
        if seconds:
            transcriber.decode(PolicyEngine(model), data, stamp)
        else:
            with pytest.raises(UserError, match=r"hears 0 to 2 s; .*decode\.window_seconds"):
                transcriber.decode(PolicyEngine(model), data, stamp)


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["go on ", " then"], "go on then"),
        (["今天", "好"], "今天好"),
        (["中", "文", "字"], "中文字"),
        (["今天", "", "iPhone", "好"], "今天 iPhone 好"),
        (["", ""], ""),
    ],
)
def test_parts_are_joined_as_their_script_is_written(parts: list[str], whole: str) -> None:
    assert join_texts(parts) == whole
