"""A worker like vLLM's that samples by the native engine, in a process of its own.

`defect` makes it wrong as real engines have been: see DEFECTS.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "audiorl" / "engines" / "workers")]

import torch  # noqa: E402
from serving import serve  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from audiorl.engines.native import PolicyEngine  # noqa: E402
from audiorl.engines.sampling import Sampling  # noqa: E402
from audiorl.models.language_model import LanguageModel, Prefix  # noqa: E402
from audiorl.rl.logprobs import response_logprobs  # noqa: E402

DEFECTS = (
    "",
    "head",  # takes them, but for a head that is tied to the embeddings
    "cache",  # reads prefixes that it knows by the weights that it had
    "raw",  # log-probabilities without temperature and forbidden ids
)


class FakeWorker:
    public = ("load", "sync", "generate", "sleep", "wake", "become")

    def load(self, _, model, dtype, max_model_len, share, sleeps):
        torch.set_num_threads(1)
        config = AutoConfig.for_model(**model)
        lm = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
        self.lm, self.tied = LanguageModel.of(lm.eval()), model["tie_word_embeddings"]
        self.names = dict(self.lm.named_parameters())
        self.defect, self.known, self.is_awake = "", {}, True
        return {"version": "a fake", "sleeps": sleeps}

    def become(self, _, defect):
        assert defect in DEFECTS
        self.defect = defect
        self.known = {}
        if self.tied:
            self.lm.lm_head.weight = self.lm.model.get_input_embeddings().weight

    @torch.no_grad()
    def sync(self, weights):
        assert self.is_awake
        assert weights.keys() == self.names.keys(), weights.keys() ^ self.names.keys()
        if self.defect == "head":
            self.lm.lm_head = copy.deepcopy(self.lm.lm_head)
        for name, weight in weights.items():
            self.names[name].copy_(weight)

    def sleep(self, _):
        self.is_awake = False

    def wake(self, _):
        self.is_awake = True

    def generate(
        self, tensors, group, greedy, max_length, stops, forbidden, temperature, top_k, top_p, seeds
    ):
        assert self.is_awake
        banned = torch.zeros(self.lm.vocab_size, dtype=torch.bool)
        banned[forbidden] = True
        sampling = Sampling(temperature, top_k, top_p)
        rows = []
        lengths = tensors["lengths"].tolist()
        for embeds, seed in zip(tensors["embeds"].split(lengths), seeds, strict=True):
            policy = SimpleNamespace(
                llm=self._of_prefix(embeds), forbidden=banned, stop_ids=stops, pad_id=0
            )
            uniforms = [
                torch.rand(max_length, generator=torch.Generator().manual_seed(seed + i)).double()
                for i in range(group)
            ] + [torch.full((max_length,), torch.nan, dtype=torch.float64)] * greedy
            drawn = PolicyEngine(policy)._sample(
                Prefix.join([embeds]), len(uniforms), max_length, sampling, torch.stack(uniforms)
            )
            if self.defect == "raw":
                drawn.logps = response_logprobs(
                    self.lm,
                    Prefix.join([embeds]),
                    drawn.tokens,
                    drawn.mask,
                    sampling=Sampling(),
                    forbidden=torch.zeros_like(banned),
                    share=False,
                ).logps
            rows.append(drawn)
        whole = rows[0]
        for more in rows[1:]:
            whole = whole.join(more)
        lengths = whole.mask.sum(1)
        return {"tensors": {"tokens": whole.tokens, "logps": whole.logps, "lengths": lengths}}

    def _of_prefix(self, embeds):
        if self.defect != "cache":
            return self.lm
        key = embeds.numpy().tobytes()
        return self.known.setdefault(key, copy.deepcopy(self.lm))


if __name__ == "__main__":
    serve(FakeWorker())
