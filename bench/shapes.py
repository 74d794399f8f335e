"""The shapes of work that are timed, and how many operations the work needs at least.

Imports nothing but the standard library: the peer's environment reads this file, too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Shape:
    """One GRPO step: `prompts` prefixes, `group` completions of each, and the LM that does it."""

    prefix: int  # tokens of a prompt: for us instruction and audio, for a text trainer words
    completion: int  # tokens of each hypothesis; all have this length
    group: int
    prompts: int
    vocab: int = 4096
    hidden: int = 256
    intermediate: int = 1024
    layers: int = 4
    heads: int = 4

    @property
    def rows(self) -> int:
        """Hypotheses of a step."""
        return self.prompts * self.group

    def with_(self, **changes: int) -> Shape:
        return replace(self, **changes)

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


SHAPES = {
    "asr": Shape(prefix=512, completion=32, group=8, prompts=8),
    "asr_short": Shape(prefix=256, completion=40, group=8, prompts=4),
    "asr_long": Shape(prefix=1500, completion=100, group=8, prompts=8),
    "tts": Shape(prefix=60, completion=250, group=8, prompts=4),
    "tiny": Shape(
        prefix=8,
        completion=4,
        group=2,
        prompts=2,
        vocab=64,
        hidden=32,
        intermediate=64,
        layers=2,
        heads=2,
    ),
}


def flops(shape: Shape) -> dict[str, float]:
    """Floating-point operations of the matrix products of a step, by phase.

    Each prefix is read once for the rollout and once for the update, causal attention looks at no
    later position, the vocabulary is touched where a token is predicted, and the backward pass
    costs two forwards. Nothing else is counted: norms, activations, softmax, optimizer.
    """
    layer = 4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate  # weights
    token = 2 * shape.layers * layer
    pair = 4 * shape.layers * shape.hidden  # a query and a key: score, and share of the value
    head = 2 * shape.hidden * shape.vocab
    read = shape.prompts * shape.prefix
    read_pairs = shape.prompts * shape.prefix * (shape.prefix + 1) / 2
    steps = shape.completion - 1  # the last token is never read
    written = shape.rows * steps
    written_pairs = shape.rows * (steps * shape.prefix + steps * (steps + 1) / 2)
    prefill = read * token + read_pairs * pair + shape.prompts * head
    decode = written * (token + head) + written_pairs * pair
    forward = (
        (read + written) * token
        + (read_pairs + written_pairs) * pair
        + shape.rows * shape.completion * head
    )
    return {"prefill": prefill, "decode": decode, "update": 3 * forward}
