"""Prompts and instruments in stage 7: voices held against their prompts, by several judges."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_systems import RATE
from fake_voices import make_voices
from test_judging import Ear, read, vector

from audiorl.bin import check_config
from audiorl.config import Config
from audiorl.data.tables import read_table
from audiorl.errors import UserError
from audiorl.infer import instruments, judging
from audiorl.infer.judging import judge_systems
from audiorl.report.tables import as_text, sound_tables
from audiorl.score.asr import score_systems
from audiorl.score.metrics import measures_of
from audiorl.score.results import write_system
from audiorl.score.tts import read_judged

torch.set_num_threads(1)
cosine = torch.nn.functional.cosine_similarity


class Loudness(torch.nn.Module):
    """A vector, or an opinion, of waves [1, S]."""

    def __init__(self, voices: bool) -> None:
        super().__init__()
        self.voices = voices

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        angle = 40 * waves.square().mean()
        return torch.stack([angle.cos(), angle.sin()])[None] if self.voices else 5 * angle


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    for name, voices in (("ecapa", True), ("utmos", False)):
        torch.jit.script(Loudness(voices)).save(folder / f"{name}.jit")
    return folder


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Config]:
    """A system and the recordings, each utterance with another one of its speaker as prompt."""
    monkeypatch.setattr(judging, "load_judge", lambda path, device, config: Ear())
    monkeypatch.setattr(instruments, "load_judge", lambda path, device, config: Ear())
    config = make_voices(tmp_path, {"base": 0.4}, utterances=6, judged=False)
    config.data.test = ["test"]
    ids = sorted(read_table(tmp_path / "dump/test/text"))
    prompts = {n: next(o for o in ids if o[:3] == n[:3] and o != n) for n in ids}
    lines = "".join(f"{name} {prompt}\n" for name, prompt in prompts.items())
    (tmp_path / "dump/test/utt2prompt").write_text(lines)
    return tmp_path, config


def judge(recipe: tuple[Path, Config]) -> None:
    root, config = recipe
    exps = [root / "exp" / name for name in ("base", "natural")]
    judge_systems(root / "exp/judge", exps, root / "dump", config, "cpu")


def expected(root: Path, uid: str) -> tuple[float, float]:
    """The cosine to the prompt, and the mean of those to prompts of others."""
    waves = read_table(root / "dump/test/wav.scp")
    prompts = read_table(root / "dump/test/utt2prompt")
    wave = read(read_table(root / "exp/base/decode_greedy/test/wav.scp")[uid])
    likeness = {p: float(cosine(vector(wave), vector(read(waves[p])), dim=0)) for p in waves}
    others = [likeness[prompts[u]] for u in waves if u[:3] != uid[:3]]
    return likeness[prompts[uid]], float(np.mean(others))


def test_a_voice_is_held_against_its_prompt_and_the_others(recipe) -> None:
    judge(recipe)
    root = recipe[0]
    for uid, one in read_judged(root / "exp/base/decode_greedy/test").items():
        own, others = expected(root, uid)
        assert one.similarity == pytest.approx(own, abs=1e-5)
        assert one.margin == pytest.approx(own - others, abs=1e-5)


def test_instruments_measure_beside_the_judge(recipe, scripts: Path) -> None:
    """Their numbers have intervals, stand in tables, and are made once."""
    root, config = recipe
    whisper = root / "whisper"
    whisper.mkdir()
    (whisper / "model.safetensors").write_text("of a Whisper")
    names = [f"whisper={whisper}", f"xvector={scripts}/ecapa.jit", f"utmos={scripts}/utmos.jit"]
    config.score.instruments = names
    judge(recipe)
    folder = root / "exp/base/decode_greedy/test"
    found = read_judged(folder, names)
    for uid, one in found.items():
        own, others = expected(root, uid)
        assert one.measured["xvector_similarity"][0] == pytest.approx(own, abs=1e-4)
        assert one.measured["xvector_margin"][0] == pytest.approx(own - others, abs=1e-4)
        errors, words = one.measured["whisper_wer"]
        assert words == len(read_table(root / "dump/test/text")[uid].split()) and errors
        assert one.measured["utmos"][1] == 1
    exps = [root / "exp" / name for name in ("base", "natural")]
    systems = score_systems(exps, root / "dump", config, measures_of("tts"))
    sound = systems[0].sets["test"].sound
    values = [one.measured["utmos"][0] for one in found.values()]
    assert sound["utmos"].value == pytest.approx(np.mean(values), rel=1e-4)
    low, high = sound["margin"].interval
    assert low < sound["margin"].value < high
    table, _ = sound_tables(systems)
    assert {"UTMOS", "x-vector %", "own - other voices %"} <= set(table.header)
    assert "DNSMOS OVRL" not in as_text(table)
    write_system(systems[0], "word", systems[0])
    made = (folder / "instrument_utmos.json").stat().st_mtime_ns
    judge(recipe)
    assert (folder / "instrument_utmos.json").stat().st_mtime_ns == made
    (folder / "instrument_utmos.json").unlink()
    with pytest.raises(UserError, match=r"instrument_utmos.json .*let the judge hear the set"):
        read_judged(folder, names)


def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    (tmp_path / "c.yaml").write_text(f"task: tts\n{text}")
    monkeypatch.setattr(sys, "argv", ["check_config", str(tmp_path / "c.yaml")])
    with pytest.raises(UserError) as raised:
        check_config.main()
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("score: {instruments: [ears]}", "there is no instrument ears; choose among whisper, res"),
        ("score: {instruments: [whisper]}", "whisper: name the folder of a Whisper, or of another"),
        ("score: {instruments: [utmos=no.jit]}", "no.jit: there is no such file; name a TorchScr"),
        ("score: {instruments: [utmos=c.yaml, utmos=c.yaml]}", "names utmos twice; keep one"),
        (
            "score: {instruments: [resemblyzer]}\n"
            "rl: {rewards: [{name: speaker_similarity, by: resemblyzer}]}",
            "resemblyzer rewards, and would judge its own work; name another",
        ),
        ("rl: {rewards: [{name: speaker_similarity, by: utmos=x}]}", "name codec, resemblyzer or"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, monkeypatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in problems(tmp_path, monkeypatch, text)


def test_a_missing_package_is_told_with_its_command(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("audiorl.config.instruments.find_spec", lambda name: None)
    said = problems(tmp_path, monkeypatch, "score: {instruments: [resemblyzer]}")
    assert "needs the package resemblyzer, which is missing; run: pip install resemblyzer" in said


def test_dnsmos_hears_noise(shared_data) -> None:
    """As published with the model: clean speech is better than the same in noise."""
    pytest.importorskip("onnxruntime")
    tool = instruments.DNSMOS(str(shared_data("models/dnsmos")))
    (path,) = sorted(shared_data("LJSpeech-1.1/wavs").glob("*.wav"))[:1]
    from audiorl.data.audio import read_audio
    from audiorl.data.utterance import Utterance

    u = Utterance("u", str(path), "", "s")
    clean = read_audio(u, RATE)
    noise = np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
    found = [tool(u, wave)["dnsmos_ovrl"][0] for wave in (clean, clean + 0.05 * noise)]
    assert 2.5 < found[0] < 4.5 and found[0] > found[1] + 0.5


def test_resemblyzer_tells_speakers_apart(shared_data) -> None:
    pytest.importorskip("resemblyzer")
    from audiorl.data.audio import read_audio
    from audiorl.data.utterance import Utterance

    root = shared_data("LibriSpeech/train-clean-100")
    files = [sorted(reader.rglob("*.flac"))[:2] for reader in sorted(root.iterdir())[:2]]
    tool = instruments.load_voice_instrument("resemblyzer")
    said = [read_audio(Utterance("u", str(f), "", "s"), RATE) for two in files for f in two]
    a, b, c, _ = map(tool.vector, said)
    assert a @ b > a @ c + 0.1
