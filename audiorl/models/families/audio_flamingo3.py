"""Audio-Flamingo 3 (arXiv 2507.08128): AF-Whisper encoder, a projector, Qwen2.5."""

import re

from audiorl.config.pretrained import LONGEST_HEARD
from audiorl.models.families.pretrained import PretrainedAudioLLM


class AudioFlamingo3(PretrainedAudioLLM):
    """Audio-Flamingo 3, which likes to put a transcript between quotes and words around them."""

    family = "audio_flamingo3"
    model_class = "AudioFlamingo3ForConditionalGeneration"
    # default_transcription_prompt of transformers' processing_audioflamingo3.py.
    prompt = (
        "<|im_start|>user\nTranscribe the input speech.{audio}<|im_end|>\n<|im_start|>assistant\n"
    )
    audio = placeholder = "<sound>"
    seconds = (0.1, LONGEST_HEARD["audio_flamingo3"])
    stops = ("<|im_end|>", "<|endoftext|>")

    @staticmethod
    def clean(text: str) -> str:
        said = re.match(r"\s*The (?:spoken content|transcription) of the audio is (.*)", text, re.S)
        return said[1].strip().removesuffix(".").strip("\"'") if said else text


Family = AudioFlamingo3
