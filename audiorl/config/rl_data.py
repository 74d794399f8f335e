"""The RL set: its subsets and the keywords of utterances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiorl.config.data import DataConfig
from audiorl.config.field import FOLDER, Rule, key, not_a_folder, repeated

if TYPE_CHECKING:
    from audiorl.config.schema import Config


@dataclass
class SubsetConfig:
    """A part of the RL set: what is in it, how much, and how often it is drawn."""

    kind: str = key(
        "random",
        "random (the paper's D0); hard (D1): systems disagree, or repeat themselves; long, short "
        "(D2): by duration; keyword (D3): most keywords; hallucination: output that is not in the "
        "audio, or audio without speech; ordinary: low error, against forgetting",
        choices=("random", "hard", "long", "short", "keyword", "hallucination", "ordinary"),
    )
    name: str = key("", "in tables and in each item; empty: its kind")
    size: int = key(0, "utterances, those with the most of its kind; 0: all that qualify", ge=0)
    weight: float = key(1.0, "share of the prompts, relative to the other subsets'", gt=0)
    source: str = key("", "set that it is taken from; empty: data.rl (ordinary: data.train)")
    min_duration: float = key(0.0, "s; shorter ones do not qualify", ge=0)
    max_duration: float = key(0.0, "s; longer ones do not qualify; 0: no limit", ge=0)
    min_error: float = key(0.0, "error rate of the greedy hypothesis; less does not qualify", ge=0)
    max_error: float = key(0.0, "more does not qualify; 0: no limit (ordinary: 0.1)", ge=0)

    @property
    def label(self) -> str:
        """Its name."""
        return self.name or self.kind

    @property
    def highest_error(self) -> float:
        """`max_error`, as its kind reads it."""
        return self.max_error or (0.1 if self.kind == "ordinary" else float("inf"))

    @property
    def longest(self) -> float:
        """`max_duration` in s."""
        return self.max_duration or float("inf")

    def source_in(self, data: DataConfig) -> str:
        """The set that it is taken from."""
        return self.source or (data.train if self.kind == "ordinary" else data.rl or data.train)

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each rule that the subset breaks."""
        if not FOLDER.fullmatch(self.label):
            yield "a name may hold letters, digits and . _ + - only; fix it"
        if self.source and not FOLDER.fullmatch(self.source):
            yield f"source {not_a_folder(self.source)}"
        if self.min_duration >= self.longest:
            yield f"max_duration must be above {self.min_duration:g} s; raise it"
        if self.min_error > self.highest_error:
            yield f"max_error is {self.highest_error:g}, below min_error; raise it"


@dataclass
class RLDataConfig:
    """The RL set (stage 4)."""

    subsets: list[SubsetConfig] = key(
        [], "what it is made of, with the keys that egs/README.md lists; empty: all of data.rl"
    )
    disjoint: bool = key(
        False, "an utterance is in the first subset that takes it, so that sizes add up"
    )
    drop_flat: bool = key(
        False,
        "leave out utterances whose sampled hypotheses all earn the same: they have no gradient "
        "(ordinary subsets keep them)",
    )
    probe_utterances: int = key(
        0, "utterances of each set that are probed, drawn at random; 0: all", ge=0
    )
    hypotheses: list[str] = key(
        [],
        "further systems, which hard compares: Kaldi `text` files, or folders of recognisers; "
        "empty: it compares the policy's greedy hypothesis with its samples",
    )
    keywords: str = key(
        "given",
        "those of utt2keywords; or found: an utterance without any gets the words that are rare in "
        "the background, neighbours joined",
        choices=("given", "found"),
    )
    background: str = key(
        "", "of found: text file, a list of common words say; empty: data.train's transcripts"
    )

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        held_out = {config.data.dev, config.data.rl_dev, *config.data.test}
        for label in repeated([subset.label for subset in self.subsets]):
            yield ("rl_data.subsets",), f"names {label} twice; give one of them another name"
        for subset in self.subsets:
            for message in subset.problems():
                yield ("rl_data.subsets",), f"{subset.label}: {message}"
            if (source := subset.source_in(config.data)) in held_out:
                keys = ("rl_data.subsets", "data.dev", "data.rl_dev", "data.test")
                message = f"{subset.label} is taken from {source}, which is held out; name another"
                yield keys, message
        if self.hypotheses and not any(s.kind == "hard" for s in self.subsets):
            reason = "only subsets of kind hard compare systems, and there is none"
            yield ("rl_data.hypotheses", "rl_data.subsets"), f"{reason}; add one or remove the key"
        if self.background and self.keywords != "found":
            keys = ("rl_data.background", "rl_data.keywords")
            yield keys, "serves to find keywords, and they are given; set keywords: found"
