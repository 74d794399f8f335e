"""Models of transformers, whole or refused: what a checkpoint lacks would be random numbers."""

from __future__ import annotations

import copy
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import PreTrainedModel

UNLOADABLE = (  # what broken files make transformers raise
    *(OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError, ImportError),
    *(SafetensorError, StrictDataclassError),
)
NEVER_READ = ("masked_spec_embed",)  # of SpecAugment, which fine-tuned encoders come without


def load_whole(kind: type, name: str, **options: Any) -> PreTrainedModel:
    """Return the model of class `kind` of a folder or hub name.

    What its class freezes, such as the sinusoids of Whisper's encoder, is frozen; transformers
    forgets that when it loads.

    Raises ValueError if weights are missing or adapters lie beside them, and what is `UNLOADABLE`.
    """
    model, seen = kind.from_pretrained(name, output_loading_info=True, **options)
    if model._hf_peft_config_loaded:  # `seen` is of these alone
        raise ValueError("it comes with adapters; merge them and give the whole model")
    if missing := sorted(key for key in seen["missing_keys"] if not key.endswith(NEVER_READ)):
        raise ValueError(f"it lacks {len(missing)} weights, {missing[0]} first")
    with torch.device("meta"):
        made = type(model)(copy.deepcopy(model.config))
    for key, parameter in made.named_parameters():
        if not parameter.requires_grad:
            model.get_parameter(key).requires_grad_(False)
    return model
