"""The supervised loop: it learns, chooses, and says what is wrong with its inputs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pretrained_llm import save_pretrained_llm
from runs import Corpus, lines
from tiny import RATE, sentences, tiny_config, tiny_model, write_set

from audiorl.data.loading import prefetch
from audiorl.data.utterance import read_utterances
from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer.transcribe import transcribe
from audiorl.models import read_weights
from audiorl.models.policy import load_policy
from audiorl.runs.optimizer import SUPERVISED_NORM, Optimizers
from audiorl.runs.reporter import Reporter
from audiorl.runtime.batching import some
from audiorl.tasks import make_task, recognition
from audiorl.tasks.recognition import RecognitionWarmStart, evaluate
from audiorl.tasks.task import Folders
from audiorl.train.supervised import update

LEARNING = {
    "sft.schedule.max_steps": 150,
    "sft.batch_seconds": 8.0,
    "sft.schedule.gradient_accumulation_steps": 1,
    "sft.schedule.learning_rate": 1e-2,
    "sft.schedule.muon_learning_rate": 0.0,
    "sft.schedule.warmup_steps": 10,
    "sft.ctc_steps": 0,
    "sft.schedule.eval_steps": 75,
    "sft.schedule.save_steps": 1000,
    "sft.schedule.average": 1,
    "sft.token_noise": 0.3,
    "llm.dropout": 0.0,
    "encoder.dropout_rate": 0.0,
    "encoder.output_size": 32,
    "frontend.time_masks": 0,
    "frontend.freq_masks": 0,
}


def copy_of(corpus: Corpus, root: Path) -> Path:
    """The sets of a corpus to be spoilt; their audio too."""
    for name in ("train", "dev"):
        write_set(root / name, [u.text for u in read_utterances(corpus.dump / name)])
    return root


def run(dump: Path, out: Path, keys: dict | None = None) -> None:
    from audiorl.train.sft import train_sft

    config = tiny_config({**LEARNING, **(keys or {})})
    train_sft(make_task(config, Folders(dump)), out)


def test_it_learns_to_hear(tmp_path: Path) -> None:
    """Words of the sung language, from scratch; dev holds other sentences."""
    write_set(tmp_path / "dump" / "train", sentences(40, seed=1, longest=3))
    write_set(tmp_path / "dump" / "dev", sentences(6, seed=2, longest=3), seed=900)
    run(tmp_path / "dump", tmp_path / "exp")
    metrics = lines(tmp_path / "exp" / "metrics.jsonl")
    losses = [m["loss_lm"] for m in metrics if "loss" in m]
    assert losses[-1] < 0.5 * losses[0]
    wers = [m["eval/wer"] for m in metrics if "eval/wer" in m]
    assert min(wers) < 0.75
    model = load_policy(tmp_path / "exp" / "model")
    dev = read_utterances(tmp_path / "dump" / "dev")
    reporter = Reporter(tmp_path / "other", -1)
    assert evaluate(PolicyEngine(model), dev, tiny_config(), 0, reporter).rate == pytest.approx(
        min(wers)
    )


def test_the_model_is_the_mean_of_the_best(corpus: Corpus, tmp_path: Path) -> None:
    keys = {"sft.schedule.max_steps": 8, "sft.schedule.eval_steps": 2, "sft.schedule.average": 2}
    run(corpus.dump, tmp_path, keys)
    kept = sorted((tmp_path / "checkpoints").glob("best_*.safetensors"))
    assert len(kept) == 2
    wers = {m["step"]: m["eval/wer"] for m in lines(tmp_path / "metrics.jsonl") if "eval/wer" in m}
    ranked = sorted(wers, key=lambda step: (wers[step], step))[:2]
    assert [int(path.stem[5:]) for path in kept] == sorted(ranked)
    one, two = (read_weights(path) for path in kept)
    for name, tensor in read_weights(tmp_path / "model" / "model.safetensors").items():
        mean = (one[name].double() + two[name].double()) / 2
        torch.testing.assert_close(tensor, mean.to(tensor.dtype), rtol=1e-6, atol=1e-7)


def test_a_pretrained_llm_is_the_start(corpus: Corpus, tmp_path: Path) -> None:
    save_pretrained_llm(tmp_path / "hub", "qwen2")
    keys = {"tokenizer.type": "pretrained", "llm.pretrained": str(tmp_path / "hub")}
    run(corpus.dump, tmp_path / "exp", {**keys, "sft.schedule.max_steps": 2})
    model = load_policy(tmp_path / "exp" / "model")
    assert model.llm.config.model_type == "qwen2"
    found = transcribe(PolicyEngine(model), read_utterances(corpus.dump / "dev"), max_length=4)
    assert len(found) == 3


def test_accumulation_is_the_weighted_mean(corpus: Corpus) -> None:
    """Batches weighted by their share of the utterances."""
    utterances = read_utterances(corpus.dump / "train")
    config = tiny_config(LEARNING)
    batches = prefetch(iter([utterances[:5], utterances[5:7], []]), config.data.sample_rate)
    loaded = [next(batches), next(batches)]
    gradients = []
    for chosen in ([loaded[0]], [loaded[1]], loaded):
        model = tiny_model(LEARNING)
        optimizer = Optimizers([model], 1e-9, 0.0)
        task = RecognitionWarmStart(config, model, [], [])
        update(task, optimizer, chosen, 0, 1.0)
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    norm = torch.cat([g.flatten() for g in gradients[2].values()]).norm()
    assert norm < SUPERVISED_NORM  # not clipped: gradients may be compared
    for name, both in gradients[2].items():
        mean = (5 * gradients[0][name] + 2 * gradients[1][name]) / 7
        torch.testing.assert_close(both, mean, rtol=1e-4, atol=1e-6)


def test_prefetching_keeps_the_order_and_the_audio(corpus: Corpus) -> None:
    utterances = read_utterances(corpus.dump / "train")
    batches = [utterances[i : i + 3] for i in range(0, 12, 3)]
    loaded = list(prefetch(iter([*batches, []]), tiny_config().data.sample_rate))
    assert [u for u, _ in loaded] == batches
    for chosen, waves in loaded:
        for u, wave in zip(chosen, waves, strict=True):
            assert len(wave) == round(u.duration * RATE)


def test_a_run_that_goes_on_draws_the_same_speeds(corpus: Corpus) -> None:
    utterances = read_utterances(corpus.dump / "train")
    config = tiny_config({**LEARNING, "sft.speeds": [0.9, 1.1]})
    task = RecognitionWarmStart(config, tiny_model(LEARNING), utterances, [])
    whole, later = (task.batches(n, lambda number: True) for n in (0, 2))
    batches = [next(whole) for _ in range(4)]
    for (chosen, waves), (again, others) in zip(batches[2:], later, strict=False):
        assert chosen == again and all(map(torch.equal, waves, others))
    lengths = {
        round(u.duration * RATE / len(w), 1) for b in batches for u, w in zip(*b, strict=True)
    }
    assert lengths == {0.9, 1.1}


def test_some_are_always_the_same() -> None:
    everyone = list(range(100))
    assert some(everyone, 0) == some(everyone, 100) == some(everyone, 200) == everyone
    chosen = some(everyone, 10)
    assert chosen == some(everyone, 10) == sorted(set(chosen))
    assert len(chosen) == 10
    assert max(chosen) > 50


def test_evaluation_is_the_summed_error_rate(corpus: Corpus, tmp_path: Path, monkeypatch) -> None:
    model = tiny_model()
    dev = read_utterances(corpus.dump / "dev")
    heard = iter(["ba ba", "", "ki"])
    monkeypatch.setattr(model.tokenizer, "decode", lambda ids: next(heard))
    reporter = Reporter(tmp_path, -1)
    counts = evaluate(PolicyEngine(model), dev, tiny_config(), 5, reporter)
    assert counts.units == sum(len(u.text.split()) for u in dev)
    line = lines(tmp_path / "metrics.jsonl")[0]
    assert line["step"] == 5
    assert line["eval/wer"] == pytest.approx(counts.errors / counts.units, rel=1e-5)


def test_evaluation_hears_long_recordings_in_windows(tmp_path: Path, monkeypatch) -> None:
    """As decoding does: a dev set may have some that the model cannot hear in one piece."""
    write_set(tmp_path / "dump", ["ba ki ba ki ba ki ba ki", "ki"])
    dev, model = read_utterances(tmp_path / "dump"), tiny_model()
    assert dev[0].duration > 1 > dev[1].duration
    pieces = []

    def hear(engine, utterances, **settings):
        pieces.extend(utterances)
        return transcribe(engine, utterances, **settings)

    monkeypatch.setattr(recognition, "transcribe", hear)
    evaluate(
        PolicyEngine(model),
        dev,
        tiny_config({"decode.window_seconds": 1.0}),
        0,
        Reporter(tmp_path, -1),
    )
    assert len(pieces) > 2 and max(piece.duration for piece in pieces) <= 1
    assert sum(piece.duration for piece in pieces) == pytest.approx(sum(u.duration for u in dev))


def test_audio_that_is_no_number_is_named(corpus: Corpus, tmp_path: Path) -> None:
    dump = copy_of(corpus, tmp_path / "dump")
    victim = read_utterances(dump / "train")[4]
    wave, _ = soundfile.read(victim.audio, dtype="float32")
    wave[100] = np.nan
    soundfile.write(victim.audio, wave, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=rf"^{victim.id}: .*no numbers") as raised:
        run(dump, tmp_path / "exp")
    assert "\n" not in str(raised.value)


def test_missing_audio_is_named(corpus: Corpus, tmp_path: Path) -> None:
    dump = copy_of(corpus, tmp_path / "dump")
    victim = read_utterances(dump / "dev")[0]
    Path(victim.audio).unlink()
    with pytest.raises(UserError, match=rf"^{victim.id}: .* does not exist"):
        run(dump, tmp_path / "exp", {"sft.schedule.max_steps": 2})


def test_a_diverging_run_stops_and_names_its_utterances(corpus: Corpus, tmp_path: Path) -> None:
    keys = {
        "sft.schedule.learning_rate": 1e30,
        "sft.schedule.warmup_steps": 0,
        "sft.schedule.max_steps": 20,
    }
    with pytest.raises(UserError, match=r"the gradient is (nan|inf) in the update on") as raised:
        run(corpus.dump, tmp_path, keys)
    assert re.search(r"s\d-train\d{3}", str(raised.value))
    assert not (tmp_path / "model" / "model.safetensors").exists()


def test_a_missing_set_is_named(corpus: Corpus, tmp_path: Path) -> None:
    shutil.copytree(corpus.dump / "train", tmp_path / "dump" / "train")
    with pytest.raises(UserError, match=r"dump/dev does not exist; run stage 2, which writes it"):
        run(tmp_path / "dump", tmp_path / "exp")


def test_other_data_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    dump = copy_of(corpus, tmp_path / "dump")
    run(dump, tmp_path / "exp", {"sft.schedule.max_steps": 2})
    text = dump / "train" / "text"
    text.write_text(text.read_text().replace("ba", "do"))
    with pytest.raises(UserError, match=r"train changed"):
        run(dump, tmp_path / "exp", {"sft.schedule.max_steps": 2})


def test_a_full_disk_and_on(corpus: Corpus, tmp_path: Path) -> None:
    """One sentence when it is full; with room again the run goes on to the same end."""
    keys = {"sft.schedule.max_steps": 6, "sft.schedule.save_steps": 1, "sft.schedule.eval_steps": 3}
    run(corpus.dump, tmp_path / "plain", keys)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no tmpfs can be mounted here: mounting needs root")
    try:
        with pytest.raises(UserError, match="cannot be written") as raised:
            run(corpus.dump, disk / "exp", keys)
        assert "\n" not in str(raised.value)
        assert list((disk / "exp" / "checkpoints").glob("step_*"))
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        run(corpus.dump, disk / "exp", keys)
        expected, actual = (
            e / "model" / "model.safetensors" for e in (tmp_path / "plain", disk / "exp")
        )
        assert actual.read_bytes() == expected.read_bytes()
        assert lines(disk / "exp" / "metrics.jsonl") == lines(tmp_path / "plain" / "metrics.jsonl")
    finally:
        for handler in __import__("logging").getLogger().handlers:
            handler.close()
        subprocess.run(["umount", "-l", disk], check=True)
