"""Fun-ASR-Nano (arXiv 2509.12508): SenseVoice encoder, a transformer as adaptor, Qwen3."""

import transformers

from audiorl.config.pretrained import LONGEST_HEARD
from audiorl.models.families.pretrained import PretrainedAudioLLM


class FunASRNano(PretrainedAudioLLM):
    """Fun-ASR-Nano; in Chinese the request is `语音转写成中文：`."""

    family = "fun_asr_nano"
    model_class = "FunAsrNanoForConditionalGeneration"
    # The request: transformers' modular_fun_asr_nano.py; the chat: sherpa-onnx's
    # OfflineRecognizerFunASRNanoImpl.
    prompt = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "语音转写成英文：{audio}<|im_end|>\n<|im_start|>assistant\n"
    )
    audio = placeholder = "<|object_ref_start|>"
    seconds = (0.1, LONGEST_HEARD["fun_asr_nano"])
    stops = ("<|im_end|>", "<|endoftext|>")

    @staticmethod
    def correct(hf: transformers.PreTrainedModel) -> None:
        # After from_pretrained its adaptor has no kind of attention, and so forgets its mask.
        hf.config.adaptor_config._attn_implementation = hf.config._attn_implementation


Family = FunASRNano
