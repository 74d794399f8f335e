"""From text to speech tokens: the sampling of evaluations and of stage 6."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from audiorl.config.decoding import DecodeConfig
from audiorl.data.utterance import Utterance
from audiorl.engines.engine import Draws, Engine
from audiorl.engines.native import PolicyEngine
from audiorl.engines.sampling import Sampling
from audiorl.runtime import ranks
from audiorl.runtime.files import progress
from audiorl.runtime.sharding import whole

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spoken:
    """Speech of an utterance by the speech LM."""

    tokens: list[int]  # the codec's
    finished: bool  # False if the length limit cut it


# What `speech_sampling` follows from in a config: beginnings of keys.
SAMPLING = ("decode.temperature", "decode.top_", "decode.repetition_")


def speech_sampling(decode: DecodeConfig) -> Sampling:
    """Return the sampling of evaluations and of stage 6; RL has its own."""
    return Sampling(
        decode.temperature,
        decode.top_k,
        decode.top_p,
        repetition_window=decode.repetition_window,
        repetition_share=decode.repetition_share,
    )


@torch.no_grad()
def speak(
    engine: Engine,
    utterances: Sequence[Utterance],
    decode: DecodeConfig,
    seed: int,
    desc: str = "synthesis",
) -> dict[str, Spoken]:
    """Return the speech of texts by utterance id; its draws follow from id and `seed`.

    Of several processes each takes some of the batches, and returns the speech of all.
    """
    model, sampling = engine.policy, speech_sampling(decode)
    if sampling.repetition_window and not engine.repetition_aware:
        log.info("%s is sampled by the native engine: decode.repetition_window is set", desc)
        engine = PolicyEngine(model)
    training = model.training
    model.eval()
    spoken: dict[str, Spoken] = {}
    # Texts of like length end at about the same time: few rows wait for the last.
    ordered = sorted(utterances, key=lambda u: (-len(u.text), u.id))
    with progress(desc=desc, total=len(ordered), unit="utt") as bar, whole(model):
        for first in ranks.dealt(range(0, len(ordered), decode.batch_size)):
            batch = ordered[first : first + decode.batch_size]
            ids = [u.id for u in batch]
            rollout = engine.generate(
                model.prefix(model.encode(batch)),
                group=1,
                max_length=decode.max_completion_length,
                sampling=sampling,
                draws=Draws(seed, 0, ids),
            )
            rows = zip(ids, rollout.tokens, rollout.finished.tolist(), strict=True)
            spoken |= {name: Spoken(model.speech_tokens(row), done) for name, row, done in rows}
            bar.update(len(batch))
    model.train(training)
    return ranks.merged(spoken)
