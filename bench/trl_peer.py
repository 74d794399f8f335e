"""The process in which a step of TRL's GRPOTrainer is timed; runs in an environment of its own.

Its settings are the fastest that it has on a CPU: fp32, no reference model (`beta` 0), one update
per rollout, no gradient checkpointing, a cache in generation.
"""

from __future__ import annotations

import random
import sys
import tempfile

import torch
import trl
from datasets import Dataset
from link import Clock, Link, peak_memory
from shapes import Shape
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

PAD, EOS = 0, 1


def words(vocab: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are numbers."""
    names = {"<pad>": PAD, "<end>": EOS, **{str(i): i for i in range(2, vocab)}}
    tokenizer = Tokenizer(WordLevel(names, unk_token="<pad>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", padding_side="left"
    )


def prompts(shape: Shape, count: int = 200) -> Dataset:
    draw = random.Random(0)
    texts = [
        " ".join(str(draw.randrange(2, shape.vocab)) for _ in range(shape.prefix))
        for _ in range(count)
    ]
    return Dataset.from_dict({"prompt": texts})


def small_lm(shape: Shape) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=shape.vocab,
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            head_dim=shape.hidden // shape.heads,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
    )


class Timed(TrainerCallback):
    """Waits for a request before each step, and replies with what the step took and read."""

    def __init__(self, link: Link, shape: Shape) -> None:
        self.link = link
        self.shape = shape
        self.start = peak_memory()
        self.tokens = 0  # of the completions of this step

    def mean_word(self, completion_ids: list[list[int]], **_) -> list[float]:
        """The reward: costs nothing, and differs between the completions of a group."""
        self.tokens += sum(map(len, completion_ids))
        return [sum(row) / len(row) for row in completion_ids]

    def on_step_begin(self, args, state, control, **_) -> None:
        if self.link.receive() is None:
            sys.exit(0)
        self.tokens, self._seen = 0, state.num_input_tokens_seen
        self._clock = Clock()

    def on_step_end(self, args, state, control, **_) -> None:
        seconds = self._clock.read()
        read = state.num_input_tokens_seen - self._seen  # prompts and completions
        self.link.send(
            {
                **seconds,
                "tokens": self.tokens,
                "prefix": (read - self.tokens) / self.shape.rows,
                "start": self.start,
                "peak": peak_memory(),
            }
        )


def main() -> None:
    link = Link()
    request = link.receive()
    shape = Shape(**request["shape"])
    torch.set_num_threads(request["threads"])
    model = small_lm(shape)
    sequences = min(shape.rows, request["sequences"])
    timed = Timed(link, shape)
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=sequences,
            gradient_accumulation_steps=shape.rows // sequences,
            num_generations=shape.group,
            max_completion_length=shape.completion,
            generation_kwargs={"suppress_tokens": [PAD, EOS]},
            temperature=1.0,
            beta=0.0,
            num_iterations=1,
            loss_type="dapo",
            learning_rate=1e-4,
            max_grad_norm=1.0,
            lr_scheduler_type="constant",
            max_steps=10**6,
            logging_steps=10**6,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=model,
            args=config,
            reward_funcs=timed.mean_word,
            train_dataset=prompts(shape),
            processing_class=words(shape.vocab),
            callbacks=[timed],
        )
        parameters = sum(p.numel() for p in model.parameters())
        link.send({"parameters": parameters, "version": f"TRL {trl.__version__}"})
        trainer.train()


if __name__ == "__main__":
    main()
