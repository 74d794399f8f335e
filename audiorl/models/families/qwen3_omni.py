"""Qwen3-Omni (arXiv 2509.17765), its thinker: encoder in chunks of 1 s, Qwen3 of experts."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from audiorl.models.families.qwen2_5_omni import Qwen25Omni


class Qwen3Omni(Qwen25Omni):
    """The thinker of Qwen3-Omni, which hears and writes; the talker is left out."""

    family = "qwen3_omni"
    model_class = "Qwen3OmniMoeThinkerForConditionalGeneration"
    # Issue 38 of QwenLM/Qwen3-Omni.
    prompt = (
        "<|im_start|>user\n{audio}Transcribe the English audio into text.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    audio = "<|audio_start|><|audio_pad|><|audio_end|>"
    placeholder = "<|audio_pad|>"
    seconds = (0.1, math.inf)
    padding: ClassVar = {"padding": True, "truncation": False}
    reads_alone = True  # the convolutions of its last chunk depend on the batch's longest
    adaptor_name = "model.audio_tower.proj2"

    @staticmethod
    def embeddings(frames: Tensor) -> Tensor:
        rest = frames % 100
        for _ in range(3):
            rest = torch.where(rest > 0, (rest - 1) // 2 + 1, rest)
        return rest + frames // 100 * 13


Family = Qwen3Omni
