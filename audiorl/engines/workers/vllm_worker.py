"""vLLM as a rollout engine. Written against vLLM 0.32.0; see docs/engines.md."""

from __future__ import annotations

import os

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # one process, which is killed as one
os.environ["VLLM_NO_USAGE_STATS"] = "1"
for name, value in {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # as many threads as OMP_NUM_THREADS says
}.items():
    os.environ.setdefault(name, value)

import torch  # noqa: E402
import vllm  # noqa: E402
from serving import Worker, padded, serve  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from vllm import LLM, CompletionOutput, SamplingParams  # noqa: E402

LEAST_BATCH = 8192  # tokens of one step
FORBID = -100.0  # added to a logit; vLLM takes no less


class VllmWorker(Worker):
    """Runs vLLM in its own process, so that one kill ends both."""

    llm: LLM

    def start(
        self, folder: str, dtype: str, max_model_len: int, share: float, sleeps: bool
    ) -> dict:
        gpu = torch.cuda.is_available()
        options = {"enable_sleep_mode": sleeps} if gpu else {}
        if gpu:
            free, total = torch.cuda.mem_get_info()
            options["gpu_memory_utilization"] = share * free / total
        else:
            # A request with a seed whose prefill is cut kills the engine.
            options["enable_chunked_prefill"] = False
            options["enforce_eager"] = True
        self.llm = LLM(
            model=folder,
            load_format="dummy",  # the weights come in the first `sync`
            skip_tokenizer_init=True,
            generation_config="vllm",
            enable_prompt_embeds=True,
            dtype=dtype,
            max_model_len=max_model_len,
            max_num_batched_tokens=max(LEAST_BATCH, max_model_len),
            enable_prefix_caching=True,
            logprobs_mode="processed_logprobs",  # of what is sampled from
            disable_log_stats=True,
            **options,
        )
        self._show_progress()
        return {"version": f"vLLM {vllm.__version__}", "sleeps": gpu and sleeps}

    def _show_progress(self) -> None:
        step = self.llm.llm_engine.step

        def step_and_beat() -> list:
            self.beat()
            return step()

        self.llm.llm_engine.step = step_and_beat

    def sync(self, weights: dict[str, Tensor]) -> None:
        """Take all weights, by their names in transformers."""
        self.llm.collective_rpc(
            "reload_weights", kwargs={"weights_iterator": iter(weights.items())}
        )
        self.llm.apply_model(_repack_tied_head)
        self.drop_prefixes()

    def drop_prefixes(self) -> None:
        """Forget the keys and values of prefixes, which are of former weights."""
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache is in use")

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
        """Continue prefixes: embeds [sum P, H] of lengths [B].

        Returns tokens and logps [B * N, R] and lengths [B * N]; N is `group`, and one more if
        `greedy`. Members draw by seed + 0 … group - 1.
        """
        lengths = tensors["lengths"].tolist()
        prompts = [{"prompt_embeds": rows} for rows in tensors["embeds"].split(lengths)]
        common = {
            "max_tokens": max_length,
            "stop_token_ids": stops,
            "ignore_eos": True,  # the stop ids are all
            "logprobs": 0,  # of the token alone
            "detokenize": False,
            **self._restriction(forbidden),
        }
        sampled = {"n": group, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        asked, params = [], []
        for prompt, seed in zip(prompts, seeds, strict=True):
            if group:
                asked.append(prompt)
                params.append(SamplingParams(**sampled, **common, seed=seed))
            if greedy:
                asked.append(prompt)
                params.append(SamplingParams(temperature=0.0, **common))
        answers = self.llm.generate(asked, params, use_tqdm=False)
        return {"tensors": padded([_row(row) for answer in answers for row in answer.outputs])}

    def _restriction(self, forbidden: list[int]) -> dict:
        """Return the shorter way to say which ids are never sampled."""
        size = self.llm.llm_engine.model_config.get_vocab_size()
        if 2 * len(forbidden) > size:
            return {"allowed_token_ids": sorted(set(range(size)) - set(forbidden))}
        return {"logit_bias": dict.fromkeys(forbidden, FORBID)} if forbidden else {}

    def sleep(self, _: dict) -> None:
        """Give the device's memory back; the weights are to be sent again."""
        self.llm.sleep(level=2)

    def wake(self, _: dict) -> None:
        """Take memory again."""
        self.llm.wake_up()


def _repack_tied_head(model: nn.Module) -> None:
    """Make the CPU's copy of a head anew: if it is tied, new embeddings do not reach it."""
    head = getattr(model, "lm_head", None)
    if hasattr(head, "cpu_linear"):
        head.quant_method.process_weights_after_loading(head)


def _row(row: CompletionOutput) -> tuple[list[int], list[float]]:
    steps = zip(row.token_ids, row.logprobs, strict=True)
    return list(row.token_ids), [found[token].logprob for token, found in steps]


if __name__ == "__main__":
    serve(VllmWorker())
