"""The worker of SGLang on a fake of the part of SGLang 0.5.23 that it uses, with its peculiarities.

The fake samples by the native engine, in the order of SGLang's calls and refusals.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "audiorl" / "engines" / "workers")]

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from audiorl.engines.native import PolicyEngine  # noqa: E402
from audiorl.engines.sampling import Sampling  # noqa: E402
from audiorl.models.language_model import LanguageModel, Prefix  # noqa: E402

PARAMS = {"max_new_tokens", "stop_token_ids", "logit_bias", "temperature", "sampling_seed"}


@dataclass
class GenerateReqInput:
    input_embeds: list[list[float]]
    sampling_params: dict
    return_logprob: bool = False


class Engine:
    def __init__(
        self,
        *,
        model_path: str,
        load_format: str,
        skip_tokenizer_init: bool,
        dtype: str,
        context_length: int,
        mem_fraction_static: float,
        enable_memory_saver: bool = False,
        disable_radix_cache: bool = False,
        enable_deterministic_inference: bool = False,
    ) -> None:
        assert skip_tokenizer_init and load_format == "dummy" and 0 < mem_fraction_static < 1
        torch.set_num_threads(1)
        config = json.loads(Path(model_path, "config.json").read_text())
        self.ends = {config["eos_token_id"]} - {None}
        lm = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**config), dtype=getattr(torch, dtype)
        )
        self.lm, self.context_length = LanguageModel.of(lm.eval()), context_length
        self.can_sleep, self.is_awake = enable_memory_saver, True
        self.reads_embeds, self.heeds_seeds = disable_radix_cache, enable_deterministic_inference
        self.running: list[dict] = []
        self.tokenizer_manager, self.loop = self, asyncio.new_event_loop()

    def update_weights_from_disk(self, model_path: str, load_format: str | None = None) -> tuple:
        assert self.is_awake and not self.running
        if load_format != "safetensors":
            return False, "the format of the start is dummy", 0
        (file,) = Path(model_path).glob("*.safetensors")
        weights, names = load_file(file), dict(self.lm.named_parameters())
        assert weights.keys() == names.keys()
        with torch.no_grad():
            for name, weight in weights.items():
                names[name].copy_(weight)
        return True, "", 0

    async def generate_request(self, request: GenerateReqInput, http: None):
        params, embeds = request.sampling_params, request.input_embeds
        assert self.is_awake and request.return_logprob and not params.keys() - PARAMS
        assert isinstance(embeds[0][0], float)
        if not self.reads_embeds:
            raise ValueError("input_embeds is provided while disable_radix_cache is False")
        self.running.append(params)
        await asyncio.sleep(0)
        try:
            # Greedy rows in a batch change what the others draw.
            assert len({bool(other["temperature"]) for other in self.running}) == 1
            yield self._answer(torch.tensor(embeds), params)
        finally:
            self.running.remove(params)

    @torch.no_grad()
    def _answer(self, embeds: torch.Tensor, params: dict) -> dict:
        most = min(params["max_new_tokens"], self.context_length - 2 - len(embeds))
        banned = torch.zeros(self.lm.vocab_size, dtype=torch.bool)
        for token, bias in params.get("logit_bias", {}).items():
            assert bias < -1000
            banned[int(token)] = True
        stops = {*params["stop_token_ids"], *self.ends}
        policy = SimpleNamespace(llm=self.lm, forbidden=banned, stop_ids=tuple(stops), pad_id=0)
        uniforms = None
        if temperature := params["temperature"]:
            seed = params["sampling_seed"] if self.heeds_seeds else 42
            generator = torch.Generator().manual_seed(seed)
            uniforms = torch.rand(1, most, generator=generator).double()
        drawn = PolicyEngine(policy)._sample(
            Prefix.join([embeds.to(self.lm.lm_head.weight.dtype)]),
            1,
            most,
            Sampling(temperature or 1.0, greedy=not temperature),
            uniforms,
        )
        ids, logps = drawn.tokens[0].tolist(), drawn.logps[0].tolist()
        pairs = [(logp, token, None) for logp, token in zip(logps, ids, strict=True)]
        reason = {"type": "stop" if drawn.finished[0] else "length"}
        return {
            "output_ids": ids,
            "meta_info": {"finish_reason": reason, "output_token_logprobs": pairs},
        }

    def release_memory_occupation(self) -> None:
        assert self.can_sleep
        self.is_awake = False

    def resume_memory_occupation(self) -> None:
        self.is_awake = True


for name, contents in {
    "sglang": {"__version__": "0.5.23"},
    "sglang.srt": {},
    "sglang.srt.entrypoints": {},
    "sglang.srt.entrypoints.engine": {"Engine": Engine},
    "sglang.srt.managers": {},
    "sglang.srt.managers.io_struct": {"GenerateReqInput": GenerateReqInput},
}.items():
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(contents)

from serving import serve  # noqa: E402
from sglang_worker import SglangWorker  # noqa: E402

if __name__ == "__main__":
    serve(SglangWorker())
