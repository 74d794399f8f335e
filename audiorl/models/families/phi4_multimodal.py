"""Phi-4-multimodal (arXiv 2503.01743): Conformer encoder, a projector, Phi-4-mini."""

import numpy as np
from torch import nn

from audiorl.models.families.pretrained import Inputs, Parts, PretrainedAudioLLM


class Phi4Multimodal(PretrainedAudioLLM):
    """Phi-4-multimodal; the LoRA of its checkpoint for speech is merged into its LM."""

    family = "phi4_multimodal"
    model_class = "Phi4MultimodalForCausalLM"
    # The model card of microsoft/Phi-4-multimodal-instruct, with the placeholder of transformers.
    prompt = "<|user|>{audio}Transcribe the audio clip into text.<|end|><|assistant|>"
    audio = placeholder = "<|endoftext11|>"
    stops = ("<|end|>", "<|endoftext|>")
    own_adapter = "speech-lora"
    reads_alone = True  # its convolutions stride into the padding
    body_name, entry_name = "model", "model.layers.0"
    load_processor = Parts  # the whole one needs torchvision

    def part(self, name: str) -> list[nn.Module]:
        """Return the modules of a part; both encoders, of images and audio, lie within the LM."""
        body = self.hf.model
        heard = body.embed_tokens_extend.audio_embed
        if name == "adaptor":
            return [heard.up_proj_for_speech, heard.down_proj_for_speech]
        if name == "encoder":
            return [heard.encoder]
        own = [child for child in body.children() if child is not body.embed_tokens_extend]
        return [*own, self.hf.lm_head]

    def inputs(self, texts: list[str], waves: list[np.ndarray]) -> Inputs:
        extractor = self.processor.feature_extractor
        found = extractor(waves, sampling_rate=self.sample_rate, return_tensors="pt")
        counts = found["audio_embed_sizes"].tolist()
        return {**self.processor.ids(texts, self.placeholder, counts), **found}


Family = Phi4Multimodal
