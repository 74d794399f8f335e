"""Prefix, responses and the supervised loss, against obvious computations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pretrained_llm import save_pretrained_llm
from tiny import sing, tiny_config, tiny_model

from audiorl.models.audio_llm import AudioLLM

TEXTS = ["ba", "do ki lu", "me no pa ri so", "tu"]


def waves() -> list[torch.Tensor]:
    return [torch.from_numpy(sing(text, seed)) for seed, text in enumerate(TEXTS)]


def test_prefix_is_the_instruction_around_the_audio() -> None:
    model = tiny_model()
    frames = model.encode(waves())
    prefix = model.prefix(frames)
    embed = model.llm.model.get_input_embeddings()
    before = embed(torch.tensor(model.tokenizer.encode("say")))
    after = embed(torch.tensor(model.tokenizer.encode(":")))
    for i, row in enumerate(frames):
        audio = model.adaptor(row[None])[0]
        assert len(audio) == -(-len(row) // 2)
        expected = torch.cat([before, audio, after])
        assert prefix.lengths[i] == len(expected)
        real = prefix.embeds[i][prefix.mask[i]]
        torch.testing.assert_close(real, expected, rtol=0, atol=1e-6)
        assert prefix.mask[i].tolist() == sorted(prefix.mask[i].tolist())  # padded on the left
        assert prefix.positions()[i][prefix.mask[i]].tolist() == list(range(len(expected)))


@pytest.mark.parametrize("prompt", ["{audio}", "{audio} :", "say {audio}"])
def test_any_instruction(prompt: str) -> None:
    model = tiny_model({"llm.prompt": prompt})
    frames = model.encode(waves())
    words = len(model.tokenizer.encode("say")) * ("say" in prompt)
    words += len(model.tokenizer.encode(":")) * (":" in prompt)
    assert model.prefix(frames).lengths.tolist() == [-(-len(f) // 2) + words for f in frames]


def test_a_chats_prompt_keeps_its_line_feeds(tmp_path: Path) -> None:
    save_pretrained_llm(tmp_path, "qwen2")
    config = tiny_config(
        {
            "llm.prompt": " say\n{audio}<|im_end|>\nba\n",
            "llm.pretrained": str(tmp_path),
            "tokenizer.type": "pretrained",
        }
    )
    model = AudioLLM.create(config, [])
    spell = model.tokenizer.encode
    assert (model._before, model._after) == (spell(" say\n"), spell("<|im_end|>\nba\n"))
    assert model.tokenizer.decode(model._before + model._after) == " say\n\nba\n"


def test_units_of_our_own_know_no_space_at_the_ends() -> None:
    plain, spaced = (tiny_model({"llm.prompt": p}) for p in ("say{audio}:", " say {audio} : "))
    assert (plain._before, plain._after) == (spaced._before, spaced._after)


def test_responses_end_and_are_padded() -> None:
    model = tiny_model()
    tokens, mask = model.responses(["ba do", "", "ki"])
    spell = model.tokenizer.encode
    eos, pad = model.tokenizer.eos_id, model.tokenizer.pad_id
    for row, m, text in zip(tokens, mask, ["ba do", "", "ki"], strict=True):
        assert row[m].tolist() == [*spell(text), eos]
        assert (row[~m] == pad).all()


def test_supervised_loss_is_that_of_each_utterance_alone() -> None:
    """Cross entropy over all tokens and CTC over all labels, whatever the padding."""
    model = tiny_model()
    loss = model.supervised_loss(model.encode(waves()), TEXTS, ctc_weight=0.3)
    lm_sum = ctc_sum = tokens = labels = 0.0
    for wave, text in zip(waves(), TEXTS, strict=True):
        frames = model.encode([wave])
        target = torch.tensor([*model.tokenizer.encode(text), model.tokenizer.eos_id])
        embeds = torch.cat([model.prefix(frames).embeds[0], model.llm.embed(target)])
        logits = model.llm(embeds[None])[0, -len(target) - 1 : -1]
        lm_sum += F.cross_entropy(logits, target, reduction="sum")
        tokens += len(target)
        spelt = torch.tensor(list(text.encode())) + 1
        logp = model.ctc_head(frames[0]).log_softmax(-1)
        sizes = torch.tensor(len(logp)), torch.tensor(len(spelt))
        if len(logp) >= len(spelt):
            ctc_sum += F.ctc_loss(logp, spelt, *sizes, reduction="sum")
        labels += len(spelt)
    torch.testing.assert_close(loss.lm, lm_sum.detach() / tokens)
    torch.testing.assert_close(loss.ctc, ctc_sum.detach() / labels)
    torch.testing.assert_close(loss.total, 0.7 * loss.lm + 0.3 * loss.ctc)


def test_parts_without_weight_are_not_computed() -> None:
    model = tiny_model()
    frames = model.encode(waves())
    lm, ctc = (model.supervised_loss(frames, TEXTS, ctc_weight=weight) for weight in (0, 1))
    assert lm.ctc == 0
    assert torch.equal(lm.total.detach(), lm.lm)
    assert ctc.lm == 0
    assert torch.equal(ctc.total.detach(), ctc.ctc)
    ctc.total.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.llm.parameters())
    assert all(p.grad.any() for p in model.ctc_head.parameters())


def test_ctc_has_a_head_where_it_is_used() -> None:
    assert tiny_model({"sft.ctc_weight": 0.0, "sft.ctc_steps": 0}).ctc_head is None
    assert tiny_model({"sft.ctc_weight": 0.1, "sft.ctc_steps": 0}).ctc_head is not None
    assert tiny_model({"sft.ctc_weight": 0.0, "sft.ctc_steps": 5}).ctc_head is not None


def test_a_text_longer_than_its_audio_costs_nothing_in_ctc() -> None:
    model = tiny_model()
    frames = model.encode([torch.from_numpy(sing("ba"))])
    loss = model.supervised_loss(frames, ["ba do ki lu me no pa ri so tu"], ctc_weight=0.3)
    assert loss.ctc == 0
    loss.total.backward()
    assert all(p.grad.isfinite().all() for p in model.encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("unit", ["byte", "token"])
def test_ctc_labels(unit: str) -> None:
    model = tiny_model({"sft.ctc_unit": unit})
    units = 256 if unit == "byte" else model.tokenizer.vocab_size
    assert model.ctc_head.out_features == units + 1
    loss = model.supervised_loss(model.encode(waves()), ["ba", "日本", "", "do"], ctc_weight=0.3)
    assert loss.ctc > 0


def test_noise_is_read_but_not_predicted() -> None:
    """In training a share of the read tokens is random; targets are the transcript's."""
    torch.manual_seed(3)
    model = tiny_model({"sft.token_noise": 0.5, "frontend.freq_masks": 0, "frontend.time_masks": 0})
    with torch.no_grad():
        frames = model.encode(waves())
    quiet = model.supervised_loss(frames, TEXTS).lm
    noisy = model.supervised_loss(frames, TEXTS, token_noise=0.9).lm
    assert torch.equal(noisy, quiet)  # none in evaluation
    model.train()
    noisy = model.supervised_loss(frames, TEXTS, token_noise=0.9).lm
    assert not torch.equal(noisy, quiet)
    torch.testing.assert_close(model.supervised_loss(frames, TEXTS).lm, quiet)
