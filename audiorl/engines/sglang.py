"""SGLang, in its own environment: `tools/install_engine.sh sglang`, then `rl.engine: sglang`."""

import torch

from audiorl.engines.foreign import WORKERS, ForeignEngine


class SglangEngine(ForeignEngine):
    """SGLang (arXiv 2312.07104), on GPUs; each response reads its prefix anew."""

    name = "sglang"
    script = WORKERS / "sglang_worker.py"
    truncates = False
    dtypes = (torch.bfloat16,)


PolicyEngine = SglangEngine
