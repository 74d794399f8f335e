"""The sets of a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiorl.config.field import FOLDER, Rule, key, not_a_folder, repeated

if TYPE_CHECKING:
    from audiorl.config.schema import Config


@dataclass
class DataConfig:
    """The sets of a corpus (folders below data/ and dump/) and what is kept of them."""

    train: str = key("train", "set for the supervised warm start")
    dev: str = key("dev", "set that chooses the checkpoint of the warm start")
    rl: str = key("", "set that RL prompts are taken from; empty: the train set")
    rl_dev: str = key("", "set that chooses the checkpoint of RL; empty: the dev set")
    extra: list[str] = key(
        [], "further sets that stage 2 validates and formats: sources of rl_data.subsets, say"
    )
    test: list[str] = key([], "sets that are decoded and scored; never filtered")
    no_speech: list[str] = key(
        [], "sets without speech, of `test` and `extra`: any output there is a hallucination"
    )
    text_tag: str = key(
        "",
        "tag of utterances (file utt2<tag>) that is read in the place of text: pinyin, say",
        task="tts",
    )
    sample_rate: int = key(16000, "Hz; audio at another rate is resampled when read", ge=4000)
    min_duration: float = key(0.1, "s; shorter utterances are dropped from train and rl sets", ge=0)
    max_duration: float = key(30.0, "s; longer utterances are dropped from train and rl sets", gt=0)
    max_text_length: int = key(
        0, "characters; longer texts are dropped likewise; 0: no limit", ge=0
    )

    def rules(self, config: Config) -> Iterator[Rule]:
        """Yield the rules that the section breaks."""
        for name in ("train", "dev", "rl", "rl_dev"):
            value = getattr(self, name)
            optional = name.startswith("rl") and not value
            if not optional and not FOLDER.fullmatch(value):
                yield (f"data.{name}",), not_a_folder(value)
        for name in ("extra", "test", "no_speech"):
            values = getattr(self, name)
            for value in values:
                if not FOLDER.fullmatch(value):
                    yield (f"data.{name}",), not_a_folder(value)
            for value in repeated(values):
                yield (f"data.{name}",), f"names {value} twice; keep one"
        for value in self.no_speech:
            if value not in (*self.test, *self.extra):
                keys = ("data.no_speech", "data.test")
                yield keys, f"{value} is not one of data.test or data.extra; add it there"
        if self.min_duration >= self.max_duration:
            keys = ("data.max_duration", "data.min_duration")
            yield keys, f"must be above data.min_duration, {self.min_duration:g} s; raise it"
