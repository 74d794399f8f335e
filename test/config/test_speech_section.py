"""Keys of the speech LM that do not fit together."""

from __future__ import annotations

from collections.abc import Callable

import pytest

XCODEC = "codec: {type: xcodec2, pretrained: some/xcodec2}\n"
LLASA = f"tokenizer: {{type: pretrained}}\nllm: {{pretrained: some/llasa}}\n{XCODEC}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            LLASA.replace(XCODEC, "") + "speech: {layout: llasa, speakers: none}",
            "c.yaml:4: codec.type: llasa speaks the tokens of xcodec2 or xcodec2_served; set "
            "codec.type: xcodec2.",
        ),
        (
            XCODEC + "speech: {layout: llasa, speakers: none}",
            "c.yaml:3: speech.layout: llasa is how a pretrained LM reads; set llm.pretrained, or "
            "native.",
        ),
        (  # our own codec of 6,561 codes has as many as CosyVoice's, and they are other sounds
            LLASA.replace(XCODEC, "codec: {fsq_dims: 8}\n")
            + "speech: {layout: cosyvoice, speakers: none}",
            "c.yaml:5: codec.type: cosyvoice speaks the tokens of cosyvoice2 or cosyvoice3; set "
            "codec.type: cosyvoice2.",
        ),
        (
            LLASA + "speech: {layout: llasa}",
            "c.yaml:5: speech.speakers: llasa has no marks of speakers; set prompt or none.",
        ),
        (
            'speech: {instruction: "Speak<|endofprompt|>"}',
            "c.yaml:2: speech.instruction: native reads no instruction; remove it.",
        ),
        (
            "sft: {schedule: {max_steps: 0}}",
            "c.yaml:2: sft.schedule.max_steps: only a pretrained model can be taken as it "
            "is; set at least 1.",
        ),
        (
            "rl: {algorithm: supervised}",
            "c.yaml:2: rl.algorithm: texts alone have nothing to copy; train the speech LM for "
            "longer, or set grpo.",
        ),
        (
            "rl: {prompt_order: curriculum}",
            "c.yaml:2: rl.prompt_order: is a key of task asr, and this recipe's is tts; remove it.",
        ),
    ],
)
def test_what_does_not_fit(problems: Callable, text: str, message: str) -> None:
    assert problems(f"task: tts\n{text}\n") == [message]


def test_recognition_trains_at_least_one_step(problems: Callable) -> None:
    assert len(problems("sft: {schedule: {max_steps: 0}}\n")) == 1


@pytest.mark.parametrize("speakers", ["prompt", "none"])
@pytest.mark.parametrize("steps", [0, 5])
def test_a_pretrained_speech_lm(load: Callable, speakers: str, steps: int) -> None:
    speech = f"speech: {{layout: cosyvoice, speakers: {speakers}, instruction: Be kind.}}\n"
    served = LLASA.replace("xcodec2", "cosyvoice2")
    config = load(f"task: tts\n{served}{speech}sft: {{schedule: {{max_steps: {steps}}}}}\n")
    assert config.speech.instruction == "Be kind."
    assert config.sft.schedule.max_steps == steps
