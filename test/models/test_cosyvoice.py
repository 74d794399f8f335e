"""CosyVoice's llm.pt as a checkpoint and back: the same logits, the same tensors, its own names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from pretrained_speech import CODES, CosyVoice, pretrained_speech_lm, save_cosyvoice
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from audiorl.bin.convert_cosyvoice import main
from audiorl.errors import UserError
from audiorl.models.cosyvoice import from_hugging_face, text_tokens, to_hugging_face
from audiorl.models.policy import load_policy
from audiorl.models.speech_lm import SpeechLM
from audiorl.models.voice import Voice

INSTRUCTION = "Be kind.<|endofprompt|>"
TEXTS = ["ba do", "ki lu me no"]
SPEECH = [[3, 1, 26, 0], [7, 7]]


@pytest.fixture(scope="module", params=[2, 3])
def both(request, tmp_path_factory) -> tuple[CosyVoice, Path]:
    """A CosyVoice model, and the folder with its llm.pt and its checkpoint, hf."""
    folder = tmp_path_factory.mktemp("cosyvoice")
    original = save_cosyvoice(folder, request.param)
    to_hugging_face(folder / "llm.pt", folder / "CosyVoice-BlankEN", folder / "hf")
    return original, folder


def speech_lm(folder: Path) -> SpeechLM:
    return pretrained_speech_lm(folder, "cosyvoice", instruction=INSTRUCTION)


def load_cosyvoice(path: Path, folder: Path, version: int) -> CosyVoice:
    model = CosyVoice(version, Qwen2Config.from_pretrained(folder / "CosyVoice-BlankEN"))
    model.load_state_dict(torch.load(path, weights_only=True), strict=True)
    return model.eval()


@torch.no_grad()
def logits(model: SpeechLM) -> list[Tensor]:
    """Of the codes and the controls behind them, at every position of SPEECH, [R, rows] each."""
    tokens, mask = model.responses(SPEECH)
    prefix = model.prefix([model.condition(text, Voice()) for text in TEXTS])
    hidden = model.llm.response_states(prefix, tokens, share=False)
    found = model.llm.logits(hidden)
    first = model.layout.speech_offset
    rows = CODES + (3 if model.layout.version == 2 else 200)
    return [row[m][:, first : first + rows] for row, m in zip(found, mask, strict=True)]


@torch.no_grad()
def test_the_logits_are_cosyvoices(both: tuple[CosyVoice, Path]) -> None:
    original, folder = both
    model = speech_lm(folder / "hf")
    spell = AutoTokenizer.from_pretrained(folder / "hf").encode
    for text, speech, found in zip(TEXTS, SPEECH, logits(model), strict=True):
        read = [*spell(INSTRUCTION), *spell(text)]
        torch.testing.assert_close(found, original(read, speech), rtol=1e-5, atol=1e-5)
        assert found.std() > 0.5  # something to differ in


def test_back_again_each_tensor_is_the_same(both: tuple[CosyVoice, Path], tmp_path: Path) -> None:
    """But rows of the text table that no text has. CosyVoice loads strictly, by all the names."""
    original, folder = both
    from_hugging_face(folder / "hf", tmp_path / "llm.pt")
    state = torch.load(tmp_path / "llm.pt", weights_only=True)
    load_cosyvoice(tmp_path / "llm.pt", folder, original.version)
    texts = AutoTokenizer.from_pretrained(folder / "hf").convert_tokens_to_ids("<|s_0|>")
    assert texts < 700
    for name, expected in original.state_dict().items():
        found = state[name]
        assert found.shape == expected.shape
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            assert not found[texts:].any()
            found, expected = found[:texts], expected[:texts]
        assert torch.equal(found, expected), name


def test_from_an_experiment_back_to_cosyvoice(both: tuple[CosyVoice, Path], tmp_path: Path) -> None:
    """A model that audiorl changed and saved; in CosyVoice it says what it says here."""
    original, folder = both
    model = speech_lm(folder / "hf")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    model.save(tmp_path / "model")
    expected = logits(model)
    for found, wanted in zip(logits(load_policy(tmp_path / "model")), expected, strict=True):
        assert torch.equal(found, wanted)
    from_hugging_face(tmp_path / "model", tmp_path / "llm.pt")
    changed = load_cosyvoice(tmp_path / "llm.pt", folder, original.version)
    spell = model.tokenizer.encode
    with torch.no_grad():
        for text, speech, wanted in zip(TEXTS, SPEECH, expected, strict=True):
            found = changed([*spell(INSTRUCTION), *spell(text)], speech)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_transformers_reads_the_checkpoint(both: tuple[CosyVoice, Path]) -> None:
    original, folder = both
    lm = AutoModelForCausalLM.from_pretrained(folder / "hf")
    tokenizer = AutoTokenizer.from_pretrained(folder / "hf")
    assert lm.get_input_embeddings().weight.size(0) % 128 == 0
    third = tokenizer.convert_tokens_to_ids("<|s_3|>")
    assert torch.equal(lm.get_input_embeddings().weight[third], original.speech_embedding.weight[3])
    assert torch.equal(lm.lm_head.weight[third], original.llm_decoder.weight[3])
    stop = "<|eos1|>" if original.version == 2 else f"<|s_{CODES + 1}|>"
    assert lm.config.eos_token_id == tokenizer.convert_tokens_to_ids(stop)
    assert lm.config.architectures == ["Qwen2ForCausalLM"]


def test_only_codes_and_controls_have_a_bias(both: tuple[CosyVoice, Path]) -> None:
    original, folder = both
    head = speech_lm(folder / "hf").llm.lm_head
    if original.version == 3:
        assert head.bias is None
    else:
        assert int(head.bias.isfinite().sum()) == CODES + 3


def test_a_checkpoint_without_the_bias_goes_back_with_none(both, tmp_path: Path) -> None:
    """As the ones that lost it in another trainer."""
    original, folder = both
    lm = AutoModelForCausalLM.from_pretrained(folder / "hf")
    lm.config.use_bias = False
    lm.save_pretrained(tmp_path / "hf")
    AutoTokenizer.from_pretrained(folder / "hf").save_pretrained(tmp_path / "hf")
    from_hugging_face(tmp_path / "hf", tmp_path / "llm.pt")
    state = torch.load(tmp_path / "llm.pt", weights_only=True)
    assert torch.equal(state["llm_decoder.weight"], original.llm_decoder.weight)
    if original.version == 2:
        assert not state["llm_decoder.bias"].any()


def test_text_tokens_are_cosyvoices() -> None:
    """Their number and their places, on which the ids of Qwen2's tokenizer depend."""
    two, three = text_tokens(2), text_tokens(3)
    assert (len(two), len(three)) == (19, 280)
    assert three[:20] == [*two, "<|endofsystem|>"]
    assert two.index("<|endofprompt|>") == 2
    assert len(set(three)) == 280
    assert three[20:24] == ["[AA]", "[AA0]", "[AA1]", "[AA2]"]
    assert three[102:106] == ["[Z]", "[ZH]", "[a]", "[ai]"]
    assert three[-1] == "[ǜ]"


def test_the_command(both: tuple[CosyVoice, Path], tmp_path: Path, monkeypatch, capsys) -> None:
    _, folder = both
    text = str(folder / "CosyVoice-BlankEN")
    to_hf = ["to-hf", str(folder / "llm.pt"), "--text", text, "--out", str(tmp_path / "hf")]
    back = ["from-hf", str(tmp_path / "hf"), "--out", str(tmp_path / "llm.pt")]
    for arguments in (to_hf, back):
        monkeypatch.setattr(sys, "argv", ["convert_cosyvoice", *arguments])
        main()
        assert capsys.readouterr().out == f"wrote {arguments[-1]}\n"
    before, after = (
        torch.load(p / "llm.pt", weights_only=True)["speech_embedding.weight"]
        for p in (folder, tmp_path)
    )
    assert torch.equal(before, after)
    monkeypatch.setattr(sys, "argv", ["convert_cosyvoice", *back, "--text", text])
    with pytest.raises(SystemExit):
        main()


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"speech_embedding.weight": Bomb()}, tmp_path / "llm.pt")
    with pytest.raises(UserError, match=r"llm.pt cannot be read .*; give CosyVoice's llm.pt"):
        to_hugging_face(tmp_path / "llm.pt", tmp_path, tmp_path / "hf")
    assert not (tmp_path / "exploded").exists()


def test_wrong_inputs_are_named(both: tuple[CosyVoice, Path], tmp_path: Path) -> None:
    _, folder = both
    text = folder / "CosyVoice-BlankEN"
    with pytest.raises(UserError, match=r"gone.pt cannot be read \(.*No such file"):
        to_hugging_face(tmp_path / "gone.pt", text, tmp_path / "hf")
    torch.save({"speech_embedding.weight": torch.zeros(3, 2)}, tmp_path / "flow.pt")
    with pytest.raises(
        UserError, match=r"flow.pt has no llm.model.model.embed_tokens.weight; give"
    ):
        to_hugging_face(tmp_path / "flow.pt", text, tmp_path / "hf")
    with pytest.raises(UserError, match="has no config and tokenizer of a Qwen2"):
        to_hugging_face(folder / "llm.pt", tmp_path, tmp_path / "hf")
    state = torch.load(folder / "llm.pt", weights_only=True)
    del state["llm.model.model.norm.weight"]
    torch.save(state, tmp_path / "llm.pt")
    with pytest.raises(UserError, match=r"is not of the Qwen2 that .* describes .*norm.weight"):
        to_hugging_face(tmp_path / "llm.pt", text, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
