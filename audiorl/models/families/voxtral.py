"""Voxtral (arXiv 2507.13264): Whisper encoder in windows of 30 s, a projector, Mistral."""

import numpy as np
import torch

from audiorl.models.families.pretrained import Inputs, Parts, PretrainedAudioLLM

WINDOW = 30  # s, of 375 embeddings


class Voxtral(PretrainedAudioLLM):
    """Voxtral."""

    family = "voxtral"
    model_class = "VoxtralForConditionalGeneration"
    # mistral_common: _encode_instruct_transcription of instruct.py, and audio.py.
    prompt = "<s>[INST]{audio}[/INST]lang:en[TRANSCRIBE]"
    audio = "[BEGIN_AUDIO][AUDIO]"
    placeholder = "[AUDIO]"
    stops = ("</s>",)
    load_processor = Parts  # the whole one needs mistral-common

    def inputs(self, texts: list[str], waves: list[np.ndarray]) -> Inputs:
        mels = [self._windows(wave) for wave in waves]
        ids = self.processor.ids(texts, self.placeholder, [375 * len(mel) for mel in mels])
        return {**ids, "input_features": torch.cat(mels)}

    def _windows(self, wave: np.ndarray) -> torch.Tensor:
        """Return the spectrogram of a wave, [windows, mel bands, 100 frames a second]."""
        extractor = self.processor.feature_extractor
        mel = extractor(
            wave,
            sampling_rate=self.sample_rate,
            padding=True,
            truncation=False,
            pad_to_multiple_of=WINDOW * self.sample_rate,
            return_tensors="pt",
        ).input_features
        return mel.reshape(extractor.feature_size, -1, 100 * WINDOW).transpose(0, 1)


Family = Voxtral
