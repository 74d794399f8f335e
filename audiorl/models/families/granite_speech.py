"""Granite-Speech (arXiv 2505.08699): Conformer encoder, a Q-Former as adaptor, Granite."""

from typing import Any

import numpy as np
import torch
import transformers

from audiorl.models.families.pretrained import Inputs, PretrainedAudioLLM


class GraniteSpeech(PretrainedAudioLLM):
    """Granite-Speech; a LoRA of the checkpoint, for audio, is merged into its LM."""

    family = "granite_speech"
    model_class = "GraniteSpeechForConditionalGeneration"
    # The model cards of ibm-granite; those of 3.3 have a system turn with dates before it.
    prompt = (
        "<|start_of_role|>user<|end_of_role|>{audio}can you transcribe the speech into a written "
        "format?<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
    )
    audio = placeholder = "<|audio|>"
    stops = ("<|end_of_text|>",)
    reads_alone = True  # its encoder has no mask
    encoder_name, adaptor_name = "model.encoder", "model.projector"

    @staticmethod
    def correct(hf: transformers.PreTrainedModel) -> None:
        hf.config.has_lora_adapter = False  # it is merged

    def inputs(self, texts: list[str], waves: list[np.ndarray]) -> Inputs:
        audio = [torch.from_numpy(wave) for wave in waves]
        made = self.processor(text=texts, audio=audio, return_tensors="pt", padding_side="left")
        return {name: made[name] for name in ("input_ids", "attention_mask", *self.feature_names)}

    @staticmethod
    def logits_scale(config: Any) -> float:
        """As GraniteForCausalLM has it; in transformers 5.23 the class with audio forgets it."""
        return config.logits_scaling


Family = GraniteSpeech
