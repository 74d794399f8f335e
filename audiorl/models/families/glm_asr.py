"""GLM-ASR-Nano (zai-org): Whisper encoder with rotary positions, a projector, Llama."""

from audiorl.config.pretrained import LONGEST_HEARD
from audiorl.models.families.pretrained import PretrainedAudioLLM


class GlmASR(PretrainedAudioLLM):
    """GLM-ASR-Nano."""

    family = "glm_asr"
    model_class = "GlmAsrForConditionalGeneration"
    # The request: default_transcription_prompt of transformers' processing_glmasr.py; the chat:
    # that of GLM-4, the checkpoint's own template has not been seen.
    prompt = "<|user|>\n{audio}<|user|>\nPlease transcribe this audio into text<|assistant|>\n"
    audio = "<|begin_of_audio|><|pad|><|end_of_audio|>"
    placeholder = "<|pad|>"
    seconds = (0.1, LONGEST_HEARD["glm_asr"])
    stops = ("<|user|>", "<|endoftext|>")


Family = GlmASR
