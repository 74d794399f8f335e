"""Training of a codec: it learns, goes on to the bit, and says how good it is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from deaths import after, before, killed
from runs import Corpus, lines
from tiny import sentences, tiny_config, write_set
from tiny_codecs import SIZES, fresh_codec, native_codec, save_pretrained_codec

from audiorl.data.speech_tokens import read_tokens
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.infer.tokenise import read_waves, tokenise
from audiorl.models import load_weights
from audiorl.models.codec import codec_info, load_codec
from audiorl.models.codec.native import NativeCodec
from audiorl.runs import checkpoint
from audiorl.runs.checkpoint import Checkpoints
from audiorl.runs.reporter import Reporter
from audiorl.train import codec_sets, supervised
from audiorl.train.codec import FlowTraining, Tokens, describe, train_codec
from audiorl.train.codec_sets import References, sound_report, tokens_report, write_set_tokens

SHORT = {
    "codec.schedule.max_steps": 5,
    "codec.batch_seconds": 3.0,
    "codec.schedule.warmup_steps": 2,
    "codec.schedule.eval_steps": 2,
    "flow.schedule.max_steps": 4,
    "flow.schedule.warmup_steps": 2,
    "flow.schedule.eval_steps": 2,
    "flow.batch_seconds": 3.0,
}


def run(corpus: Path, out: Path, keys: dict[str, Any] | None = None) -> None:
    train_codec(tiny_config({**SIZES, **SHORT, **(keys or {})}), corpus, out)


def outcome(exp: Path) -> dict[str, Any]:
    return {
        "weights": (exp / "model" / "model.safetensors").read_bytes(),
        "metrics": lines(exp / "metrics.jsonl"),
        "checkpoints": sorted(str(p.relative_to(exp)) for p in (exp / "checkpoints").rglob("*")),
    }


@pytest.fixture(scope="session")
def undisturbed(corpus: Corpus, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "codec"
    run(corpus.dump, out)
    return out


def updated(kind: type, step: int):
    """After that update of the tokens or of the sound."""
    return after(
        supervised, "update", lambda task, *rest: isinstance(task, kind) and rest[2] == step
    )


DEATHS = {
    "before the first checkpoint": updated(Tokens, 1),
    "between checkpoints": updated(Tokens, 3),
    "in an evaluation": before(codec_sets, "codebook_use", lambda *_: True),
    "in a checkpoint": before(checkpoint.torch, "save", lambda value, _: value["step"] == 4),
    "after the tokens": after(Checkpoints, "save", lambda self, step, *_: step == 5),
    "before the sound": before(NativeCodec, "flow_loss", lambda *_: True),
    "between checkpoints of the sound": updated(FlowTraining, 3),
    "after the sound": after(
        Checkpoints, "save", lambda self, step, *_: step == 4 and self.folder.name == "sound"
    ),
    "after the report": after(Reporter, "log", lambda self, step, _: step == 10),
}


@pytest.mark.parametrize("death", DEATHS)
def test_it_goes_on_to_the_bit(death: str, corpus: Corpus, undisturbed, tmp_path) -> None:
    exp = tmp_path / "exp"
    killed(lambda: run(corpus.dump, exp), DEATHS[death])
    assert not (exp / "model" / "model.safetensors").exists()
    run(corpus.dump, exp)
    assert outcome(exp) == outcome(undisturbed)


def test_the_sound_goes_on_counting_where_the_tokens_end(undisturbed: Path) -> None:
    metrics = lines(undisturbed / "metrics.jsonl")
    assert [m["step"] for m in metrics if "loss_ctc" in m and "loss_echo" in m] == [5]
    assert [m["step"] for m in metrics if "loss_flow" in m] == [9]
    for key in ("eval/cer", "eval/codes_used", "eval/perplexity"):
        assert [m["step"] for m in metrics if key in m] == [2, 4, 5, 10]
    assert [m["step"] for m in metrics if "eval/mel_db" in m] == [7, 9, 10]


def test_the_sound_leaves_the_tokens_as_they_are(undisturbed: Path) -> None:
    """The recogniser's weights after the first training are those of the finished codec."""
    codec = load_codec(undisturbed / "model")
    before = codec.fingerprint()
    (best,) = (undisturbed / "checkpoints").glob("best_*.safetensors")
    load_weights(codec, best)
    assert codec.fingerprint() == before
    flow = load_codec(undisturbed / "model").flow.state_dict()
    assert any(not torch.equal(flow[name], w) for name, w in codec.flow.state_dict().items())


def test_a_complete_run_is_left_alone(corpus: Corpus, undisturbed: Path, caplog) -> None:
    before = outcome(undisturbed)
    run(corpus.dump, undisturbed)
    assert "is complete: nothing to do" in (undisturbed / "train.log").read_text()
    assert outcome(undisturbed) == before


@pytest.mark.parametrize("key", ["codec.fsq_dims", "flow.num_blocks"])
def test_another_config_is_refused(key: str, corpus: Corpus, undisturbed: Path) -> None:
    with pytest.raises(UserError, match=rf"started with another config \({key}: \d -> 4\)"):
        run(corpus.dump, undisturbed, {key: 4})


def test_it_learns_to_read_and_to_speak(tmp_path: Path) -> None:
    """The sung language: its tokens carry the words, and come back as their chords."""
    write_set(tmp_path / "dump" / "train", sentences(40, seed=1, longest=3))
    write_set(tmp_path / "dump" / "dev", sentences(8, seed=2, longest=3), seed=900)
    keys = {
        "codec.schedule.max_steps": 100,
        "codec.schedule.warmup_steps": 10,
        "codec.schedule.learning_rate": 1e-2,
        "codec.encoder.dropout_rate": 0.0,
        "codec.encoder.output_size": 32,
        "codec.batch_seconds": 8.0,
        "codec.schedule.eval_steps": 1000,
        "flow.schedule.eval_steps": 1000,
        "flow.schedule.warmup_steps": 10,
        "frontend.time_masks": 0,
        "frontend.freq_masks": 0,
        "frontend.n_mels": 20,
        "flow.schedule.max_steps": 200,
        "flow.schedule.learning_rate": 1e-2,
        "flow.hidden_size": 32,
        "flow.batch_seconds": 8.0,
        "flow.temperature": 1.0,
    }
    run(tmp_path / "dump", tmp_path / "exp", keys)
    metrics = lines(tmp_path / "exp" / "metrics.jsonl")
    *_, report = (m for m in metrics if "eval/mel_db" in m)
    assert report["eval/cer"] < 0.5
    assert report["eval/perplexity"] > 4
    # An untrained flow says noise; the songs have some, too, which no token can tell.
    codec = load_codec(tmp_path / "exp" / "model")
    dev = read_utterances(tmp_path / "dump" / "dev")
    codec.flow.output.weight.data.zero_()
    codec.flow.output.bias.data.zero_()
    assert report["eval/mel_db"] < 0.85 * sound_report(codec, dev, 8.0)["eval/mel_db"]


def test_the_report_is_that_of_slow_counting(corpus: Corpus) -> None:
    codec = native_codec()
    dev = read_utterances(corpus.dump / "dev")
    report = tokens_report(codec, dev, 2.0)
    tokens = [t for row in tokenise(codec, dev, 1.0).values() for t in row.tolist()]
    assert report["eval/codes_used"] == len(set(tokens)) / 27
    shares = torch.tensor([tokens.count(t) / len(tokens) for t in set(tokens)])
    assert report["eval/perplexity"] == pytest.approx((-shares * shares.log()).sum().exp().item())


def test_perfect_resynthesis_has_no_error(corpus: Corpus, monkeypatch) -> None:
    codec = native_codec()
    dev = read_utterances(corpus.dump / "dev")
    assert sound_report(codec, dev, 2.0)["eval/mel_db"] > 1
    recordings = {}

    def encode(waves):
        recordings["waves"] = waves
        return [torch.zeros(1)] * len(waves)

    monkeypatch.setattr(codec, "encode", encode)
    monkeypatch.setattr(codec, "decode", lambda *_: recordings["waves"])
    assert sound_report(codec, dev, 2.0)["eval/mel_db"] == 0
    monkeypatch.setattr(codec, "decode", lambda *_: [w * 10**0.1 for w in recordings["waves"]])
    assert sound_report(codec, dev, 2.0)["eval/mel_db"] == pytest.approx(2.0, abs=0.01)


def test_the_voice_is_another_recordings() -> None:
    utterances = [Utterance(f"{s}{i}", "", "", s) for s in "ab" for i in range(3)]
    utterances.append(Utterance("c0", "", "", "c"))
    references = References(utterances)
    drawn = [references.draw(utterances, 1, step) for step in range(30)]
    for chosen in drawn:
        for u, reference in zip(utterances, chosen, strict=True):
            assert reference.speaker == u.speaker
            assert (reference.id == u.id) == (u.id == "c0")
    assert drawn == [references.draw(utterances, 1, step) for step in range(30)]
    assert len({chosen[0].id for chosen in drawn}) == 2


@pytest.mark.parametrize("kind", ["mimi", "dac"])
def test_a_pretrained_codec_is_measured(kind: str, corpus: Corpus, tmp_path, caplog) -> None:
    save_pretrained_codec(tmp_path / "hub", kind)
    keys = {"codec.type": kind, "codec.pretrained": str(tmp_path / "hub")}
    with caplog.at_level(logging.INFO):
        run(corpus.dump, tmp_path / "exp", keys)
    (report,) = lines(tmp_path / "exp" / "metrics.jsonl")
    assert 0 < report["eval/codes_used"] <= 1 and report["eval/mel_db"] > 0
    assert "the first of its 3 codebooks is used" in (tmp_path / "exp" / "train.log").read_text()
    codec = load_codec(tmp_path / "exp" / "model")
    assert describe(codec).startswith(f"{kind} codec: ")


def test_texts_without_words_are_refused(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        write_set(tmp_path / "dump" / name, ["ba do"])
        text = tmp_path / "dump" / name / "text"
        text.write_text(text.read_text().replace("ba do", "?!"))
    with pytest.raises(UserError, match="the texts of train have no words"):
        run(tmp_path / "dump", tmp_path / "exp")


def test_tokens_of_a_set(corpus: Corpus, tmp_path: Path, capsys) -> None:
    codec = native_codec()
    dev, out = corpus.dump / "dev", tmp_path / "tokens" / "dev"
    write_set_tokens(codec, dev, out, 3.0)
    assert "3 utterances of" in capsys.readouterr().out
    tokens, info = read_tokens(out)
    assert info == codec_info(codec)
    for u in read_utterances(dev):
        wave = read_waves(codec, [u])
        assert tokens[u.id] == codec.encode(wave)[0].tolist()
    write_set_tokens(codec, dev, out, 3.0)
    assert "is complete: nothing to do" in capsys.readouterr().out
    write_set_tokens(native_codec(seed=1), dev, out, 3.0)
    assert read_tokens(out)[1] == codec_info(fresh_codec(seed=1)) != info
