"""The RL loop: its prompts, the model it keeps, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from deaths import before, killed
from runs import Corpus, lines
from tiny import RATE, sentences, tiny_model, write_set

from audiorl.config import load_config
from audiorl.config.rewards import reward_options
from audiorl.config.schema import Config
from audiorl.data.audio import read_audio
from audiorl.data.rl_set import read_rl_set
from audiorl.data.utterance import write_utterances_jsonl
from audiorl.errors import UserError
from audiorl.models import read_weights
from audiorl.models.policy import Policy, load_policy
from audiorl.rl.prompts import Prompts
from audiorl.rl.supervised import Continued
from audiorl.rl.watch import HackingWatch
from audiorl.runs.experiment import Experiment
from audiorl.tasks.recognition import Recognition
from audiorl.tasks.task import Folders
from audiorl.text.align import Counts
from audiorl.train.rl import train_rl

SHORT = {"rl.max_steps": 4, "rl.eval_steps": 2, "rl.num_iterations": 1, "rl.beta": 0.0}


def weights(exp: Path) -> dict[str, torch.Tensor]:
    return read_weights(exp / "model" / "model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], part: str = "") -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one if name.startswith(part))


def test_grpo_and_its_control_see_the_same_prompts(corpus: Corpus, tmp_path, monkeypatch) -> None:
    corpus.rl(tmp_path / "grpo", SHORT)
    seen = []
    original = Continued.step

    def watching(self, step, utterances, rate):
        seen.append([u.id for u in utterances])
        return original(self, step, utterances, rate)

    monkeypatch.setattr(Continued, "step", watching)
    corpus.rl(tmp_path / "supervised", {**SHORT, "rl.algorithm": "supervised"})
    sampled = [line["id"] for line in lines(tmp_path / "grpo" / "completions.jsonl")]
    by_step = [sampled[i : i + 16 : 4] for i in range(0, len(sampled), 16)]
    assert by_step == seen
    prompts = Prompts(read_rl_set(corpus.data), corpus.rl_config(SHORT))
    assert seen == [[u.id for u in prompts.draw(step)] for step in range(4)]


def test_only_what_is_to_learn_learns(corpus: Corpus, tmp_path: Path) -> None:
    keys = {**SHORT, "rl.train": ["llm"], "rl.eval_steps": 100, "rl.learning_rate": 1e-3}
    corpus.rl(tmp_path, keys)
    start = weights(corpus.init)
    last = read_weights(sorted((tmp_path / "checkpoints").glob("step_*"))[-1] / "model.safetensors")
    buffers = {name for name, _ in load_policy(corpus.init / "model").named_buffers()}
    learnt = last.keys() - buffers
    assert learnt == {name for name in start if name.startswith("llm.")}
    assert not any(torch.equal(last[name], start[name]) for name in learnt)
    assert all(torch.equal(last[name], start[name]) for name in last.keys() - learnt)


def test_the_start_is_kept_where_nothing_is_better(corpus: Corpus, tmp_path, monkeypatch) -> None:
    from audiorl.tasks import recognition as rl_recognition

    errors = iter([1, 3, 2])
    monkeypatch.setattr(
        rl_recognition, "evaluate", lambda *_: Counts(hits=5, substitutions=next(errors))
    )
    corpus.rl(tmp_path, SHORT)
    assert equal(weights(tmp_path), weights(corpus.init))


def test_the_best_on_dev_is_kept(corpus: Corpus, tmp_path, monkeypatch) -> None:
    from audiorl.tasks import recognition as rl_recognition

    errors = iter([3, 1, 2])
    monkeypatch.setattr(
        rl_recognition, "evaluate", lambda *_: Counts(hits=5, substitutions=next(errors))
    )
    corpus.rl(tmp_path, {**SHORT, "rl.save_steps": 2})
    at_two = read_weights(tmp_path / "checkpoints" / "step_00000002" / "model.safetensors")
    assert equal(weights(tmp_path), weights(corpus.init) | at_two)


class Watched(Recognition):
    """Recognition with the watch of synthesis: the reward's error falls, the judge's rises."""

    ERRORS = (0.50, 0.45, 0.47, 0.40, 0.30, 0.20, 0.10)
    JUDGED = (0.60, 0.50, 0.40, 0.50, 0.60, 0.70, 0.80)

    def __init__(self, config: Config, folders: Folders) -> None:
        super().__init__(config, folders)
        self.watch = HackingWatch(config.rl.early_stop, config.rl.early_stop_window)

    def evaluate(self, model, dev, step: int, reporter) -> float:
        errors = round(10 * self.JUDGED[step])
        judged = [Counts(hits=10 - errors, substitutions=errors)] * 20
        self.watch.look(step, 1 - self.ERRORS[step], judged)
        reporter.log(step, {"eval/wer": self.ERRORS[step]})
        return self.ERRORS[step]

    @property
    def state(self) -> list:
        return self.watch.history

    def restore(self, state: list) -> None:
        self.watch.history = [tuple(seen) for seen in state]

    @property
    def should_stop(self) -> bool:
        return self.watch.should_stop


def watched(corpus: Corpus, out: Path, action: str, average: int) -> None:
    keys = {"rl.max_steps": 6, "rl.eval_steps": 1, "rl.early_stop": action, "rl.average": average}
    config = corpus.rl_config(keys)
    train_rl(Watched(config, Folders(corpus.dump)), corpus.init, corpus.data, out)


@pytest.fixture(scope="module")
def all_steps(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The weights of each step."""
    out = tmp_path_factory.mktemp("all steps")
    watched(corpus, out, "flag", 7)
    return [read_weights(path) for path in sorted((out / "checkpoints").glob("best_*"))]


@pytest.mark.parametrize(
    ("action", "average", "kept"),
    [("stop", 1, [1]), ("stop", 2, [0, 1]), ("flag", 1, [6]), ("flag", 2, [5, 6])],
)
@pytest.mark.parametrize("died", [False, True])
def test_of_a_hacked_run_the_model_is_from_before(
    action: str, average: int, kept: list[int], died: bool, corpus, all_steps, tmp_path, monkeypatch
) -> None:
    """It is hacked from step 2 to 5, where the reward model hears less and less wrong."""
    # The config.yaml of recognition lacks rl.early_stop, which a resumed run would be refused for.
    monkeypatch.setattr(Experiment, "_check_config", lambda *_: None)
    monkeypatch.setattr(Experiment, "_former_steps", 0, raising=False)
    if died:
        death = before(Policy, "save", lambda *_: True)
        killed(lambda: watched(corpus, tmp_path, action, average), death)
    watched(corpus, tmp_path, action, average)
    start = weights(corpus.init)
    for name, tensor in weights(tmp_path).items():
        mean = sum(all_steps[step].get(name, start[name]) for step in kept) / len(kept)
        torch.testing.assert_close(tensor, mean.to(tensor.dtype), rtol=1e-6, atol=1e-7)


def test_the_model_is_that_of_the_warm_start(corpus: Corpus, tmp_path: Path) -> None:
    """Sections of RL are those of the run, sections of the model those of the warm start."""
    corpus.rl(
        tmp_path,
        {**SHORT, "rl.learning_rate": 0.003, "llm.hidden_size": 64, "data.sample_rate": 8000},
    )
    model = load_policy(tmp_path / "model")
    assert load_config(tmp_path / "config.yaml").rl.learning_rate == 0.003
    assert model.settings.llm.hidden_size == 32
    assert model.settings.sample_rate == RATE


def test_too_few_utterances(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rl\.jsonl has 6 utterances, fewer than rl\.num_prompts"):
        corpus.rl(tmp_path, {"rl.num_prompts": 7})


def test_no_warm_start(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no model to start from; run stage 3"):
        train_rl(corpus.task(), tmp_path / "none", corpus.data, tmp_path / "exp")


def test_another_warm_start_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    """Trained again, the warm start is another one: the old RL run does not belong to it."""
    init = tmp_path / "sft"
    tiny_model(spread=3.0).save(init / "model")
    arguments = (corpus.data, tmp_path / "exp")
    train_rl(corpus.task(SHORT), init, *arguments)
    tiny_model(seed=1, spread=3.0).save(init / "model")
    with pytest.raises(UserError, match=r"begun with other inputs .*\(init changed\)"):
        train_rl(corpus.task(SHORT), init, *arguments)


def test_rewards_that_cannot_be_given_stop_the_run(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step 1: 100% of the samples could not be rewarded"):
        from audiorl.rewards.core import counting

        original = counting.errors
        counting.errors = None
        try:
            corpus.rl(tmp_path, SHORT)
        finally:
            counting.errors = original
    log = (tmp_path / "train.log").read_text()
    assert "reward wer failed on 16 of 16 samples" in log
    assert "TypeError" in log


def test_a_users_reward_file_belongs_to_the_run(corpus: Corpus, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "def reward(samples):\n    return [float(len(s.text)) for s in samples]\n"
    mine = tmp_path / "local" / "mine.py"
    mine.parent.mkdir()
    mine.write_text(text)
    rewards = [reward_options("file", reward_file="local/mine.py")]
    keys = {**SHORT, "rl.rewards": rewards}
    corpus.rl(tmp_path / "exp", keys)
    assert (tmp_path / "exp" / "local" / "mine.py").read_text() == text
    for line in lines(tmp_path / "exp" / "completions.jsonl"):
        assert line["reward"] == line["rewards"]["file"] == len(line["completion"])
    mine.write_text(text + "# edited\n")
    with pytest.raises(UserError, match=r"begun with other inputs .* \(local/mine.py changed\)"):
        corpus.rl(tmp_path / "exp", keys)
    mine.unlink()
    with pytest.raises(UserError, match=r"local/mine.py does not exist; fix reward_file"):
        corpus.rl(tmp_path / "other", keys)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_reward_that_is_one_file_of_the_user(
    corpus: Corpus, tmp_path: Path, plugins: Callable, workers: int
) -> None:
    text = """
from audiorl.config.rewards import RewardOptions as Options
from audiorl.rewards import Reward

def build(options, context):
    return Reward(lambda samples: [float(len(s.text)) for s in samples])
"""
    path = plugins("letters", text)
    keys = {**SHORT, "rl.rewards": [reward_options("letters")], "rl.reward_workers": workers}
    corpus.rl(tmp_path / "exp", keys)
    assert (tmp_path / "exp" / "rewards" / "letters.py").read_text() == text
    for line in lines(tmp_path / "exp" / "completions.jsonl"):
        assert line["reward"] == line["rewards"]["letters"] == len(line["completion"])
    path.write_text(text + "# edited\n")
    with pytest.raises(UserError, match=r"begun with other inputs .* \(rewards/letters.py changed"):
        corpus.rl(tmp_path / "exp", keys)


def test_all_recommended_rewards_together(corpus: Corpus, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    rewards = load_config(root / "conf" / "rewards" / "recommended.yaml").rl.rewards
    corpus.rl(tmp_path, {**SHORT, "rl.rewards": rewards})
    assert "reward keywords: applies to 0 of 6 utterances" in (tmp_path / "train.log").read_text()
    names = ("wer", "hallucination", "keywords", "language")
    for line in lines(tmp_path / "completions.jsonl"):
        wer, hallucination, keywords, language = (line["rewards"][name] for name in names)
        assert keywords is None  # no utterance has any
        total = 1.5 * language if language else wer + 0.5 * hallucination
        assert line["reward"] == pytest.approx(total, abs=2e-4)
    for line in lines(tmp_path / "metrics.jsonl"):
        if "reward" in line:
            assert line["frac_unscorable"] == 0 and line["rewards/keywords/mean"] is None
            assert -1 <= line["rewards/hallucination/mean"] <= 0


def test_audio_that_is_no_number_is_named(corpus: Corpus, tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    utterances = write_set(tmp_path / "dump" / "rl", sentences(4, seed=3))
    write_utterances_jsonl(tmp_path / "rl.jsonl", utterances)
    victim = utterances[2]
    wave = read_audio(victim, RATE).copy()
    wave[:50] = np.inf
    soundfile.write(victim.audio, wave, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=rf"^{victim.id}: .*no numbers"):
        train_rl(corpus.task(SHORT), corpus.init, tmp_path / "rl.jsonl", tmp_path / "exp")


@pytest.mark.parametrize("algorithm", ["grpo", "supervised"])
def test_a_diverging_run_stops_and_keeps_its_best(corpus, tmp_path, algorithm: str) -> None:
    keys = {
        **SHORT,
        "rl.learning_rate": 1e30,
        "rl.algorithm": algorithm,
        "rl.eval_steps": 100,
        "rl.warmup_steps": 0,
    }
    with pytest.raises(
        UserError, match=r"the gradient is (nan|inf) in the update on 4 utterances|is no number"
    ):
        corpus.rl(tmp_path, keys)
    assert (tmp_path / "checkpoints" / "best_00000000.safetensors").exists()


def test_metrics_of_each_step(corpus: Corpus, tmp_path: Path) -> None:
    corpus.rl(tmp_path, {**SHORT, "rl.warmup_steps": 2, "rl.learning_rate": 1e-3})
    metrics = [m for m in lines(tmp_path / "metrics.jsonl") if "loss" in m]
    assert [m["step"] for m in metrics] == [1, 2, 3, 4]
    assert [m["learning_rate"] for m in metrics] == [5e-4, 1e-3, 1e-3, 1e-3]
    assert all(m["sampling/sampling_logp_difference/mean"] < 1e-5 for m in metrics)
    completions = lines(tmp_path / "completions.jsonl")
    assert [line["step"] for line in completions] == [
        step for step in range(1, 5) for _ in range(16)
    ]
