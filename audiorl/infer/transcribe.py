"""From audio to hypotheses: the decoding of evaluations and of stage 6."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from audiorl.config.schema import Config
from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance
from audiorl.engines.beam import beam_search
from audiorl.engines.engine import Engine
from audiorl.engines.sampling import Sampling
from audiorl.errors import UserError
from audiorl.infer.fallback import with_fallback
from audiorl.infer.hypothesis import Hypothesis
from audiorl.models.language_model import Prefix
from audiorl.models.recogniser import Recogniser
from audiorl.runtime import ranks
from audiorl.runtime.batching import shown_batches
from audiorl.runtime.device import free_memory
from audiorl.runtime.sharding import whole

GIGABYTE = 1e9


@torch.no_grad()
def encode_utterances(model: Recogniser, utterances: Sequence[Utterance]) -> list[torch.Tensor]:
    """Return the condition [T_i, D] of each utterance, read from its audio."""
    return model.encode([torch.from_numpy(read_audio(u, model.sample_rate)) for u in utterances])


def asked(config: Config) -> dict[str, int | float | None]:
    """Return the arguments of `transcribe` that a config's `decode` asks for."""
    keys = config.decode
    return {
        "max_length": keys.max_completion_length,
        "batch_seconds": keys.batch_seconds,
        "num_beams": keys.num_beams if keys.method == "nbest" else 1,
        "fallback_seed": config.seed if keys.method == "fallback" else None,
    }


@torch.no_grad()
def transcribe(
    engine: Engine,
    utterances: Sequence[Utterance],
    *,
    max_length: int,
    batch_seconds: float = 200.0,
    num_beams: int = 1,
    fallback_seed: int | None = None,
    desc: str = "decoding",
    cache: dict[str, torch.Tensor] | None = None,
) -> dict[str, list[Hypothesis]]:
    """Return hypotheses by utterance id, best first: one greedily, or `num_beams` by beam search.

    With a `fallback_seed`, what is greedily found and looks wrong is drawn again (`fallback`).

    `cache` keeps the condition [T_i, D] of each utterance from one call to the next, for an encoder
    that does not change. Raises UserError before the first batch if memory would end. Of several
    processes each takes some of the batches, and returns the hypotheses of all.
    """
    model = engine.policy
    _refuse_too_long(model, utterances, batch_seconds)
    training = model.training
    model.eval()
    hypotheses: dict[str, list[Hypothesis]] = {}
    with whole(model):
        for batch in ranks.dealt(shown_batches(desc, utterances, batch_seconds)):
            if cache is None:
                frames = encode_utterances(model, batch)
            else:
                if batch[0].id not in cache:
                    encoded = encode_utterances(model, batch)
                    cache |= {u.id: f.cpu().clone() for u, f in zip(batch, encoded, strict=True)}
                frames = [cache[u.id] for u in batch]
            prefix = model.prefix(frames)
            if num_beams > 1:
                found = _beams(model, prefix, max_length, num_beams)
            else:
                ids = [u.id for u in batch]
                best = (
                    greedy(engine, prefix, max_length)
                    if fallback_seed is None
                    else with_fallback(engine, prefix, ids, max_length, fallback_seed)
                )
                found = [[one] for one in best]
            hypotheses |= {u.id: listed for u, listed in zip(batch, found, strict=True)}
    model.train(training)
    return ranks.merged(hypotheses)


def _refuse_too_long(
    model: Recogniser, utterances: Sequence[Utterance], batch_seconds: float
) -> None:
    """Raise UserError if an utterance needs more memory to be encoded than there is."""
    longest = max(utterances, key=lambda u: u.duration)
    count = max(1, batch_seconds // longest.duration)
    needed, free = count * model.encoding_bytes(longest.duration), free_memory(model.device)
    if needed > free:
        raise UserError(
            f"{longest.id} lasts {longest.duration:.0f} s, and to encode it takes about "
            f"{needed / GIGABYTE:.1f} GB of memory where {free / GIGABYTE:.1f} GB are free; set "
            "decode.window_seconds (30, say: it is cut at pauses), or cut the set with `segments`."
        )


@torch.no_grad()
def greedy(engine: Engine, prefix: Prefix, max_length: int) -> list[Hypothesis]:
    """Return the hypothesis of the likeliest token each time, for each prefix."""
    sampling = Sampling(greedy=True)
    rollout = engine.generate(prefix, group=1, max_length=max_length, sampling=sampling)
    tokenizer = engine.policy.tokenizer
    rows = zip(
        rollout.tokens, rollout.mask, rollout.logps.sum(1).tolist(), rollout.finished.tolist(),
        strict=True,
    )  # fmt: skip
    return [
        Hypothesis(tokenizer.decode(tokens[mask].tolist()), logp, finished)
        for tokens, mask, logp, finished in rows
    ]


def _beams(
    model: Recogniser, prefix: Prefix, max_length: int, num_beams: int
) -> list[list[Hypothesis]]:
    found = beam_search(model, prefix, beams=num_beams, max_length=max_length)
    return [
        [Hypothesis(model.tokenizer.decode(r.ids), r.logp, r.finished) for r in responses]
        for responses in found
    ]
