"""Where vLLM is, for tests with the real one, and models that it runs on a CPU.

Skipped where it is not installed: tools/install_engine.sh vllm --cpu; or name the Python of its
environment in AUDIORL_VLLM_PYTHON. About 20 s of the processor a process of vLLM.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from audiorl.config.rl import RLConfig

PYTHON = os.environ.get("AUDIORL_VLLM_PYTHON") or RLConfig().python_of("vllm")
needs_vllm = pytest.mark.skipif(
    not Path(PYTHON).exists(), reason="needs vLLM: tools/install_engine.sh vllm --cpu"
)
# vLLM's attention on a CPU has heads of 32 at least.
WIDE = {
    "llm.hidden_size": 64,
    "llm.num_attention_heads": 2,
    "llm.num_key_value_heads": 1,
    "adaptor.hidden_size": 64,
}
SETTINGS = {"rl.engine": "vllm", "rl.engine_python": PYTHON}
