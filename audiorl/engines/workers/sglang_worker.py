"""SGLang as a rollout engine. Written against SGLang 0.5.23, for GPUs; see docs/engines.md."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

os.environ["SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN"] = "1"  # for OVERHEAD

import sglang
from safetensors.torch import save_file
from serving import Worker, padded, serve
from sglang.srt.entrypoints.engine import Engine
from sglang.srt.managers.io_struct import GenerateReqInput
from torch import Tensor

OVERHEAD = 2  # tokens of the context that SGLang keeps for itself
NEVER = -1e4  # added to a logit
ROOM = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # for weights


class SglangWorker(Worker):
    """Starts SGLang's processes, which end with this one."""

    engine: Engine

    def start(
        self, folder: str, dtype: str, max_model_len: int, share: float, sleeps: bool
    ) -> dict:
        self.engine = Engine(
            model_path=folder,
            load_format="dummy",  # the weights come in the first `sync`
            skip_tokenizer_init=True,
            dtype=dtype,
            context_length=max_model_len + OVERHEAD,
            mem_fraction_static=share,
            enable_memory_saver=sleeps,
            disable_radix_cache=True,  # with it, embeddings are refused
            enable_deterministic_inference=True,  # without, seeds are not heeded
        )
        return {"version": f"SGLang {sglang.__version__}", "sleeps": sleeps}

    def sync(self, weights: dict[str, Tensor]) -> None:
        """Take all weights, by their names in transformers."""
        with tempfile.TemporaryDirectory(dir=ROOM) as folder:
            save_file(weights, Path(folder, "model.safetensors"))
            # Without a format it would be that of the start, and dummy.
            done, why, *_ = self.engine.update_weights_from_disk(folder, load_format="safetensors")
        if not done:
            raise RuntimeError(why)

    def generate(
        self,
        tensors: dict[str, Tensor],
        group: int,
        greedy: bool,
        max_length: int,
        stops: list[int],
        forbidden: list[int],
        temperature: float,
        top_k: int,
        top_p: float,
        seeds: list[int],
    ) -> dict:
        """Continue prefixes as `VllmWorker.generate` does; top_k and top_p are not supported."""
        if top_k or top_p < 1:
            raise ValueError("log-probabilities would be those before top_k and top_p")
        prompts = [p.tolist() for p in tensors["embeds"].float().split(tensors["lengths"].tolist())]
        common = {"max_new_tokens": max_length, "stop_token_ids": stops}
        if forbidden:
            common["logit_bias"] = {str(token): NEVER for token in forbidden}
        members = [
            (prompt, {**common, "temperature": temperature, "sampling_seed": seed + member})
            for prompt, seed in zip(prompts, seeds, strict=True)
            for member in range(group)
        ]
        rows = self._ask(members)
        if greedy:
            # Apart: beside greedy rows the others would draw otherwise.
            best = self._ask([(prompt, {**common, "temperature": 0.0}) for prompt in prompts])
            for place in reversed(range(len(prompts))):
                rows.insert((place + 1) * group, best[place])
        return {"tensors": padded(rows)}

    def _ask(self, requests: list[tuple[list, dict]]) -> list[tuple[list[int], list[float]]]:
        async def every() -> list:
            return await asyncio.gather(*(self._row(*request) for request in requests))

        return self.engine.loop.run_until_complete(every())

    async def _row(self, prompt: list[list[float]], params: dict) -> tuple[list[int], list[float]]:
        # Engine.generate takes no embeddings; this is what it calls.
        request = GenerateReqInput(input_embeds=prompt, sampling_params=params, return_logprob=True)
        answers = self.engine.tokenizer_manager.generate_request(request, None)
        answer = [whole async for whole in answers][-1]
        self.beat()
        found = answer["meta_info"]
        if found["finish_reason"]["type"] == "abort":
            raise RuntimeError(found["finish_reason"]["message"])
        ids, logps = answer["output_ids"], [logp for logp, *_ in found["output_token_logprobs"]]
        if len(ids) != len(logps):
            raise RuntimeError(f"{len(ids)} tokens have {len(logps)} log-probabilities")
        return ids, logps

    def sleep(self, _: dict) -> None:
        """Give the device's memory back; the weights are to be sent again."""
        self.engine.release_memory_occupation()

    def wake(self, _: dict) -> None:
        """Take memory again."""
        self.engine.resume_memory_occupation()


if __name__ == "__main__":
    serve(SglangWorker())
