"""egs/gigaspeech: its preparation of a synthetic corpus in the official layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recipe_runs import EGS, ids, load_preparation, run

from audiorl.data.audio import read_audio
from audiorl.data.utterance import read_utterances
from audiorl.data.validate import Checks, validate
from audiorl.errors import UserError

RATE = 16000
TEXTS = ("AS THEY'RE LEAVING <COMMA> CAN SHE <QUESTIONMARK>", "YES <PERIOD>", "<MUSIC>")


def segment(name: str, number: int, text: str, subsets: list[str]) -> dict:
    span = {"begin_time": 2.0 * number + 0.5, "end_time": 2.0 * number + 2.25}
    return {"sid": f"{name}_S{number:07}", "speaker": "N/A", "text_tn": text, **span} | {
        "subsets": [f"{{{subset}}}" for subset in subsets]
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings of 7 s, opus in 16 kHz; the tone in second 2 n + 1 is n + 1 times 200 Hz."""
    made = tmp_path_factory.mktemp("GigaSpeech")
    audios = []
    kinds = (
        ("POD01", ["XS", "M", "XL"]),
        ("YOU02", ["XL"]),
        ("POD03", ["DEV"]),
        ("AUD04", ["TEST"]),
    )
    time = np.arange(7 * RATE) / RATE
    wave = 0.3 * np.sin(2 * np.pi * 200 * (1 + time // 2) * time)
    for name, subsets in kinds:
        path = f"audio/podcast/P0000/{name}.opus"
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(made / path, wave, RATE, format="OGG", subtype="OPUS")
        segments = [segment(name, number, text, subsets) for number, text in enumerate(TEXTS)]
        audios.append({"title": "x" * 5000, "path": path, "aid": name, "segments": segments})
    content = {"dataset": "GigaSpeech", "language": "EN", "audios": audios}
    (made / "GigaSpeech.json").write_text(json.dumps(content, indent=2))
    return made


def test_sets_and_segments(corpus: Path, tmp_path: Path) -> None:
    data_sh, data = EGS / "gigaspeech" / "local" / "data.sh", tmp_path / "data"
    said = run(data_sh, "--corpus", corpus, "--subset", "XL", "--out", data).stdout
    assert "GigaSpeech XL: kept 8 of 12 utterances" in said
    assert "4 left out, without a transcript" in said
    sizes = {name: len(read_utterances(data / name)) for name in ("train", "dev", "test")}
    assert sizes == {"train": 4, "dev": 2, "test": 2}
    assert ids(data / "train" / "wav.scp") == ["POD01", "YOU02"]
    first, second = read_utterances(data / "dev")
    assert (first.id, first.speaker, first.text) == (
        "POD03_S0000000", "POD03", "AS THEY'RE LEAVING CAN SHE",
    )  # fmt: skip
    assert (second.start, second.end, second.text) == (2.5, 4.25, "YES")
    spectrum = np.abs(np.fft.rfft(read_audio(second, RATE)))
    assert spectrum.argmax() / 1.75 == pytest.approx(400, abs=2)  # Hz: the segment, nothing else
    for name in sizes:
        found = validate(data / name, Checks(sample_rate=RATE))
        assert not [problem for problem in found if not problem.warning]


def test_a_smaller_subset(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in small pieces: a recording is longer than one of them."""
    preparation = load_preparation("gigaspeech")
    monkeypatch.setattr(preparation, "PIECE", 100)
    rows = list(preparation.rows(corpus, "XS"))
    assert [row.split for row in rows] == ["train"] * 3 + ["dev"] * 3 + ["test"] * 3
    cut = (corpus / "GigaSpeech.json").read_text()[:-400]
    (tmp_path / "GigaSpeech.json").write_text(cut)
    with pytest.raises(UserError, match=r"GigaSpeech\.json ends in a recording; fetch it again"):
        list(preparation.rows(tmp_path, "XS"))
    (tmp_path / "GigaSpeech.json").write_text('{"audios": [{"aid": "POD01"}]}')
    with pytest.raises(UserError, match="recording POD01 is not as GigaSpeech has it"):
        list(preparation.rows(tmp_path, "XS"))


def test_a_corpus_that_is_none(tmp_path: Path) -> None:
    data_sh = EGS / "gigaspeech" / "local" / "data.sh"
    done = run(data_sh, "--corpus", tmp_path, "--out", tmp_path / "data", expect=1)
    assert "has no GigaSpeech.json; give the folder that does" in done.stderr
