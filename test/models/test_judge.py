"""The judge: its losses by slow formulas, its independence of batches, its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import sing, tiny_config

from audiorl.errors import UserError
from audiorl.models.judge import MARGIN, SCALE, Judge, JudgeSettings
from audiorl.text.normalise import spoken

KEYS = {
    "task": "tts",
    "judge.encoder.output_size": 16,
    "judge.encoder.linear_units": 32,
    "judge.encoder.num_blocks": 2,
}
TEXTS = ["ba do ki", "Lu, me!", "no pa ri so tu"]
SPEAKERS = ["bob", "ann", "bob"]


def judge(seed: int = 0) -> Judge:
    settings = JudgeSettings.of(tiny_config(KEYS))
    torch.manual_seed(seed)
    return Judge.of(settings, TEXTS, SPEAKERS).eval()


def waves() -> list[torch.Tensor]:
    return [torch.from_numpy(sing(text, seed)) for seed, text in enumerate(TEXTS)]


def test_it_knows_the_characters_and_speakers_of_its_texts() -> None:
    made = judge()
    assert "".join(made.characters.symbols) == "".join(sorted(set("ba do ki lu me no pa ri so tu")))
    assert made.speakers == ["ann", "bob"]
    assert spoken(TEXTS[1]) == "lu me"


def test_nothing_depends_on_the_batch() -> None:
    """Also of a wave of 5 samples, shorter than any frame."""
    made, given = judge(), [*waves(), waves()[0][:5]]
    together, vectors = made.transcribe(given), made.speaker(given)
    assert together == [made.transcribe([wave])[0] for wave in given]
    for vector, wave in zip(vectors, given, strict=True):
        torch.testing.assert_close(vector, made.speaker([wave])[0], rtol=0, atol=1e-5)
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3


def test_vectors_have_unit_length() -> None:
    torch.testing.assert_close(judge().speaker(waves()).norm(dim=-1), torch.ones(3))


def test_ctc_is_per_character() -> None:
    """On two labels of each frame, one after the other."""
    made = judge()
    frames, lengths = made.encoder(*made._features(waves()))
    units = len(made.characters.symbols) + 1
    expected, characters = 0.0, 0
    for row, n, text in zip(frames, lengths, map(spoken, TEXTS), strict=True):
        first, second = made.head(row[:n]).split(units, dim=-1)
        logp = torch.stack([first, second], dim=1).flatten(0, 1).log_softmax(-1)
        labels = torch.tensor([made.characters.labels(text)])
        sizes = torch.tensor([2 * n]), torch.tensor([len(text)])
        expected += torch.nn.functional.ctc_loss(logp[:, None], labels, *sizes, reduction="sum")
        characters += len(text)
    torch.testing.assert_close(made.losses(waves(), TEXTS, SPEAKERS)[0], expected / characters)


def test_speakers_are_told_apart_by_a_margin_of_the_angle() -> None:
    made = judge()
    vectors = made.speaker(waves()).numpy()
    voices = made.voices.detach().numpy()
    voices = voices / np.linalg.norm(voices, axis=1, keepdims=True)
    expected = []
    for vector, speaker in zip(vectors, SPEAKERS, strict=True):
        own = made.speakers.index(speaker)
        angles = np.arccos(voices @ vector)
        angles[own] += MARGIN
        logits = SCALE * np.cos(angles)
        expected.append(np.log(np.exp(logits).sum()) - logits[own])
    found = made.losses(waves(), TEXTS, SPEAKERS)[1]
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_a_text_too_long_for_its_audio_adds_nothing() -> None:
    made, long = judge(), "ba do " * 200
    loss, _ = made.losses(waves(), [*TEXTS[:2], long], SPEAKERS)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in made.encoder.parameters())


def test_transcripts_are_the_best_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeats and blanks out, single spaces, no space at the ends."""
    made = judge()
    path = [0, 1, 3, 3, 0, 3, 1, 0, 1, 2, 0]  # characters: space, a, b, …
    logits = torch.nn.functional.one_hot(torch.tensor(path), 10)[:, None].float()
    monkeypatch.setattr(made, "_logits", lambda *_: (logits, torch.tensor([len(path)])))
    assert made.transcribe(waves()[:1]) == ["bb a"]


def test_saved_and_loaded(tmp_path: Path) -> None:
    made = judge()
    made.save(tmp_path / "model")
    loaded = Judge.load(tmp_path / "model")
    assert not loaded.training
    assert loaded.characters.symbols == made.characters.symbols
    assert loaded.speakers == made.speakers
    assert torch.equal(loaded.speaker(waves()), made.speaker(waves()))
    assert loaded.transcribe(waves()) == made.transcribe(waves())
    assert loaded.name_speakers(waves()) == made.name_speakers(waves())


@pytest.mark.parametrize("spoil", ["labels.json", "config.yaml", "model.safetensors"])
@pytest.mark.parametrize("how", ["missing", "spoilt"])
def test_a_broken_judge_is_named(spoil: str, how: str, tmp_path: Path) -> None:
    judge().save(tmp_path)
    path = tmp_path / spoil
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(b"{x: [" + path.read_bytes()[:99])
    with pytest.raises(UserError, match=str(tmp_path)) as raised:
        Judge.load(tmp_path)
    assert "\n" not in str(raised.value)
