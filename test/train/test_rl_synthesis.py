"""The RL loop of synthesis on tiny models: gradients, watch, resumption, refusals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from deaths import after, before, killed
from runs import lines, outcome
from tiny import WORDS, tiny_config, tiny_model, write_set
from tiny_codecs import SIZES, native_codec, save_pretrained_codec
from tiny_speaker import SPEECH
from tiny_speech import tiny_judge, tiny_speech_config, tiny_speech_lm
from torch import Tensor

from audiorl.config import dump_config
from audiorl.config.rewards import reward_options
from audiorl.data.speech_tokens import write_tokens
from audiorl.data.utterance import Utterance, write_utterances_jsonl
from audiorl.errors import UserError
from audiorl.infer.hearing import RecogniserJudge
from audiorl.models.codec import CodecSettings, PretrainedCodec, codec_info
from audiorl.models.policy import Policy
from audiorl.models.token_recogniser import RecogniserFacts, RewardModelSettings, TokenRecogniser
from audiorl.runs.optimizer import Optimizers
from audiorl.runs.reporter import Reporter
from audiorl.tasks import synthesis as rl_synthesis
from audiorl.tasks.synthesis import Synthesis
from audiorl.tasks.task import Folders
from audiorl.text.align import Counts
from audiorl.train import rl as train_rl_module
from audiorl.train.rl import train_rl

KEYS = {
    **SPEECH,
    "rl.max_steps": 4,
    "rl.num_prompts": 4,
    "rl.learning_rate": 1e-2,
    "rl.eval_steps": 2,
    "rl.save_steps": 2,
    "rl.rewards": [reward_options("likelihood")],
    "rl.max_completion_length": 20,
    "rl.early_stop": "never",
    "decode.max_completion_length": 20,
    "diffro.weight": 0.3,
}


class World:
    """A folder with dump/{train,dev}, an RL set, and untrained models of all that RL needs."""

    def __init__(self, root: Path) -> None:
        self.dump, self.exp, self.data = root / "dump", root / "exp", root / "rl.jsonl"
        write_set(self.dump / "train", WORDS)
        write_set(self.dump / "dev", WORDS[:4])
        prompts = write_set(self.dump / "rl", WORDS[2:8])
        write_utterances_jsonl(self.data, prompts)
        codec = native_codec()
        codec.save(self.exp / "codec" / "model")
        self.info = codec_info(codec)
        self.save_policy(self.info)
        self.save_reward_model("reward_model", self.info)
        tiny_judge().save(self.exp / "judge" / "model")
        tokens = {u.id: [i, 2 * i, 3 * i, 5] for i, u in enumerate(prompts)}
        write_tokens(self.exp / "tokens", tokens, self.info)
        self.folders = Folders(
            self.dump,
            self.exp / "codec",
            self.exp / "reward_model",
            self.exp / "judge",
            self.exp / "tokens",
        )

    def save_policy(self, info: dict) -> None:
        tiny_speech_lm(spread=2.0, codec=info).save(self.exp / "sft" / "model")

    def save_reward_model(self, name: str, info: dict, characters: str = "") -> None:
        torch.manual_seed(1)
        known = characters or "".join(sorted(set(" ".join(WORDS))))
        model = TokenRecogniser(
            RewardModelSettings.of(tiny_speech_config(SPEECH)), RecogniserFacts(info, known)
        ).eval()
        with torch.no_grad():
            model.table.weight.mul_(3.0)
        model.save(self.exp / name / "model")

    def task(self, keys: dict[str, Any] | None = None, **folders: Path | None) -> Synthesis:
        config = tiny_speech_config({**KEYS, **(keys or {})})
        return Synthesis(config, replace(self.folders, **folders))

    def run(self, out: Path, keys: dict[str, Any] | None = None, **folders: Path | None) -> None:
        task = self.task(keys, **folders)
        train_rl(task, self.exp / "sft", self.data, out)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def spoilt(tmp_path: Path) -> World:
    """A world of its own."""
    return World(tmp_path)


def first_gradient(world: World, out: Path, keys: dict[str, Any]) -> Tensor:
    """What the first update follows."""
    found = []

    def step(self, rate: float, limit: float, utterances: list[Utterance]) -> float:
        every = [p for p in self.parameters if p.grad is not None]
        found.append(torch.cat([p.grad.flatten() for p in every]).clone())
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Optimizers, "step", step)
        world.run(out, {"rl.max_steps": 1, **keys})
    return found[0]


@pytest.mark.parametrize("sample_filter", ["none", "positive_advantage"])
def test_both_follow_the_sum(sample_filter: str, world: World, tmp_path: Path) -> None:
    """L_GRPO + diffro.weight * L_DiffRO, on the same rollouts."""
    both = first_gradient(
        world,
        tmp_path / "both",
        {"rl.algorithm": "both", "diffro.sample_filter": sample_filter},
    )
    kept = next(m for m in lines(tmp_path / "both" / "metrics.jsonl") if "loss" in m)
    assert 1 < kept["diffro/kept"] < 16
    grpo = first_gradient(world, tmp_path / "grpo", {"rl.algorithm": "grpo"})
    diffro = first_gradient(
        world,
        tmp_path / "diffro",
        {
            "rl.algorithm": "diffro",
            "diffro.history": "rollout",
            "diffro.sample_filter": sample_filter,
        },
    )
    assert min(grpo.norm(), diffro.norm()) > 1e-3
    assert (both - (grpo + 0.3 * diffro)).norm() < 1e-5 * both.norm()
    alone = next(m for m in lines(tmp_path / "grpo" / "metrics.jsonl") if "loss" in m)
    assert kept["diffro/loss"] != 0
    assert kept["loss"] == pytest.approx(alone["loss"] + 0.3 * kept["diffro/loss"], abs=1e-5)


def test_neither_the_reward_model_nor_the_judge_learns(world: World, tmp_path: Path) -> None:
    task = world.task({"rl.algorithm": "both", "rl.early_stop": "flag", "rl.max_steps": 1})
    train_rl(task, world.exp / "sft", world.data, tmp_path)
    for model in (task.recogniser, task.judge):
        assert all(p.grad is None for p in model.parameters())
    assert all(not p.requires_grad for p in task.recogniser.parameters())


def falling_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the reward model hears more in each evaluation and the judge less."""
    calls = []

    def count(config, utterances, heard) -> list[Counts]:
        calls.append(heard)
        evaluation, by_judge = divmod(len(calls) - 1, 2)
        errors = 10 + evaluation if by_judge else 50 - evaluation
        return [Counts(hits=100 - errors, substitutions=errors)] * len(heard)

    monkeypatch.setattr(rl_synthesis, "count_heard", count)


STOPPING = {
    "rl.early_stop": "stop",
    "rl.early_stop_window": 3,
    "rl.eval_steps": 1,
    "rl.max_steps": 9,
    "rl.save_steps": 50,
}


@pytest.mark.parametrize(("action", "last"), [("stop", 2), ("flag", 9)])
def test_an_early_stop_ends_the_run(
    action: str, last: int, world: World, tmp_path: Path, monkeypatch
) -> None:
    falling_out(monkeypatch)
    world.run(tmp_path / "exp", {**STOPPING, "rl.early_stop": action})
    metrics = lines(tmp_path / "exp" / "metrics.jsonl")
    assert max(m["step"] for m in metrics) == last
    assert [m["hacking/flag"] for m in metrics if "hacking/flag" in m][:3] == [0, 0, 1]
    assert (tmp_path / "exp" / "model" / "model.safetensors").exists()
    assert "reward hacking?" in (tmp_path / "exp" / "train.log").read_text()


def test_an_early_stop_stays_one(world: World, tmp_path: Path, monkeypatch) -> None:
    """Killed between the stop and its model, a run must not train on."""
    falling_out(monkeypatch)
    killed(lambda: world.run(tmp_path / "exp", STOPPING), before(Policy, "save", lambda *_: True))
    assert not (tmp_path / "exp" / "model").exists()
    world.run(tmp_path / "exp", STOPPING)
    assert max(m["step"] for m in lines(tmp_path / "exp" / "metrics.jsonl")) == 2
    assert (tmp_path / "exp" / "model" / "model.safetensors").exists()


RUNS = {
    "both": {"rl.algorithm": "both", "rl.early_stop": "flag"},
    "diffro": {"rl.algorithm": "diffro", "rl.beta": 0.1},
    "diffro on rollouts": {"rl.algorithm": "diffro", "diffro.history": "rollout"},
    "both by adapters": {
        "rl.algorithm": "both",
        "rl.beta": 0.1,
        "rl.early_stop": "flag",
        "lora.rank": 4,
        "lora.merge": False,
        "gradient_checkpointing": True,
    },
}


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_goes_on_to_the_bit(name: str, world: World, tmp_path: Path) -> None:
    keys = {**RUNS[name], "rl.max_steps": 5}
    world.run(tmp_path / "plain", keys)

    def logged(self, step: int, metrics: dict) -> bool:
        return step == 3 and "loss" in metrics

    killed(lambda: world.run(tmp_path / "exp", keys), after(Reporter, "log", logged))
    assert lines(tmp_path / "exp" / "metrics.jsonl")[-1]["step"] == 3
    world.run(tmp_path / "exp", keys)
    assert "continuing from" in (tmp_path / "exp" / "train.log").read_text()
    one, other = outcome(tmp_path / "exp"), outcome(tmp_path / "plain")
    assert one == other
    assert any(m.get("grad_norm", 0) > 0 for m in one["metrics"])


@pytest.mark.parametrize("name", ["diffro", "diffro on rollouts", "both"])
def test_an_update_that_is_tried_first_changes_nothing(
    name: str, world: World, tmp_path: Path, monkeypatch
) -> None:
    keys = {**RUNS[name], "rl.max_steps": 2}
    world.run(tmp_path / "plain", keys)
    monkeypatch.setattr(train_rl_module, "_is_probed", lambda model: True)
    world.run(tmp_path / "exp", keys)
    assert outcome(tmp_path / "exp") == outcome(tmp_path / "plain")


class Ear:
    """Hears how long waves are, at a rate of its own."""

    sample_rate = 8000

    def transcribe(self, waves: Sequence[Tensor]) -> list[str]:
        return [str(len(wave)) for wave in waves]


def test_the_watch_listens_at_its_own_rate(world: World, tmp_path: Path, monkeypatch) -> None:
    heard = []
    monkeypatch.setattr(rl_synthesis, "load_judge", lambda path, device, config: Ear())
    original = rl_synthesis.count_heard

    def count(config, utterances, texts) -> list[Counts]:
        heard.append(list(texts))
        return original(config, utterances, texts)

    monkeypatch.setattr(rl_synthesis, "count_heard", count)
    spoken = []
    speak = rl_synthesis.speak

    def watched(*arguments):
        spoken.append(speak(*arguments))
        return spoken[-1]

    monkeypatch.setattr(rl_synthesis, "speak", watched)
    world.run(tmp_path, {"rl.early_stop": "flag", "rl.max_steps": 1, "decode.batch_seconds": 1.0})
    lengths = [len(found.tokens) for found in spoken[0].values()]
    assert len(set(lengths)) > 1
    # 40 ms a token, and a part of one at the end.
    extra = [int(said or 0) - 320 * n for said, n in zip(heard[1], lengths, strict=True)]
    assert all(0 <= more < 320 for more in extra)
    assert [not said for said in heard[1]] == [n == 0 for n in lengths]


def save_recogniser(exp: Path) -> None:
    model = tiny_model(spread=3.0)
    model.save(exp / "model")
    (exp / "config.yaml").write_text(dump_config(model.recipe))


def test_an_ordinary_recogniser_may_watch(world: World, tmp_path: Path) -> None:
    save_recogniser(tmp_path / "asr")
    task = world.task({"rl.early_stop": "flag", "rl.max_steps": 1}, judge=tmp_path / "asr")
    train_rl(task, world.exp / "sft", world.data, tmp_path / "exp")
    assert isinstance(task.judge, RecogniserJudge)
    assert all(
        m["eval/judge_wer"] >= 0
        for m in lines(tmp_path / "exp" / "metrics.jsonl")
        if "eval/wer" in m
    )


def test_an_ear_hears_the_waves_that_are_rewarded(
    world: World, tmp_path: Path, monkeypatch
) -> None:
    """The reward is what the ear hears, not what the reward model reads."""
    save_recogniser(tmp_path / "ear")
    heard = []

    def transcribe(self, waves: Sequence[Tensor]) -> list[str]:
        heard.extend(len(wave) for wave in waves)
        return [WORDS[2]] * len(waves)

    evaluated, original = [], rl_synthesis.count_heard

    def count(config, utterances, texts) -> list[Counts]:
        evaluated.extend(texts)
        return original(config, utterances, texts)

    monkeypatch.setattr(RecogniserJudge, "transcribe", transcribe)
    monkeypatch.setattr(rl_synthesis, "count_heard", count)
    keys = {"rl.rewards": [reward_options("wer")], "rl.max_steps": 1}
    world.run(tmp_path / "exp", keys, ear=tmp_path / "ear")
    told = lines(tmp_path / "exp" / "completions.jsonl")
    assert heard and {line["completion"] for line in told} <= {WORDS[2], ""}
    assert {line["reward"] for line in told if line["reference"] == WORDS[2]} >= {1.0}
    assert evaluated and set(evaluated) <= {WORDS[2], ""}


def test_only_what_is_sampled_otherwise_asks_for_another_run(world: World, tmp_path: Path) -> None:
    world.run(tmp_path, {"rl.max_steps": 1})
    world.run(tmp_path, {"rl.max_steps": 1, "decode.batch_size": 2, "decode.name": "other"})
    with pytest.raises(UserError, match=r"another config \(decode\.temperature: "):
        world.run(tmp_path, {"rl.max_steps": 1, "decode.temperature": 0.5})


def test_the_judge_is_no_ear(world: World, tmp_path: Path) -> None:
    refused(
        world, tmp_path, r"judge would be rewarded for and judge as well", ear=world.folders.judge
    )


def refused(
    world: World,
    out: Path,
    message: str,
    keys: dict[str, Any] | None = None,
    **folders: Path | None,
) -> None:
    """The run says this one sentence before it trains."""
    with pytest.raises(UserError, match=message) as raised:
        world.run(out, keys, **folders)
    assert "\n" not in str(raised.value)
    assert not (out / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", ["codec", "reward_model", "judge"])
def test_what_is_not_there(name: str, world: World, tmp_path: Path) -> None:
    message = rf"^{tmp_path}/none/model/model\.safetensors: there is no {name.replace('_', ' ')}; "
    refused(world, tmp_path / "exp", message, **{name: tmp_path / "none"})


@pytest.mark.parametrize("algorithm", ["grpo", "diffro"])
def test_a_codec_of_another_rate_though_nobody_listens(
    algorithm: str, world: World, tmp_path: Path
) -> None:
    native_codec({"data.sample_rate": 8080}).save(tmp_path / "slow" / "model")
    size = world.info["codebook_size"]
    message = (
        f"^{tmp_path}/slow has 25.25 tokens a second of {size} native codes, and the speech LM has "
        f"25 tokens a second of {size} native codes; name the codec that the speech LM was trained"
    )
    refused(world, tmp_path / "exp", message, {"rl.algorithm": algorithm}, codec=tmp_path / "slow")


def test_another_training_of_the_codec(world: World, tmp_path: Path) -> None:
    native_codec(seed=5).save(tmp_path / "later" / "model")
    message = f"^{tmp_path}/later and the speech LM are of two trainings of the codec; name the"
    refused(world, tmp_path / "exp", message, codec=tmp_path / "later")


def test_a_reward_model_of_another_codec(world: World, tmp_path: Path) -> None:
    world.save_reward_model("rm_9", {**world.info, "codebook_size": 9})
    size = world.info["codebook_size"]
    message = (
        f"^{world.exp}/rm_9 has 25 tokens a second of 9 native codes, and {world.exp}/codec has 25 "
        f"tokens a second of {size} native codes; name the reward model of {world.exp}/codec, or"
    )
    refused(world, tmp_path / "exp", message, reward_model=world.exp / "rm_9")


def test_similarity_without_speaker_vectors(spoilt: World, tmp_path: Path) -> None:
    """It would be one constant for all samples."""
    save_pretrained_codec(tmp_path / "hub", "dac")
    keys = {**SIZES, "codec.type": "dac", "codec.pretrained": str(tmp_path / "hub")}
    codec = PretrainedCodec(CodecSettings.of(tiny_config(keys)), tmp_path / "hub")
    codec.save(spoilt.exp / "codec" / "model")
    spoilt.save_policy(codec_info(codec))
    message = r"^rl\.rewards: speaker_similarity compares speaker vectors, and .*/codec has none: "
    rewards = [reward_options("likelihood"), reward_options("speaker_similarity", 0.5)]
    refused(spoilt, tmp_path / "out", message, {"rl.rewards": rewards})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty; remove"),
        ("ba 7", r"the speech LM never read 7 \(U\+0037\); spell"),
        ("ba do ki lu me no", "the text of 17 characters needs about 26 tokens of speech, and max"),
        ("tu", r"the text has characters that the reward model never read: t \(U\+0074\); spell"),
    ],
)
@pytest.mark.parametrize("part", ["rl", "dev"])
def test_texts_that_cannot_be_learnt(
    part: str, text: str, message: str, spoilt: World, tmp_path: Path
) -> None:
    victim = replace(write_set(spoilt.dump / "more", WORDS[:4])[1], text=text)
    if part == "rl":
        write_utterances_jsonl(spoilt.data, [*write_set(spoilt.dump / "rl2", WORDS[:4]), victim])
    else:
        table = spoilt.dump / "dev" / "text"
        victim = replace(victim, id="s1-dev001")
        table.write_text(re.sub(r"(?m)^s1-dev001 .*$", f"s1-dev001 {text}", table.read_text()))
    spoilt.save_reward_model("reward_model", spoilt.info, "abdeiklmnoprsu")
    refused(spoilt, tmp_path / "out", f"^{victim.id}: {message}")


def test_histories_that_are_missing(spoilt: World, tmp_path: Path) -> None:
    keys = {"rl.algorithm": "diffro"}
    refused(spoilt, tmp_path / "a", "name their folder with --histories", keys, histories=None)
    none = tmp_path / "none"
    refused(spoilt, tmp_path / "b", "none/tokens: there is no histories; run", keys, histories=none)
    write_tokens(spoilt.exp / "tokens", {"s0-rl000": [1, 2]}, spoilt.info)
    refused(spoilt, tmp_path / "c", r"^s0-rl003 has no speech tokens, and DiffRO on fixed", keys)
    write_tokens(spoilt.exp / "tokens", {}, {**spoilt.info, "fingerprint": "x"})
    message = "tokens and the speech LM are of two trainings of the codec; run stage 4 again with"
    refused(spoilt, tmp_path / "d", message, keys)
