"""The speech LM: prefix, responses, loss, what it refuses, and that a saved one is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pretrained_llm import save_pretrained_llm
from pretrained_speech import pretrained_speech_lm, save_llasa
from tiny import generate
from tiny_speech import CODEC, SPEAKERS, say, tiny_speech_config, tiny_speech_lm

from audiorl.data.utterance import Utterance
from audiorl.engines.engine import Draws
from audiorl.engines.sampling import Sampling
from audiorl.errors import UserError
from audiorl.models.layouts import SpeechFacts
from audiorl.models.policy import load_policy
from audiorl.models.speech_lm import SpeechLM, SpeechLMSettings
from audiorl.models.tokenizer import PretrainedTokenizer
from audiorl.rl.logprobs import response_logprobs

TEXTS = ["ba", "do ki lu", "me no pa ri so", "tu"]


def conditions(model: SpeechLM) -> list[torch.Tensor]:
    return [
        model.condition(text, model.voice(utterance(text, SPEAKERS[i % 3])))
        for i, text in enumerate(TEXTS)
    ]


def spoken() -> list[list[int]]:
    return [say(text, SPEAKERS[i % 3]) for i, text in enumerate(TEXTS)]


def utterance(text: str, speaker: str = "s0") -> Utterance:
    return Utterance("utt7", "a.wav", text, speaker)


@torch.no_grad()
def slow_logits(model: SpeechLM, condition: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    """Logits that predict tokens and the stop token, of one sequence of ids, [T + 1, V]."""
    ids = [*condition.tolist(), *(model.layout.speech_offset + t for t in tokens)]
    return model.llm(model.llm.embed(torch.tensor([ids])))[0, len(condition) - 1 :]


def test_the_prefix_is_the_condition() -> None:
    model = tiny_speech_lm()
    prefix = model.prefix(conditions(model))
    table = model.llm.model.get_input_embeddings().weight
    for i, condition in enumerate(conditions(model)):
        assert prefix.lengths[i] == len(condition) == model.prefix_length(condition)
        assert torch.equal(prefix.embeds[i][prefix.mask[i]], table[condition])
        assert prefix.mask[i].tolist() == sorted(prefix.mask[i].tolist())  # padded on the left


def test_responses_stop_and_come_back() -> None:
    model = tiny_speech_lm()
    rows = [*spoken(), []]
    tokens, mask = model.responses(rows)
    for ids, m, row in zip(tokens, mask, rows, strict=True):
        assert ids[m].tolist() == [
            *(model.layout.speech_offset + t for t in row),
            model.stop_ids[0],
        ]
        assert (ids[~m] == model.pad_id).all()
        assert model.speech_tokens(ids) == row
    unfinished = tokens[2][:5]
    assert model.speech_tokens(unfinished) == rows[2][:5]


def test_the_loss_is_that_of_each_utterance_alone() -> None:
    """Cross entropy of the tokens and of the stop, among what can be sampled."""
    model = tiny_speech_lm(spread=2.0)
    first, stop = model.layout.speech_offset, model.stop_ids[0]
    total = count = 0
    for condition, tokens in zip(conditions(model), spoken(), strict=True):
        logits = slow_logits(model, condition, tokens)[:, first : stop + 1]
        target = torch.tensor([*tokens, CODEC["codebook_size"]])
        total += F.cross_entropy(logits, target, reduction="sum")
        count += len(target)
    loss = model.supervised_loss(conditions(model), spoken())
    torch.testing.assert_close(loss.detach(), total / count)


def test_noise_is_of_training_alone() -> None:
    model = tiny_speech_lm()
    quiet = model.supervised_loss(conditions(model), spoken(), token_noise=0.5).item()
    plain = tiny_speech_lm().train()
    assert plain.supervised_loss(conditions(plain), spoken()).item() == pytest.approx(quiet)
    torch.manual_seed(3)
    read = []
    model.train()
    model.llm.model.get_input_embeddings().register_forward_hook(
        lambda *call: read.append(call[1][0])
    )
    model.supervised_loss(conditions(model), spoken(), token_noise=0.5)
    tokens, mask = model.responses(spoken())
    heard, inside = read[-1], mask[:, 1:]  # the last token of each is predicted, not read
    changed = (heard != tokens[:, :-1])[inside].float().mean()
    assert 0.2 < changed < 0.8
    offset = model.layout.speech_offset
    assert ((offset <= heard[inside]) & (heard[inside] < model.stop_ids[0])).all()


def test_only_speech_is_sampled_and_the_update_scores_it_so() -> None:
    model = tiny_speech_lm(spread=3.0)
    prefix = model.prefix(conditions(model))
    rollout = generate(
        model,
        prefix,
        group=8,
        max_length=20,
        sampling=Sampling(),
        uniforms=Draws(0, 0, list("abcd")).uniforms(8, 20),
    )
    drawn = rollout.tokens[rollout.mask]
    assert ((model.layout.speech_offset <= drawn) & (drawn <= model.stop_ids[0])).all()
    assert rollout.finished.any() and not rollout.finished.all()
    scored = response_logprobs(
        model.llm,
        prefix,
        rollout.tokens,
        rollout.mask,
        sampling=Sampling(),
        forbidden=model.forbidden,
        share=True,
    )
    torch.testing.assert_close(scored.logps, rollout.logps, rtol=0, atol=1e-5)
    loss = model.supervised_loss(
        [c for c in conditions(model) for _ in range(8)],
        [model.speech_tokens(row[m]) for row, m in zip(rollout.tokens, rollout.mask, strict=True)],
    )
    ended = rollout.finished.repeat_interleave(rollout.mask.sum(1))
    assert not ended.all()  # the loss below has a stop token more where the limit cut
    assert loss.item() != pytest.approx(-scored.logps[rollout.mask].mean().item())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^utt7: the text is empty; remove the utterance\.$"),
        (" \t", r"^utt7: the text is empty"),
        ("ba 7 do é 7", r"^utt7: the speech LM never read 7 \(U\+0037\), é \(U\+00E9\); spell"),
        ("ba " * 10, r"^utt7: the text of 30 characters needs about 45 tokens .* is 40; split it"),
    ],
)
def test_texts_that_cannot_be_spoken(text: str, message: str) -> None:
    model = tiny_speech_lm()
    good = utterance("ba do")
    model.refuse_texts([good], 40)
    with pytest.raises(UserError, match=message) as raised:
        model.refuse_texts([good, utterance(text)], 40)
    assert "\n" not in str(raised.value)
    if text.startswith("ba " * 2):
        model.refuse_texts([utterance(text)])  # as long as it likes, where nothing is sampled


def test_a_text_beyond_the_positions_of_the_lm() -> None:
    model = tiny_speech_lm()
    model.facts = replace(model.facts, tokens_per_character=0.0)
    model.llm.config.max_position_embeddings = 50
    model.refuse_texts([utterance("ba")], 40)
    with pytest.raises(UserError, match=r"^utt7: .* need up to 55 positions, and the LM has 50; s"):
        model.refuse_texts([utterance("ba do ki lu me no pa ri so tu ba do")], 40)


def test_a_text_by_an_unknown_speaker() -> None:
    with pytest.raises(UserError, match=r"^utt7: speaker nobody is unknown to the speech LM; "):
        tiny_speech_lm().refuse_texts([utterance("ba", "nobody")])


def test_byte_level_tokenizers_read_everything(tmp_path: Path) -> None:
    save_llasa(tmp_path)
    pretrained_speech_lm(tmp_path, "llasa").refuse_texts([utterance("7 é 日本 \U0001f600")])


@pytest.mark.parametrize("speakers", ["mark", "prompt", "none"])
def test_a_saved_one_is_the_same(speakers: str, tmp_path: Path) -> None:
    model = tiny_speech_lm({"speech.speakers": speakers}, spread=2.0)
    model.save(tmp_path)
    loaded = load_policy(tmp_path)
    assert isinstance(loaded, SpeechLM)
    assert not loaded.training
    assert loaded.facts == model.facts
    assert torch.equal(loaded.forbidden, model.forbidden)
    for one, two in zip(conditions(loaded), conditions(model), strict=True):
        assert torch.equal(one, two)
    with torch.no_grad():
        losses = [m.supervised_loss(conditions(m), spoken()) for m in (loaded, model)]
    assert torch.equal(*losses)


def test_a_pretrained_one_is_saved_whole(tmp_path: Path) -> None:
    save_llasa(tmp_path / "hub")
    model = pretrained_speech_lm(tmp_path / "hub", "llasa", speakers="prompt")
    model.save(tmp_path / "model")
    (tmp_path / "hub").rename(tmp_path / "gone")
    loaded = load_policy(tmp_path / "model")
    (one,), (two,) = (m.encode([utterance("do")]) for m in (loaded, model))
    assert torch.equal(one, two)
    weights = (m.llm.lm_head.weight for m in (loaded, model))
    assert torch.equal(*weights)


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_an_lm_of_text_learns_to_speak(architecture: str, tmp_path: Path) -> None:
    """The native layout on a pretrained LM: its text as it is, new rows behind its tokenizer's."""
    save_pretrained_llm(tmp_path / "hub", architecture)
    keys = {"tokenizer.type": "pretrained", "llm.pretrained": str(tmp_path / "hub")}
    tokenizer = PretrainedTokenizer(tmp_path / "hub")
    settings = SpeechLMSettings.of(tiny_speech_config(keys), "speech_lm")
    model = SpeechLM(settings, tokenizer, SpeechFacts(CODEC, SPEAKERS)).eval()
    old = tiny_speech_lm().llm  # any other
    rows = model.llm.model.get_input_embeddings().weight.size(0)
    assert rows == len(model.forbidden) >= model.layout.size > tokenizer.vocab_size
    assert model.encode([utterance("ba")])[0][2:-1].tolist() == tokenizer.encode("ba")
    assert rows != old.vocab_size
    model.save(tmp_path / "model")
    loaded = load_policy(tmp_path / "model")
    with torch.no_grad():
        losses = [m.supervised_loss(conditions(m), spoken()) for m in (loaded, model)]
    assert torch.equal(*losses)


@pytest.mark.parametrize(
    "damage", ["{", "{}", '{"codec": 1}', "[]", '{"speakers": 3, "prompts": []}', None]
)
def test_a_broken_one_is_named(damage: str | None, tmp_path: Path) -> None:
    tiny_speech_lm().save(tmp_path)
    if damage is None:
        (tmp_path / "speech.json").unlink()
    else:
        (tmp_path / "speech.json").write_text(damage)
    with pytest.raises(
        UserError, match=r"the model is not whole \(.*; restore the folder"
    ) as raised:
        load_policy(tmp_path)
    assert "\n" not in str(raised.value)
