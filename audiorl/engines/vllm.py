"""vLLM, in its own environment: `tools/install_engine.sh vllm`, then `rl.engine: vllm`."""

from audiorl.engines.foreign import WORKERS, ForeignEngine


class VllmEngine(ForeignEngine):
    """vLLM (arXiv 2309.06180): paged attention, a prefix is read once for its group."""

    name = "vllm"
    script = WORKERS / "vllm_worker.py"


PolicyEngine = VllmEngine
