"""egs/own: a list of files, named from where the user stands, becomes the sets of stage 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from recipe_runs import EGS, ids, run, settings
from tiny_whisper import save_whisper


def test_a_list_becomes_sets(tmp_path: Path) -> None:
    """Stages 3 to 9 run the commands of librispeech, whose test takes a Whisper through them."""
    rows = ["audio\ttext\tspeaker\n"]
    for number in range(24):
        samples = 0.1 * np.random.default_rng(number).standard_normal(4000)
        soundfile.write(tmp_path / f"{number}.wav", samples, 16000)
        rows.append(f"{number}.wav\tsentence {number}\tspeaker {number % 3}\n")
    (tmp_path / "my list.tsv").write_text("".join(rows))
    hub = save_whisper(tmp_path / "hub", multilingual=True, seconds=30, positions=448)
    english = {"model.pretrained": hub, "whisper.language": "zh", "whisper.task": "translate"}
    places = [f"--{name}={tmp_path / name}" for name in ("data", "dump", "exp")]
    options = ["--corpus", "my list.tsv", "--stop_stage", "2", "--nj", "1", *places]
    options += settings(english)
    said = run(EGS / "own" / "run.sh", *options, cwd=tmp_path).stdout
    assert "kept 24 of 24 utterances" in said and "3 speakers are too few to hold some out" in said
    sizes = [len(ids(tmp_path / "dump" / name / "utt2dur")) for name in ("train", "dev", "test")]
    assert sizes == [22, 1, 1]
