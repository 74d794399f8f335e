"""Qwen2.5-Omni (arXiv 2503.20215), its thinker: Whisper encoder over 30 s, Qwen2.5."""

from typing import ClassVar

import numpy as np
from torch import Tensor

from audiorl.config.pretrained import LONGEST_HEARD
from audiorl.models.families.pretrained import Inputs, Parts, PretrainedAudioLLM


class Qwen25Omni(PretrainedAudioLLM):
    """The thinker of Qwen2.5-Omni, which hears and writes; the talker is left out."""

    family = "qwen2_5_omni"
    model_class = "Qwen2_5OmniThinkerForConditionalGeneration"
    # The cookbook of QwenLM/Qwen2.5-Omni, as others quote it; in Chinese
    # `请将这段中文语音转换为纯文本，去掉标点符号。`
    prompt = (
        "<|im_start|>system\nYou are a speech recognition model.<|im_end|>\n<|im_start|>user\n"
        "{audio}Transcribe the English audio into text without any punctuation marks.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    audio = "<|audio_bos|><|AUDIO|><|audio_eos|>"
    placeholder = "<|AUDIO|>"
    stops = ("<|im_end|>", "<|endoftext|>")
    seconds = (0.1, LONGEST_HEARD["qwen2_5_omni"])
    adaptor_name = "model.audio_tower.proj"
    padding: ClassVar = {"padding": "max_length"}
    load_processor = Parts  # the whole one needs torchvision

    @staticmethod
    def embeddings(frames: Tensor) -> Tensor:
        """Return the numbers of embeddings of spectrograms of so many frames."""
        return ((frames - 1) // 2 + 1 - 2) // 2 + 1

    def inputs(self, texts: list[str], waves: list[np.ndarray]) -> Inputs:
        found = self.processor.feature_extractor(
            waves,
            sampling_rate=self.sample_rate,
            return_attention_mask=True,
            return_tensors="pt",
            **self.padding,
        )
        mask = found["attention_mask"]
        counts = self.embeddings(mask.sum(-1)).tolist()
        ids = self.processor.ids(texts, self.placeholder, counts)
        features = {"input_features": found["input_features"], "feature_attention_mask": mask}
        return {**ids, **features}


Family = Qwen25Omni
