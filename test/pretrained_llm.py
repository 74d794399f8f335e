"""A tiny "pretrained" LLM as a hub holds it: weights, config, tokenizer, generation defaults."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny import sentences
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast


def save_pretrained_llm(
    folder: Path,
    architecture: str,
    eos_token: str | None = "<|im_end|>",
    pad_token: str | None = "<|endoftext|>",
) -> None:
    """Writes a random LM and a byte-level BPE tokenizer with an audio placeholder to `folder`.

    As with real ones the embedding table has more rows than there are tokens, and the generation
    defaults are those of a chat model.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        sentences(100),
        trainers.BpeTrainer(vocab_size=280, special_tokens=special, initial_alphabet=alphabet),
    )
    core.add_special_tokens([AddedToken("<|audio|>", special=True)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=eos_token, pad_token=pad_token
    )
    tokenizer.save_pretrained(folder)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer) + 9,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        tie_word_embeddings=architecture == "qwen2",
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=None,
    )
    torch.manual_seed(5)
    lm = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        lm.get_input_embeddings().weight.mul_(20)
    lm.generation_config.repetition_penalty = 1.3
    lm.generation_config.do_sample = True
    lm.generation_config.top_k = 5
    lm.save_pretrained(folder)
