"""Tiny codecs, native and pretrained, and recordings for them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from tiny import WORDS, sing, tiny_config
from torch import Tensor
from transformers import (
    DacConfig,
    DacModel,
    MimiConfig,
    MimiModel,
    NeuCodecConfig,
    NeuCodecFeatureExtractor,
    NeuCodecModel,
    Wav2Vec2BertConfig,
    Xcodec2Config,
    Xcodec2FeatureExtractor,
    Xcodec2Model,
)

from audiorl.models.codec import CodecSettings, NativeCodec
from audiorl.text.characters import Characters

SIZES = {
    "task": "tts",
    "codec.encoder.output_size": 16,
    "codec.encoder.linear_units": 32,
    "codec.encoder.num_blocks": 1,
    "codec.fsq_dims": 3,
    "flow.hidden_size": 16,
    "flow.num_blocks": 2,
    "flow.euler_steps": 3,
    "flow.griffin_lim_steps": 4,
}


_made: dict[str, tuple[NativeCodec, Tensor]] = {}


def native_codec(keys: dict[str, Any] | None = None, seed: int = 0) -> NativeCodec:
    """Return a copy of a fresh codec, which a process makes once; sets the random state it left."""
    key = repr((keys, seed))
    if key not in _made:
        _made[key] = fresh_codec(keys, seed), torch.get_rng_state()
    codec, state = _made[key]
    torch.set_rng_state(state)
    return copy.deepcopy(codec)


def fresh_codec(keys: dict[str, Any] | None = None, seed: int = 0) -> NativeCodec:
    """A random one whose tokens differ, and whose flow listens, as before training it does not."""
    torch.manual_seed(seed)
    settings = CodecSettings.of(tiny_config({**SIZES, **(keys or {})}))
    codec = NativeCodec(settings, Characters.of([" ".join(WORDS)])).eval()
    for block in codec.flow.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.3)
    torch.nn.init.normal_(codec.flow.output.weight, std=0.1)
    codec.fit_mel(waves())
    codec.quantiser.train()
    for _ in range(50):
        codec.encode(waves())
    codec.quantiser.eval()
    return codec


def waves() -> list[Tensor]:
    """From one sample to 1.2 s."""
    song = torch.from_numpy(sing(" ".join(WORDS[:8])))
    return [song[:n] for n in (19_200, 1, 11_333, 2_700, 500)]


def save_pretrained_codec(folder: Path, kind: str, seed: int = 0) -> None:
    """Writes a random codec to `folder`, as a hub holds it."""
    torch.manual_seed(seed)
    if kind == "mimi":
        sizes = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
        quantiser = {"codebook_size": 16, "codebook_dim": 8, "num_quantizers": 3}
        others = {"num_filters": 4, "upsample_groups": 32, "sliding_window": 20}
        width = {"vector_quantization_hidden_dimension": 8}
        config = MimiConfig(**sizes, **heads, **quantiser, **others, **width)
        model = MimiModel(config)
        for name, buffer in model.named_buffers():
            if name.endswith("embed_sum"):
                buffer.normal_()
        model.save_pretrained(folder)
    elif kind == "dac":
        DacModel(
            DacConfig(
                encoder_hidden_size=4,
                decoder_hidden_size=32,
                downsampling_ratios=[2, 4, 5, 8],
                upsampling_ratios=[8, 5, 4, 2],
                n_codebooks=3,
                codebook_size=16,
                codebook_dim=4,
                sampling_rate=16000,
            )
        ).save_pretrained(folder)
    else:
        semantic = Wav2Vec2BertConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            conv_depthwise_kernel_size=3,
            output_hidden_size=16,
        )
        named = (Xcodec2Config, Xcodec2Model, Xcodec2FeatureExtractor)
        if kind == "neucodec":
            named = (NeuCodecConfig, NeuCodecModel, NeuCodecFeatureExtractor)
        configuration, made, extractor = named
        config = configuration(
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            encoder_hidden_size=4,
            semantic_model_config=semantic,
            quantization_dim=48,
            quantization_levels=[4, 4],
        )
        model = made(config)
        for layer in (model.fc_encoder, model.quantizer.project_in):  # tokens that differ
            torch.nn.init.normal_(layer.weight)
        model.save_pretrained(folder)
        extractor().save_pretrained(folder)
