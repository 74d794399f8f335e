"""Qwen3-ASR (arXiv 2601.21337): encoder in chunks of 1 s, a projector, Qwen3."""

from audiorl.models.families.pretrained import PretrainedAudioLLM


class Qwen3ASR(PretrainedAudioLLM):
    """Qwen3-ASR. Without a language in the prompt it writes `language English<asr_text>` itself."""

    family = "qwen3_asr"
    model_class = "Qwen3ASRForConditionalGeneration"
    # apply_transcription_request of transformers' processing_qwen3_asr.py.
    prompt = (
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n{audio}<|im_end|>\n"
        "<|im_start|>assistant\nlanguage English<asr_text>"
    )
    audio = "<|audio_start|><|audio_pad|><|audio_end|>"
    placeholder = "<|audio_pad|>"
    stops = ("<|im_end|>", "<|endoftext|>")
    allowed = ("<asr_text>",)
    reads_alone = True  # the last frames of its spectrogram look beyond the end

    @staticmethod
    def clean(text: str) -> str:
        return text.rpartition("<asr_text>")[2]


Family = Qwen3ASR
