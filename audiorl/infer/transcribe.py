"""From audio to hypotheses: the decoding of evaluations and of stage 6."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance
from audiorl.engines.beam import beam_search
from audiorl.engines.native import generate
from audiorl.engines.sampling import Sampling
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.language_model import Prefix
from audiorl.runtime.batching import batches_by_seconds
from audiorl.runtime.files import progress


@dataclass
class Hypothesis:
    """What the model says an utterance is."""

    text: str
    logp: float  # of the whole response, natural logarithm
    finished: bool  # False if the length limit cut it


@torch.no_grad()
def encode_utterances(model: AudioLLM, utterances: Sequence[Utterance]) -> list[torch.Tensor]:
    """Encoder frames [T_i, D] of each utterance."""
    rate = model.config.data.sample_rate
    return model.encode([torch.from_numpy(read_audio(u, rate)) for u in utterances])


@torch.no_grad()
def transcribe(
    model: AudioLLM,
    utterances: Sequence[Utterance],
    *,
    max_length: int,
    batch_seconds: float = 200.0,
    num_beams: int = 1,
    desc: str = "decoding",
    heard: dict[str, torch.Tensor] | None = None,
) -> dict[str, list[Hypothesis]]:
    """Hypotheses by utterance id, best first: one greedily, or `num_beams` by beam search.

    `heard` keeps the frames [T_i, D] of each utterance from one call to the next, for an encoder
    that does not change.
    """
    training = model.training
    model.eval()
    hypotheses: dict[str, list[Hypothesis]] = {}
    with progress(desc=desc, total=len(utterances), unit="utt") as bar:
        for batch in batches_by_seconds(utterances, batch_seconds):
            if heard is None:
                frames = encode_utterances(model, batch)
            else:
                if batch[0].id not in heard:
                    encoded = encode_utterances(model, batch)
                    heard |= {u.id: f.cpu().clone() for u, f in zip(batch, encoded, strict=True)}
                frames = [heard[u.id] for u in batch]
            prefix = model.prefix(frames)
            if num_beams == 1:
                listed = [[best] for best in greedy(model, prefix, max_length)]
            else:
                listed = _beams(model, prefix, max_length, num_beams)
            hypotheses |= {u.id: found for u, found in zip(batch, listed, strict=True)}
            bar.update(len(batch))
    model.train(training)
    return hypotheses


@torch.no_grad()
def greedy(model: AudioLLM, prefix: Prefix, max_length: int) -> list[Hypothesis]:
    """The likeliest token each time, for each prefix."""
    tokenizer = model.tokenizer
    rollout = generate(
        model.llm,
        prefix,
        group=1,
        max_length=max_length,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        forbidden=model.forbidden,
        sampling=Sampling(greedy=True),
    )
    texts = [
        tokenizer.decode(row[m].tolist())
        for row, m in zip(rollout.tokens, rollout.mask, strict=True)
    ]
    scores = rollout.logps.sum(1).tolist()
    found = zip(texts, scores, rollout.finished.tolist(), strict=True)
    return [Hypothesis(text, logp, finished) for text, logp, finished in found]


def _beams(
    model: AudioLLM, prefix: Prefix, max_length: int, num_beams: int
) -> list[list[Hypothesis]]:
    tokenizer = model.tokenizer
    found = beam_search(
        model.llm,
        prefix,
        beams=num_beams,
        max_length=max_length,
        eos_id=tokenizer.eos_id,
        forbidden=model.forbidden,
    )
    return [
        [Hypothesis(tokenizer.decode(r.ids), r.logp, r.finished) for r in responses]
        for responses in found
    ]
