"""The door of all that hears waves: experiments, saved models, pretrained recognisers by path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import RATE, sing, tiny_config, tiny_model, write_set
from tiny_families import load_family
from tiny_speech import tiny_speech_lm
from tiny_whisper import SECONDS, save_whisper, tiny_whisper, whisper_config

from audiorl.config.rl_data import SubsetConfig
from audiorl.config.schema import Config
from audiorl.data.audio import resample
from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer.hearing import (
    MOST_TOKENS,
    load_judge,
    transcribe_recordings,
    transcribe_waves,
    weights_file,
)
from audiorl.infer.transcribe import greedy
from audiorl.models.judge import Judge, JudgeSettings
from audiorl.models.recogniser import Recogniser
from audiorl.rl_data.pool import read_hypotheses, read_pool

TEXTS = ["ba do ki", "lu", "me no"]
SHORT = 6  # tokens, so that the tiny model's table of positions suffices


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiorl.infer.hearing.MOST_TOKENS", SHORT)


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("hub"), multilingual=True)


def waves() -> list[torch.Tensor]:
    return [torch.from_numpy(sing(text)) for text in TEXTS]


def said(policy: Recogniser) -> list[str]:
    with torch.no_grad():
        prefix = policy.prefix(policy.encode(waves()))
    return [h.text for h in greedy(PolicyEngine(policy), prefix, SHORT)]


def test_a_folder_of_transformers(hub: Path) -> None:
    judge = load_judge(hub)
    assert judge.transcribe(waves()) == said(tiny_whisper(hub))
    assert judge.speaker(waves()) is None and judge.sample_rate == RATE
    assert weights_file(hub) == hub / "model.safetensors"


def test_language_and_window_are_those_of_the_recipe(hub: Path) -> None:
    keys = {"whisper.language": "zh", "whisper.window": "utterance"}
    judge = load_judge(hub, config=whisper_config(hub, keys))
    assert judge.transcribe(waves()) == said(tiny_whisper(hub, keys))
    assert judge.transcribe(waves()) != load_judge(hub).transcribe(waves())


PROMPT = "<|im_start|>user\n{audio}<|im_end|>\n<|im_start|>assistant\nlanguage Chinese<asr_text>"


@pytest.mark.parametrize(
    ("task", "policy", "meant"),
    [
        ("tts", "", True),
        ("asr", "qwen3_asr", True),
        ("asr", "qwen2_audio", False),
        ("asr", "", False),
    ],
)
def test_an_audio_llm_with_the_prompt_that_the_recipe_means_for_it(
    task: str, policy: str, meant: bool, family_folder: Callable[[str], Path]
) -> None:
    """That of synthesis, or of a policy of the same family; otherwise its own."""
    config, folder = Config(task=task), family_folder("qwen3_asr")
    config.llm.prompt = PROMPT
    config.model.pretrained = str(family_folder(policy)) if policy else ""
    judge = load_judge(folder, config=config)
    expected = load_family(folder, PROMPT if meant else "")
    assert judge.model.settings.prompt == expected.settings.prompt
    assert judge.transcribe(waves()) == said(expected)


@pytest.fixture
def hub_cache(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache, without a network, in which anna/whisper is; return the folder of its files."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "models--anna--whisper"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("1")
    (cache / "snapshots").mkdir()
    (cache / "snapshots" / "1").symlink_to(hub)
    return cache / "snapshots" / "1"


def test_a_hub_name(hub: Path, hub_cache: Path) -> None:
    name = Path("anna/whisper")
    assert load_judge(name).transcribe(waves()) == load_judge(hub).transcribe(waves())
    assert weights_file(name).resolve() == hub / "model.safetensors"
    with pytest.raises(UserError, match=r"anna/gone has no config\.json that can be read"):
        load_judge(Path("anna/gone"))
    assert not weights_file(Path("anna/gone")).exists()


def test_a_path_is_no_hub_name(hub_cache: Path) -> None:
    """`anna/whisper` where there is a folder anna: an experiment that is still to be made, say."""
    Path("anna").mkdir()
    with pytest.raises(UserError, match="anna/whisper/model: there is no model"):
        load_judge(Path("anna/whisper"))


def test_a_saved_policy_by_its_folder_or_its_experiment(hub: Path, tmp_path: Path) -> None:
    policy = tiny_whisper(hub, {"whisper.window": "utterance", "whisper.language": "zh"})
    policy.save(tmp_path / "exp" / "model")
    for path in (tmp_path / "exp", tmp_path / "exp" / "model"):
        assert load_judge(path).transcribe(waves()) == said(policy)
        assert weights_file(path) == tmp_path / "exp" / "model" / "model.safetensors"


def test_audio_beyond_its_window_is_heard_in_pieces(hub: Path) -> None:
    judge = load_judge(hub)
    long = torch.cat([wave[: RATE // 8] for wave in waves() * 6])
    pieces = long.split(SECONDS * RATE)
    assert len(pieces) == 2
    expected = " ".join(judge.transcribe([piece])[0] for piece in pieces)
    assert judge.transcribe([long, waves()[0]]) == [expected, judge.transcribe(waves()[:1])[0]]


@pytest.mark.parametrize("rate", [RATE, 24000])
def test_waves_without_samples_have_no_text(rate: int, hub: Path) -> None:
    assert transcribe_waves(load_judge(hub), [torch.zeros(0)] * 2, rate, 10) == ["", ""]


def test_waves_of_another_rate(hub: Path) -> None:
    judge = load_judge(hub)
    fast = [torch.from_numpy(resample(wave.numpy(), RATE, 24000)) for wave in waves()]
    back = [torch.from_numpy(resample(wave.numpy(), 24000, RATE)) for wave in fast]
    assert transcribe_waves(judge, fast, 24000, 10.0) == judge.transcribe(back)


@pytest.mark.parametrize("by_name", [False, True])
def test_a_second_system_of_stage_4(
    by_name: bool, hub: Path, hub_cache: Path, tmp_path: Path
) -> None:
    """A model in rl_data.hypotheses is a recogniser, which hears what hard subsets may take."""
    utterances = write_set(tmp_path / "dump" / "train", TEXTS)
    write_set(tmp_path / "dump" / "dev", ["so"])
    keys = {
        "rl_data.hypotheses": ["anna/whisper" if by_name else str(hub)],
        "rl_data.subsets": [SubsetConfig("hard")],
        "decode.batch_seconds": 10.0,
    }
    config = tiny_config(keys)
    (found,) = read_hypotheses(config, read_pool(config, tmp_path / "dump"))
    assert found == transcribe_recordings(load_judge(hub), utterances, 10.0, "")
    assert found.keys() == {u.id for u in utterances} and len(set(found.values())) > 1


def test_who_does_not_hear(tmp_path: Path) -> None:
    tiny_speech_lm().save(tmp_path / "tts" / "model")
    with pytest.raises(UserError, match="is no recogniser and cannot judge"):
        load_judge(tmp_path / "tts")
    with pytest.raises(UserError, match="there is no model"):
        load_judge(tmp_path / "none")
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(UserError, match="is a qwen3, and known recognisers are"):
        load_judge(tmp_path / "lm")


def test_others_that_hear(tmp_path: Path) -> None:
    settings = JudgeSettings.of(tiny_config({"task": "tts"}))
    Judge.of(settings, ["ba"], ["ann"]).save(tmp_path / "judge" / "model")
    assert isinstance(load_judge(tmp_path / "judge"), Judge)
    tiny_model().save(tmp_path / "sft" / "model")
    assert load_judge(tmp_path / "sft").max_length == SHORT != MOST_TOKENS
