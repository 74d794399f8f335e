"""Several processes that share the work of a program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiorl.config.field import Rule, key

if TYPE_CHECKING:
    from audiorl.config.schema import Config

PRECISIONS = ("float32", "bfloat16")


@dataclass
class ParallelismConfig:
    """Processes of `run.sh --ngpu` or `--num_processes`; keys are torchtitan's."""

    data_parallel_shard_degree: int = key(
        1,
        "processes that share one copy of the weights that stages 3 and 5 train; 1: each has its "
        "own; -1: all share one (FSDP2)",
        ge=-1,
        le=1,
        resume=True,
    )
    fsdp_reshard_after_forward: str = key(
        "never",
        "when shared weights are given back: never, after each update; always, after each pass of "
        "each layer, for weights that do not fit as a whole",
        choices=("never", "always"),
        resume=True,
    )
    mixed_precision_param: str = key(
        "float32", "type that layers with shared fp32 weights compute in", choices=PRECISIONS
    )
    mixed_precision_reduce: str = key(
        "float32", "type that gradients of shared weights are added in", choices=PRECISIONS
    )
    timeout_seconds: float = key(
        1800.0, "wait that long for another process [comm.train_timeout_seconds]", gt=0, resume=True
    )

    @property
    def shards(self) -> bool:
        """Whether processes share one copy of the weights."""
        return self.data_parallel_shard_degree == -1

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        degree = "parallelism.data_parallel_shard_degree"
        if self.data_parallel_shard_degree == 0:
            yield (degree,), "no process would have the weights; set 1 or -1"
        if self.shards and config.rl.placement == "alternate":
            keys = ("rl.placement", degree)
            yield keys, "weights that processes share stay where they are; set together, or 1 here"
        if self.shards and config.lora.rank:
            reason = "adapters are not shared, and their base is whole in each process"
            yield ("lora.rank", degree), f"{reason}; set 0, or {degree}: 1"
        if self.shards and config.llm.dtype != "float32":
            reason = "weights that processes share are kept in fp32"
            half = "parallelism.mixed_precision_param: bfloat16 to compute in bf16"
            yield ("llm.dtype", degree), f"{reason}; set float32, and {half}, or {degree}: 1"
        if self.shards and config.sft.schedule.muon_learning_rate:
            keys = ("sft.schedule.muon_learning_rate", degree)
            yield keys, "Muon moves whole matrices, which no process has; set 0, or 1 here"
