"""The process in which one pass of log-probabilities and gradients is measured, for memory.py."""

from __future__ import annotations

from collections.abc import Callable

import torch
from link import Link, current_memory, peak_memory, reset_peak
from torch import Tensor

from audiorl.config.model import LLMConfig
from audiorl.engines.sampling import Sampling
from audiorl.models.language_model import LanguageModel, Prefix, build_lm
from audiorl.rl.logprobs import response_logprobs

HIDDEN = 256

# Log-probabilities [rows, completion] of tokens that continue one prefix.
Way = Callable[[LanguageModel, Prefix, Tensor], Tensor]


def ours(lm: LanguageModel, prefix: Prefix, tokens: Tensor) -> Tensor:
    everything = torch.ones_like(tokens, dtype=torch.bool)
    forbidden = torch.zeros(lm.config.vocab_size, dtype=torch.bool)
    settings = {"sampling": Sampling(), "forbidden": forbidden, "share": True}
    return response_logprobs(lm, prefix, tokens, everything, **settings).logps


def completion(lm: LanguageModel, prefix: Prefix, tokens: Tensor) -> Tensor:
    hidden = lm.model(inputs_embeds=_inputs(lm, prefix, tokens)).last_hidden_state
    return _gathered(lm.logits(hidden[:, -tokens.size(1) :]), tokens)


def full(lm: LanguageModel, prefix: Prefix, tokens: Tensor) -> Tensor:
    logits = lm(_inputs(lm, prefix, tokens))
    before = tokens.new_zeros(len(tokens), prefix.embeds.size(1) - 1)
    return _gathered(logits, torch.cat([before, tokens], 1))[:, before.size(1) :]


WAYS: dict[str, Way] = {"ours": ours, "completion": completion, "full": full}


def _inputs(lm: LanguageModel, prefix: Prefix, tokens: Tensor) -> Tensor:
    """What each response's first token to its last follows, [rows, prefix + completion - 1, H]."""
    read = prefix.embeds.expand(len(tokens), -1, -1)
    return torch.cat([read, lm.embed(tokens[:, :-1])], 1)


def _gathered(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits.float().log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)


def log_probabilities(request: dict) -> Callable[[int], Tensor]:
    """Gives the log-probabilities of as many of the responses as it is asked for."""
    torch.manual_seed(0)
    sizes = {"hidden_size": HIDDEN, "intermediate_size": HIDDEN, "num_hidden_layers": 1}
    lm = build_lm(LLMConfig(**sizes), request["vocab"], end_id=1).eval()
    prefix = Prefix.join([torch.randn(request["prefix"], HIDDEN)])
    tokens = torch.randint(request["vocab"], (request["rows"], request["completion"]))
    return lambda rows: WAYS[request["way"]](lm, prefix, tokens[:rows])


def main() -> None:
    link = Link()
    torch.set_num_threads(1)
    request = link.receive()
    logps = log_probabilities(request)
    logps(1).sum().backward()  # what is made once: libraries, gradients of the weights
    reset_peak()
    before = current_memory()
    logps(request["rows"]).sum().backward()
    link.send({"bytes": peak_memory() - before})


if __name__ == "__main__":
    main()
