"""Pool of an RL set: the utterances of its sources that no held-out set has."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiorl.config.pretrained import is_hub_name
from audiorl.config.rl_data import SubsetConfig
from audiorl.config.schema import Config
from audiorl.data.tables import read_table
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.infer.hearing import load_judge, transcribe_recordings
from audiorl.rl_data.keywords import find_keywords
from audiorl.runtime.device import pick_device
from audiorl.text.normalise import normalizer

CLOSED = 0.9  # share of texts in dev or test above which a set says nothing else


def subsets_of(config: Config) -> list[SubsetConfig]:
    """`rl_data.subsets`; where there are none, one with all of data.rl, named after it."""
    source = config.data.rl or config.data.train
    return config.rl_data.subsets or [SubsetConfig(name=source)]


def held_out_sets(config: Config) -> list[str]:
    """The dev and test sets, by name."""
    return sorted({config.data.dev, config.data.rl_dev, *config.data.test} - {""})


def read_pool(config: Config, dump: Path) -> dict[str, list[Utterance]]:
    """The utterances of each source that are not held out, sorted by id.

    At most `rl_data.probe_utterances` of each, with their keywords. Raises UserError if none is
    left of a source, or if two sources differ in an utterance.
    """
    held_out = _HeldOut(config, dump)
    pool: dict[str, list[Utterance]] = {}
    known: dict[str, Utterance] = {}
    for source in dict.fromkeys(subset.source_in(config.data) for subset in subsets_of(config)):
        utterances = _some(held_out.without(_read(config, dump, source), source), config, source)
        if not utterances:
            raise UserError(f"{dump / source}: no utterance is left for RL; read the counts above.")
        if config.rl_data.keywords == "found":
            utterances = find_keywords(utterances, config, dump)
        for u in utterances:
            if known.setdefault(u.id, u) != u:
                raise UserError(
                    f"{dump / source}: {u.id} is another utterance than in an earlier source of "
                    "rl_data.subsets; give them ids of their own."
                )
        pool[source] = utterances
    return pool


def _read(config: Config, dump: Path, name: str) -> list[Utterance]:
    return read_utterances(dump / name, texts_alone=config.speaks)


class _HeldOut:
    """The ids and texts of all dev and test sets."""

    def __init__(self, config: Config, dump: Path) -> None:
        self.share_by_id = 1.0 if config.speaks else CLOSED
        self.clean = normalizer(config.score.normalizer)
        utterances = [u for name in held_out_sets(config) for u in _read(config, dump, name)]
        self.ids = {u.id for u in utterances}
        self.texts = {self.clean(u.text) for u in utterances} - {""}

    def without(self, utterances: Sequence[Utterance], source: str) -> list[Utterance]:
        """The utterances that are in none of them by id, nor by text as it is scored.

        By id alone for recognition of a closed set of phrases: new recordings are its test.
        """
        why = {u.id: self._reason(u) for u in utterances}
        count = Counter(why.values())
        closed = count["text"] > self.share_by_id * len(utterances)
        kept = [u for u in utterances if why[u.id] in (("", "text") if closed else ("",))]
        print(
            f"kept {len(kept)} of {len(utterances)} utterances of {source} ({count['id']} are in "
            f"dev or test by id, {count['text']} by text"
            + (
                ", as nearly all are: a closed set, which leaves none of these out)"
                if closed
                else ")"
            )
        )
        return kept

    def _reason(self, utterance: Utterance) -> str:
        if utterance.id in self.ids:
            return "id"
        return "text" if self.clean(utterance.text) in self.texts else ""


def _some(utterances: list[Utterance], config: Config, source: str) -> list[Utterance]:
    most = config.rl_data.probe_utterances or len(utterances)
    if most >= len(utterances):
        return utterances
    print(f"kept {most} of {len(utterances)} of {source} (rl_data.probe_utterances)")
    rng = np.random.default_rng([config.seed, zlib.crc32(source.encode())])
    chosen = rng.choice(len(utterances), most, replace=False)
    return [utterances[i] for i in sorted(chosen)]


def read_hypotheses(config: Config, pool: dict[str, list[Utterance]]) -> list[dict[str, str]]:
    """Return the hypotheses of each further system, by id: read, or those of a model in a folder.

    Raises UserError if a file is missing, or says nothing about an utterance that a hard subset may
    take.
    """
    hard = [s.source_in(config.data) for s in subsets_of(config) if s.kind == "hard"]
    compared = {u.id: u for source in dict.fromkeys(hard) for u in pool[source]}
    wanted = list(compared)
    systems = []
    for path in map(Path, config.rl_data.hypotheses):
        if path.is_dir() or is_hub_name(path):
            model = load_judge(path, str(pick_device(config.device)), config)
            seconds, utterances = config.decode.batch_seconds, list(compared.values())
            systems.append(transcribe_recordings(model, utterances, seconds, str(path)))
            continue
        if not path.is_file():
            raise UserError(
                f"rl_data.hypotheses: {path} does not exist; name the `text` file that a system's "
                "decoding wrote."
            )
        texts = read_table(path)
        if missing := [name for name in wanted if name not in texts]:
            raise UserError(
                f"{path} has no hypothesis of {missing[0]} ({len(missing)} of {len(wanted)} are "
                "missing); decode the whole set with that system."
            )
        systems.append(texts)
    return systems
