"""What a speech LM reads before it speaks: the ids of each layout, in their order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pretrained_llm import save_pretrained_llm
from pretrained_speech import CODES, FACTS, pretrained_speech_lm, save_cosyvoice, save_llasa
from tiny_speech import CODEC, SPEAKERS, say, tiny_speech_lm
from transformers import AutoTokenizer

from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.models.cosyvoice import to_hugging_face
from audiorl.models.layouts import SpeechFacts, make_layout
from audiorl.models.voice import Voice, Voices, prompt_key

PROMPT = Voice("ki lu", [3, 4, 5])
INSTRUCTION = "Be kind.<|endofprompt|>"


@pytest.fixture(scope="module")
def llasa(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("llasa")
    save_llasa(folder)
    return folder


@pytest.fixture(scope="module")
def cosyvoice(tmp_path_factory) -> dict[int, Path]:
    """The checkpoints of versions 2 and 3."""
    folders = {}
    for version in (2, 3):
        folder = tmp_path_factory.mktemp(f"cosyvoice{version}")
        save_cosyvoice(folder, version)
        to_hugging_face(folder / "llm.pt", folder / "CosyVoice-BlankEN", folder / "hf")
        folders[version] = folder / "hf"
    return folders


def test_native_ids_are_text_marks_speech_and_stop() -> None:
    model = tiny_speech_lm()
    layout, text = model.layout, model.tokenizer.vocab_size
    assert layout.speech_offset == text + 2 + len(SPEAKERS)
    assert layout.stop_id == layout.speech_offset + CODEC["codebook_size"]
    assert layout.size == layout.stop_id + 1
    spell = model.tokenizer.encode
    speaker = text + 2 + 1
    assert model.condition("ba do", Voice(speaker="s1")).tolist() == [
        speaker,
        text,
        *spell("ba do"),
        text + 1,
    ]
    spoken = [layout.speech_offset + token for token in PROMPT.tokens]
    ids = [text, *spell("ki lu"), *spell("ba do"), text + 1, *spoken]
    assert model.condition("ba do", replace(PROMPT, speaker="s1")).tolist() == [speaker, *ids]
    assert model.condition("ba do", PROMPT).tolist() == ids


def test_without_marks_all_speakers_are_alike() -> None:
    model = tiny_speech_lm({"speech.speakers": "none"})
    text = model.tokenizer.vocab_size
    assert model.layout.speech_offset == text + 2
    ids = [text, *model.tokenizer.encode("ba do"), text + 1]
    assert model.condition("ba do", Voice()).tolist() == ids
    (found,) = model.encode([Utterance("u", "", "ba do", "anyone")])
    assert found.tolist() == ids


def test_a_speaker_may_be_an_utterance() -> None:
    model = tiny_speech_lm({"speech.speakers": "prompt"})
    for name in SPEAKERS:
        prompt = Voice("ba ki", say("ba ki", name))
        (ids,) = model.encode([Utterance("u", "", "do", name)])
        assert ids.tolist() == model.condition("do", prompt).tolist()
        assert ids[-len(prompt.tokens) :].tolist() == [
            model.layout.speech_offset + token for token in prompt.tokens
        ]


@pytest.mark.parametrize("speakers", ["mark", "prompt"])
def test_an_unknown_speaker_is_named_with_the_nearest(speakers: str) -> None:
    model = tiny_speech_lm({"speech.speakers": speakers})
    with pytest.raises(
        UserError, match=r"^speaker s11 is unknown to the speech LM; did you mean s1"
    ):
        model.encode([Utterance("u", "", "ba", "s11")])


def test_llasa_is_asked_in_a_chat(llasa: Path) -> None:
    model = pretrained_speech_lm(llasa, "llasa")
    tokenizer = AutoTokenizer.from_pretrained(llasa)
    ids = model.condition("ba do", Voice(speaker="whoever")).tolist()
    assert tokenizer.decode(ids) == (
        "<|endoftext|>26 Jul 2024. user:Convert the text to speech:"
        "<|TEXT_UNDERSTANDING_START|>ba do<|TEXT_UNDERSTANDING_END|><|im_end|>"
        "assistant:<|SPEECH_GENERATION_START|>"
    )
    prompted = tokenizer.decode(model.condition("ba do", PROMPT))
    assert "START|>ki lu ba do<|TEXT" in prompted
    assert prompted.endswith("<|SPEECH_GENERATION_START|><|s_3|><|s_4|><|s_5|>")
    assert model.stop_ids[0] == tokenizer.convert_tokens_to_ids("<|SPEECH_GENERATION_END|>")
    allowed = {f"<|s_{n}|>" for n in range(CODES)} | {"<|SPEECH_GENERATION_END|>"}
    free = (~model.forbidden).nonzero().flatten()
    assert set(tokenizer.convert_ids_to_tokens(free)) == allowed


def test_cosyvoice_2(cosyvoice: dict[int, Path]) -> None:
    model = pretrained_speech_lm(cosyvoice[2], "cosyvoice")
    tokenizer = AutoTokenizer.from_pretrained(cosyvoice[2])
    assert tokenizer.decode(model.condition("ba do", Voice())) == "<|sos|>ba do<|task_id|>"
    prompted = model.condition("ba do", PROMPT)
    assert tokenizer.decode(prompted) == "<|sos|>ki luba do<|task_id|><|s_3|><|s_4|><|s_5|>"
    chat = [{"role": "user", "content": "ba do"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "<|sos|>ba do<|task_id|>"
    assert tokenizer.decode([model.stop_ids[0]]) == "<|eos1|>"
    assert int((~model.forbidden).sum()) == CODES + 1
    instructed = pretrained_speech_lm(cosyvoice[2], "cosyvoice", instruction=INSTRUCTION)
    assert (
        tokenizer.decode(instructed.condition("ba", Voice()))
        == f"<|sos|>{INSTRUCTION}ba<|task_id|>"
    )


def test_cosyvoice_3(cosyvoice: dict[int, Path]) -> None:
    """Its marks are the speech tokens above the codebook; their copies by name are not used."""
    model = pretrained_speech_lm(cosyvoice[3], "cosyvoice", instruction=INSTRUCTION)
    tokenizer = AutoTokenizer.from_pretrained(cosyvoice[3])
    sos, stop, task = (f"<|s_{CODES + place}|>" for place in range(3))
    assert tokenizer.decode(model.condition("ba", Voice())) == f"{sos}{INSTRUCTION}ba{task}"
    assert tokenizer.decode([model.stop_ids[0]]) == stop
    assert int((~model.forbidden).sum()) == CODES + 1
    table = model.llm.model.get_input_embeddings().weight
    for name, twin in (("<|sos|>", sos), ("<|eos|>", stop), ("<|task_id|>", task)):
        one, two = tokenizer.convert_tokens_to_ids([name, twin])
        assert one != two
        assert (table[one] == table[two]).all()


def test_cosyvoice_3_without_an_instruction_is_refused(cosyvoice: dict[int, Path]) -> None:
    with pytest.raises(
        UserError, match=r'^speech.instruction: .*set "You are .*<\|endofprompt\|>"'
    ):
        pretrained_speech_lm(cosyvoice[3], "cosyvoice")


@pytest.mark.parametrize(
    ("size", "rate", "kind"),
    [(CODES + 1, 50.0, "xcodec2"), (CODES, 25.0, "xcodec2"), (CODES, 50.0, "native")],
)
def test_another_codec_is_refused(llasa: Path, size: int, rate: float, kind: str) -> None:
    model = pretrained_speech_lm(llasa, "llasa")
    codec = {**FACTS["xcodec2"].codec, "codebook_size": size, "token_rate": rate, "kind": kind}
    found = rf"^the codec has {rate:g} .* {size} {kind} .* speaks 50 of 27 xcodec2"
    with pytest.raises(UserError, match=found):
        make_layout(model.settings.speech, "llasa", model.tokenizer, SpeechFacts(codec))


def test_an_lm_without_speech_is_refused(tmp_path: Path) -> None:
    save_pretrained_llm(tmp_path, "qwen2")
    with pytest.raises(
        UserError, match=r"has no run of speech tokens .*; set speech.layout: native"
    ):
        pretrained_speech_lm(tmp_path, "llasa")


def test_the_other_layout_is_refused(llasa: Path, cosyvoice: dict[int, Path]) -> None:
    with pytest.raises(UserError, match=r"has no token <\|SPEECH_GENERATION_END\|>"):
        pretrained_speech_lm(cosyvoice[2], "llasa")


def test_gaps_in_the_speech_tokens_are_refused(llasa: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llasa)
    tokenizer.add_tokens([f"<|s_{CODES + 1}|>"])
    tokenizer.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="no run of speech tokens"):
        pretrained_speech_lm(tmp_path, "llasa")


def test_an_unseen_voice_is_spoken_by_its_prompt() -> None:
    """An utterance's own prompt comes before its speaker's; a model of marks cannot continue it."""
    prompt = Utterance("p", "p.wav", "ki lu", "s11")
    asked = Utterance("u", "", "ba do", "s11", prompt=prompt)
    model = tiny_speech_lm({"speech.speakers": "prompt"})
    with pytest.raises(UserError, match=r"^speaker s11 is unknown"):
        model.encode([asked])
    model.meet(Voices({}, {prompt_key(prompt): PROMPT}))
    for u in (asked, replace(asked, speaker="s1")):
        (ids,) = model.encode([u])
        assert ids.tolist() == model.condition("ba do", PROMPT).tolist()
    marks = tiny_speech_lm()
    marks.meet(Voices({}, {prompt_key(prompt): PROMPT}))
    with pytest.raises(
        UserError, match=r"train one with speech\.speakers: prompt, which continues"
    ):
        marks.encode([asked])


def test_an_lm_names_its_codec_by_fingerprint(tmp_path: Path) -> None:
    """What is converted beside its speech tokenizer refuses the tokens of any other."""
    save_cosyvoice(tmp_path, 2)
    (tmp_path / "speech_tokenizer_v2.onnx").write_bytes(b"which made the tokens")
    to_hugging_face(tmp_path / "llm.pt", tmp_path / "CosyVoice-BlankEN", tmp_path / "hf")
    with pytest.raises(UserError, match=r"learnt the tokens of cosyvoice2.* another fingerprint; "):
        pretrained_speech_lm(tmp_path / "hf", "cosyvoice")
