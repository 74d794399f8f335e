"""Qwen2-Audio (arXiv 2407.10759): Whisper encoder over 30 s, a linear projector, Qwen-7B."""

from audiorl.config.pretrained import LONGEST_HEARD
from audiorl.models.families.pretrained import PretrainedAudioLLM


class Qwen2Audio(PretrainedAudioLLM):
    """Qwen2-Audio, Instruct or base."""

    family = "qwen2_audio"
    model_class = "Qwen2AudioForConditionalGeneration"
    # The chat: default_chat_template of transformers' processing_qwen2_audio.py; the request:
    # eval_audio/evaluate_asr.py of QwenLM/Qwen2-Audio and its data.
    prompt = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "Audio 1: {audio}\nDetect the language and recognize the speech: <|en|><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    audio = "<|audio_bos|><|AUDIO|><|audio_eos|>"
    placeholder = "<|AUDIO|>"
    stops = ("<|im_end|>", "<|endoftext|>")
    seconds = (0.1, LONGEST_HEARD["qwen2_audio"])
    feature_names = ("input_features", "feature_attention_mask")


Family = Qwen2Audio
