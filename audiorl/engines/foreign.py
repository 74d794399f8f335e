"""Engines that are programs of their own: a worker in another Python gets embeddings and weights.

Its log-probabilities are never quite the policy's; `rl/mismatch.py` measures by how much.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from audiorl.config.rl import RLConfig
from audiorl.engines.engine import Draws, Engine, Rollout
from audiorl.engines.sampling import Sampling
from audiorl.engines.server import Server
from audiorl.errors import UserError
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.models.lora import merged_weights
from audiorl.models.policy import Policy
from audiorl.runtime.line_server import LineServer

log = logging.getLogger(__name__)

WORKERS = Path(__file__).parent / "workers"
MOST_POSITIONS = 8192  # tokens of prefix and response
SILENT_SECONDS = 300.0  # s without a sign of life
LOADING_SECONDS = 1800.0  # s; a GPU compiles first
MEMORY_SHARES = {"resident": 0.45, "alternate": 0.9}  # of the free memory of a GPU


class ForeignEngine(Engine):
    """The client of a worker; a subclass names its script."""

    exact = False
    name: ClassVar[str]  # of the engine, and of its environment in tools/engines
    script: ClassVar[Path]
    dtypes = (torch.float32, torch.bfloat16)  # of embeddings that it reads

    def __init__(self, policy: Policy, rl: RLConfig) -> None:
        super().__init__(policy, rl)
        lm = policy.llm
        dtype = lm.lm_head.weight.dtype
        if dtype not in self.dtypes:
            known = " and ".join(str(known).removeprefix("torch.") for known in self.dtypes)
            raise UserError(
                f"rl.engine: {self.name} reads embeddings in {known} alone; set llm.dtype to it, "
                "or native."
            )
        self.longest = min(
            MOST_POSITIONS, getattr(lm.config, "max_position_embeddings", MOST_POSITIONS)
        )
        shape = model_shape(lm, self.name)
        self.link = self._start(rl)
        facts, _ = self.link.call(
            "load",
            model=shape,
            dtype=str(dtype).removeprefix("torch."),
            max_model_len=self.longest,
            share=MEMORY_SHARES[rl.placement],
            sleeps=rl.placement == "alternate",
        )
        self.link.timeout = SILENT_SECONDS
        self.can_sleep = facts["sleeps"]
        self.is_asleep, self.is_stale = False, True
        log.info("responses are sampled by %s", facts["version"])

    def _start(self, rl: RLConfig) -> LineServer | Server:
        if rl.engine_url:
            return Server(self.name, rl.engine_url, LOADING_SECONDS)
        python = rl.python_of(self.name)
        if not Path(python).exists():
            raise UserError(
                f"rl.engine_python: there is no {python}; install the engine with "
                f"tools/install_engine.sh {self.name} (--cpu without a GPU)."
            )
        # -E: what PYTHONPATH names is for the trainer's Python.
        command = [python, "-E", str(self.script), f"--parent={os.getpid()}"]
        threads = os.environ.get("OMP_NUM_THREADS", str(torch.get_num_threads()))
        return LineServer(self.name, command, LOADING_SECONDS, {"OMP_NUM_THREADS": threads})

    @torch.no_grad()
    def generate(
        self,
        prefix: Prefix,
        *,
        group: int,
        max_length: int,
        sampling: Sampling,
        draws: Draws | None = None,
        with_greedy: bool = False,
    ) -> Rollout:
        self._refuse(prefix, max_length, sampling)
        self.wake()
        if self.is_stale:
            self.sync()
        sampled = 0 if sampling.greedy else group
        rows = [embeds[mask] for embeds, mask in zip(prefix.embeds, prefix.mask, strict=True)]
        _, made = self.link.call(
            "generate",
            {"embeds": torch.cat(rows).cpu(), "lengths": prefix.lengths.cpu()},
            group=sampled,
            greedy=sampling.greedy or with_greedy,
            max_length=max_length,
            stops=list(self.policy.stop_ids),
            forbidden=self.policy.forbidden.nonzero().flatten().tolist(),
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            seeds=draws.seeds() if sampled else [0] * len(rows),
        )
        rollout = self._rollout(made)
        if sampling.greedy and group > 1:
            return rollout.select([i for i in range(len(rollout)) for _ in range(group)])
        return rollout

    def _rollout(self, made: dict[str, Tensor]) -> Rollout:
        made = {name: tensor.to(self.policy.device) for name, tensor in made.items()}
        tokens, lengths = made["tokens"], made["lengths"]
        mask = torch.arange(tokens.size(1), device=tokens.device) < lengths[:, None]
        stops = torch.tensor(self.policy.stop_ids, device=tokens.device)
        last = tokens.gather(1, lengths[:, None] - 1).squeeze(1)
        padded = tokens.masked_fill(~mask, self.policy.pad_id)
        return Rollout(padded, mask, made["logps"], torch.isin(last, stops))

    def sync(self) -> None:
        """Send all weights, adapters merged; what sleeps takes them when it wakes."""
        self.is_stale = True
        if not self.is_asleep:
            weights = {n: w.cpu() for n, w in merged_weights(self.policy.llm)}
            self.link.call("sync", weights)
            self.is_stale = False

    def sleep(self) -> None:
        if self.can_sleep and not self.is_asleep:
            self.link.call("sleep")
            self.is_asleep = self.is_stale = True

    def wake(self) -> None:
        if self.is_asleep:
            self.link.call("wake")
            self.is_asleep = False

    def close(self) -> None:
        self.link.close()

    def _refuse(self, prefix: Prefix, max_length: int, sampling: Sampling) -> None:
        counted = (prefix.mask.cumsum(1) - 1).clamp(min=0)
        length = int(prefix.lengths.max()) + max_length
        if prefix.memory is not None:
            why = "cannot continue a decoder with cross attention"
        elif (prefix.positions() != counted)[prefix.mask].any():
            why = f"counts positions, and a {self.policy.family} does otherwise"
        elif sampling.repetition_window:
            why = "has no repetition-aware sampling (decode.repetition_window: 0 turns it off)"
        elif not self.truncates and (sampling.top_k or sampling.top_p < 1):
            why = "gives no log-probabilities of top_k and top_p (0 and 1 turn them off)"
        elif length > self.longest:
            why = f"reads {self.longest} tokens at most, and prefix and response may have {length}"
        else:
            return
        raise UserError(f"rl.engine: {self.name} {why}; set native.")


def model_shape(lm: LanguageModel, engine: str) -> dict[str, Any]:
    """Return the config.json of a causal LM of these weights; UserError if it has none."""
    kind = lm.config.model_type
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or lm.lm_head.bias is not None:
        raise UserError(
            f"rl.engine: {engine} does not know the language model of this policy ({kind}, its "
            "head, or both); set native."
        )
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    tied = lm.lm_head.weight is lm.model.get_input_embeddings().weight
    return {
        **json.loads(lm.config.to_json_string(use_diff=False)),
        "architectures": [architecture],
        "vocab_size": lm.vocab_size,
        "eos_token_id": None,  # each request names its stop ids
        "tie_word_embeddings": tied,
    }
