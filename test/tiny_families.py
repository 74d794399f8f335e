"""Tiny random models of the pretrained families, written as the families' own folders."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
import transformers as T
from tiny import WORDS, sentences, sing
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.models.granite_speech.feature_extraction_granite_speech import (
    GraniteSpeechFeatureExtractor,
)
from transformers.models.phi4_multimodal.feature_extraction_phi4_multimodal import (
    Phi4MultimodalFeatureExtractor,
)

from audiorl.config.schema import Config
from audiorl.models.families.pretrained import PretrainedAudioLLM, pretrained_family
from audiorl.models.policy import find_policy

LM = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
WHISPER = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
}
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXTS = ["ba do", "ki lu me no pa", "ri"]


def byte_tokenizer(
    special: list[str], named: dict[str, str], eos: str, pad: str, first: list[str] = ()
) -> T.PreTrainedTokenizerFast:
    """Byte-level units of the sung language; `first` have the lowest ids."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280 + len(first),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, special=True) for token in first],
    )
    core.train_from_iterator([*sentences(50), " ".join(WORDS)], trainer)
    core.add_special_tokens([AddedToken(token, special=True) for token in special])
    return T.PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=eos, pad_token=pad, extra_special_tokens=named
    )


def lm_sizes(tokenizer: T.PreTrainedTokenizerFast, **others: object) -> dict:
    """As with real ones the table has more rows than there are tokens."""
    return {"vocab_size": len(tokenizer) + 9, **LM, **others}


def qwen2_audio() -> tuple:
    marks = ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|en|>"]
    tokenizer = byte_tokenizer([*CHAT, *marks], {}, "<|endoftext|>", "<|endoftext|>")
    processor = T.Qwen2AudioProcessor(T.WhisperFeatureExtractor(feature_size=128), tokenizer)
    config = T.Qwen2AudioConfig(
        audio_config=T.Qwen2AudioEncoderConfig(**WHISPER).to_dict(),
        text_config=T.Qwen2Config(**lm_sizes(tokenizer, tie_word_embeddings=False)).to_dict(),
        audio_token_index=processor.audio_token_id,
    )
    return T.Qwen2AudioForConditionalGeneration(config), processor


def qwen3_asr() -> tuple:
    names = {
        "audio_token": "<|audio_pad|>",
        "audio_bos_token": "<|audio_start|>",
        "audio_eos_token": "<|audio_end|>",
    }
    special = [*CHAT, *names.values(), "<asr_text>", "<timestamp>"]
    tokenizer = byte_tokenizer(special, names, "<|im_end|>", "<|endoftext|>")
    processor = T.Qwen3ASRProcessor(T.Qwen3ASRFeatureExtractor(), tokenizer)
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    config = T.Qwen3ASRConfig(
        audio_config={**WHISPER, "output_dim": 32, "downsample_hidden_size": 8},
        text_config=lm_sizes(tokenizer, model_type="qwen3", head_dim=8, tie_word_embeddings=True),
        audio_token_id=tokenizer.audio_token_id,
        eos_token_id=ends,
        pad_token_id=ends[0],
    )
    return T.Qwen3ASRForConditionalGeneration(config), processor


def qwen2_5_omni() -> tuple:
    names = omni_names("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|IMAGE|>", "<|VIDEO|>")
    tokenizer = byte_tokenizer([*CHAT, *names.values()], names, "<|im_end|>", "<|endoftext|>")
    config = T.Qwen2_5OmniThinkerConfig(
        audio_config={**WHISPER, "output_dim": 32},
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 4,
            "out_hidden_size": 32,
        },
        text_config=lm_sizes(tokenizer, tie_word_embeddings=False, rope_parameters=ROPE),
        audio_token_index=tokenizer.audio_token_id,
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
        audio_start_token_id=tokenizer.audio_bos_token_id,
        audio_end_token_id=tokenizer.audio_eos_token_id,
        vision_start_token_id=tokenizer.vision_bos_token_id,
    )
    processor = Both(tokenizer, T.WhisperFeatureExtractor(feature_size=128))
    return T.Qwen2_5OmniThinkerForConditionalGeneration(config), processor


def qwen3_omni() -> tuple:
    marks = ("<|audio_pad|>", "<|audio_start|>", "<|audio_end|>", "<|image_pad|>", "<|video_pad|>")
    names = omni_names(*marks)
    tokenizer = byte_tokenizer([*CHAT, *names.values()], names, "<|im_end|>", "<|endoftext|>")
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    rope = {**ROPE, "mrope_interleaved": True}
    config = T.Qwen3OmniMoeThinkerConfig(
        audio_config={**WHISPER, "output_dim": 32, "downsample_hidden_size": 8},
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 4,
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0],
        },
        text_config=lm_sizes(tokenizer, **experts, rope_parameters=rope),
        audio_token_id=tokenizer.audio_token_id,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        audio_start_token_id=tokenizer.audio_bos_token_id,
        vision_start_token_id=tokenizer.vision_bos_token_id,
    )
    processor = Both(tokenizer, T.WhisperFeatureExtractor(feature_size=128))
    return T.Qwen3OmniMoeThinkerForConditionalGeneration(config), processor


def fun_asr_nano() -> tuple:
    tokenizer = byte_tokenizer([*CHAT, "<|object_ref_start|>"], {}, "<|im_end|>", "<|endoftext|>")
    processor = T.FunAsrNanoProcessor(T.FunAsrNanoFeatureExtractor(), tokenizer)
    config = T.FunAsrNanoConfig(
        audio_config={
            "hidden_size": 32,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_timestamp_prediction_layers": 1,
        },
        adaptor_config={
            "hidden_size": 32,
            "num_attention_heads": 4,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "projector_hidden_size": 48,
        },
        text_config=lm_sizes(tokenizer, model_type="qwen3", head_dim=8, tie_word_embeddings=True),
        audio_token_id=processor.audio_token_id,
    )
    return T.FunAsrNanoForConditionalGeneration(config), processor


def glm_asr() -> tuple:
    special = ["<|endoftext|>", "<|user|>", "<|assistant|>"]
    marks = ["<|begin_of_audio|>", "<|end_of_audio|>", "<|pad|>"]
    tokenizer = byte_tokenizer([*special, *marks], {}, "<|endoftext|>", "<|endoftext|>")
    processor = T.GlmAsrProcessor(T.WhisperFeatureExtractor(feature_size=128), tokenizer)
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|user|>"])
    config = T.GlmAsrConfig(
        audio_config={**SIZES, "intermediate_size": 128},
        text_config=lm_sizes(tokenizer, model_type="llama", eos_token_id=ends),
        audio_token_id=processor.audio_token_id,
    )
    return T.GlmAsrForConditionalGeneration(config), processor


def voxtral() -> tuple:
    """Its control tokens have Tekken's ids."""
    control = {0: "<unk>", 1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]", 11: "<pad>"}
    control |= {24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 34: "[TRANSCRIBE]"}
    first = [control.get(place, f"<c{place}>") for place in range(35)]
    tokenizer = byte_tokenizer([], {}, "</s>", "<pad>", first)
    text = lm_sizes(tokenizer, model_type="llama", head_dim=8)
    config = T.VoxtralConfig(
        audio_config={**SIZES, "intermediate_size": 128}, text_config=text, audio_token_id=24
    )
    processor = Both(tokenizer, T.WhisperFeatureExtractor(feature_size=128))
    return T.VoxtralForConditionalGeneration(config), processor


def granite_speech() -> tuple:
    special = ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|audio|>"]
    tokenizer = byte_tokenizer(special, {}, "<|end_of_text|>", "<|end_of_text|>")
    processor = T.GraniteSpeechProcessor(GraniteSpeechFeatureExtractor(), tokenizer)
    config = T.GraniteSpeechConfig(
        encoder_config={
            "hidden_dim": 32,
            "num_layers": 2,
            "num_heads": 4,
            "output_dim": 42,
            "feedforward_mult": 2,
            "context_size": 200,
        },
        projector_config={
            "model_type": "blip_2_qformer",
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "encoder_hidden_size": 32,
            "cross_attention_frequency": 1,
        },
        text_config=lm_sizes(
            tokenizer,
            model_type="granite",
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
            embedding_multiplier=12.0,
            residual_multiplier=0.22,
            attention_multiplier=0.15,
            logits_scaling=8.0,
        ),
        audio_token_index=tokenizer.convert_tokens_to_ids("<|audio|>"),
        has_lora_adapter=False,
    )
    return T.GraniteSpeechForConditionalGeneration(config), processor


def audio_flamingo3() -> tuple:
    tokenizer = byte_tokenizer([*CHAT, "<sound>"], {}, "<|im_end|>", "<|endoftext|>")
    processor = T.AudioFlamingo3Processor(T.WhisperFeatureExtractor(feature_size=128), tokenizer)
    config = T.AudioFlamingo3Config(
        audio_config=SIZES,
        text_config=lm_sizes(tokenizer, model_type="qwen2", tie_word_embeddings=False),
        audio_token_id=processor.audio_token_id,
    )
    return T.AudioFlamingo3ForConditionalGeneration(config), processor


def phi4_multimodal() -> tuple:
    names = {"image_token": "<|endoftext10|>", "audio_token": "<|endoftext11|>"}
    special = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>", *names.values()]
    tokenizer = byte_tokenizer(special, names, "<|endoftext|>", "<|endoftext|>")
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4}
    config = T.Phi4MultimodalConfig(
        **lm_sizes(tokenizer, tie_word_embeddings=True),
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=[tokenizer.eos_token_id],
        vision_config={
            **sizes,
            "num_hidden_layers": 2,
            "crop_size": 28,
            "image_token_id": tokenizer.image_token_id,
        },
        audio_config={
            **sizes,
            "num_blocks": 2,
            "ext_pw_out_channel": 32,
            "depthwise_separable_out_channel": 32,
            "nemo_conv_channels": 16,
            "bias_max_distance": 100,
            "audio_token_id": tokenizer.audio_token_id,
        },
    )
    processor = Both(tokenizer, Phi4MultimodalFeatureExtractor())
    return T.Phi4MultimodalForCausalLM(config), processor


class Both:
    """A tokenizer and a feature extractor, of processors that need further packages."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def save_pretrained(self, folder: Path) -> None:
        for part in self.parts:
            part.save_pretrained(folder)


def omni_names(audio: str, begin: str, end: str, image: str, video: str) -> dict[str, str]:
    return {
        "audio_token": audio,
        "audio_bos_token": begin,
        "audio_eos_token": end,
        "image_token": image,
        "video_token": video,
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    }


BUILDERS = {
    build.__name__: build
    for build in (
        audio_flamingo3,
        fun_asr_nano,
        glm_asr,
        granite_speech,
        phi4_multimodal,
        qwen2_5_omni,
        qwen2_audio,
        qwen3_asr,
        qwen3_omni,
        voxtral,
    )
}


def save_family(name: str, folder: Path) -> None:
    """Write the folder of a family, as if it came from a hub."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model, processor = BUILDERS[name]()
        _spread(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _spread(model: T.PreTrainedModel) -> None:
    """Give weights a size at which logits differ; as they are made, all outputs are alike."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "position" in name:
                continue
            if parameter.dim() > 1:
                parameter.normal_(0, 1.5 / parameter[0].numel() ** 0.5)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.weight.normal_()


def load_family(folder: Path, prompt: str = "") -> PretrainedAudioLLM:
    """Return the policy of a folder, as a recipe that names it makes it."""
    config = Config()
    config.model.pretrained, config.llm.prompt = str(folder), prompt
    return find_policy(pretrained_family(str(folder))).create(config, []).eval()


@functools.cache
def waves() -> list[np.ndarray]:
    """Audio of 1.5, 2.7 and 0.6 s."""
    return [
        np.tile(sing(text), 5)[:length]
        for text, length in zip(TEXTS, (24000, 43200, 9600), strict=True)
    ]


def heard() -> list[torch.Tensor]:
    return [torch.from_numpy(wave) for wave in waves()]


def logits(model: PretrainedAudioLLM, hf: T.PreTrainedModel) -> list[torch.Tensor]:
    """Logits of a transcript by the policy, and by a model of transformers."""
    tokens, _ = model.responses(TEXTS[:1])
    states = model.llm.response_states(model.prefix(model.encode(heard()[:1])), tokens, False)
    inputs = model.inputs([model._text], [heard()[0].numpy()])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], tokens[:, :-1]], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    own = hf(**inputs).logits[0, -tokens.size(1) :]
    return [model.llm.logits(states[0]), own / model.llm.scale]
