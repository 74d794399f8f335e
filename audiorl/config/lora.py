"""Low-rank adapters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from audiorl.config.field import Rule, key, repeated

if TYPE_CHECKING:
    from audiorl.config.schema import Config


@dataclass
class LoRAConfig:
    """Low-rank adapters, which learn in place of the weights of a part (LoRA, arXiv 2106.09685)."""

    rank: int = key(0, "rank of the adapters; 0: none, all weights of a part learn [r]", ge=0)
    alpha: int = key(32, "adapters are scaled by alpha / rank [lora_alpha]", ge=1)
    dropout: float = key(
        0.0,
        "dropout before adapters in the warm start; RL has none, since what samples is what learns "
        "[lora_dropout]",
        ge=0,
        lt=1,
    )
    targets: list[str] = key(
        ["llm"],
        "what gets adapters: a part's linear layers, the LM's head excepted, or only those of a "
        "name, `llm.q_proj` say; other parts of rl.train learn in full [target_modules]",
    )
    merge: bool = key(
        True,
        "add the adapters of RL to the weights in the model that is saved; false: save them alone, "
        "as peft does, beside the model that RL began with",
        resume=True,
    )

    def parts(self) -> list[str]:
        """Return the parts that get adapters."""
        return list(dict.fromkeys(target.partition(".")[0] for target in self.targets))

    def of_parts(self, names: set[str]) -> LoRAConfig:
        """Return the adapters of some parts alone; of rank 0 if there are none."""
        targets = [target for target in self.targets if target.partition(".")[0] in names]
        return replace(self, targets=targets, rank=self.rank if targets else 0)

    def makes_the_same(self, other: LoRAConfig) -> bool:
        """Return whether both make adapters of the same sizes at the same places."""
        return (self.rank, self.alpha, self.targets) == (other.rank, other.alpha, other.targets)

    def in_warm_start(self, config: Config) -> LoRAConfig:
        """Return the adapters of stage 3: of pretrained parts alone, since new ones have to learn.

        A speech LM learns all of its weights: most have rows of speech that are new to them.
        """
        if config.task == "tts":
            return self.of_parts(set())
        if config.model.pretrained:
            return self
        encoder = config.encoder.init or config.encoder.pretrained
        starts = {"llm": config.llm.pretrained, "encoder": encoder}
        return self.of_parts({part for part, start in starts.items() if start})

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        if not self.rank:
            return
        if not self.targets:
            yield ("lora.targets", "lora.rank"), "nothing would get adapters; name llm, say"
        for target in repeated(self.targets):
            yield ("lora.targets",), f"names {target} twice; keep one"
        learning = config.rl.train if config.task == "asr" else ["llm"]
        for part in self.parts():
            if part not in learning:
                keys = ("lora.targets", "rl.train") if config.task == "asr" else ("lora.targets",)
                reason = f"{part} does not learn in RL, so its adapters would not"
                yield keys, f"{reason}; name parts among {', '.join(learning)}"
            if part in self.targets and any(t.startswith(f"{part}.") for t in self.targets):
                yield ("lora.targets",), f"{part} has all its linear layers; take out {part}.*"
