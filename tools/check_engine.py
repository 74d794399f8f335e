#!/usr/bin/env python3
"""Check an engine on this machine with a model of yours: one line a promise, PASS or FAIL.

The model is the folder model/ of an experiment (a warm start will do). The exit status is 1 if
anything fails; every promise is described in test/engines/contract.py.

examples: tools/venv/bin/python tools/check_engine.py --config conf/grpo.yaml exp/sft
          tools/venv/bin/python tools/check_engine.py --config conf/grpo.yaml exp/sft \\
              --set rl.engine=vllm --set rl.engine_python=/opt/vllm/bin/python
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "test" / "engines")]


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("experiment", type=Path, help="experiment whose model is sampled")
    options.add_argument("--config", required=True, help="recipe (YAML) that names the engine")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = options.parse_args()
    contract = importlib.import_module("contract")  # of the tests
    import torch

    from audiorl.config import load_config
    from audiorl.engines.engine import make_engine
    from audiorl.errors import UserError
    from audiorl.models.policy import load_policy
    from audiorl.runtime.device import pick_device, setup_torch

    try:
        config = load_config(arguments.config, arguments.set)
        setup_torch(config.num_threads)
        policy = load_policy(arguments.experiment / "model", str(pick_device(config.device)))
        case = contract.Case(policy, inputs(policy))
        if policy.llm.lm_head.weight.dtype != torch.float32:
            contract.ROUNDING["atol"] = 0.5
        with make_engine(config.rl.engine, policy, config.rl) as engine:
            return check(contract, case, engine)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def inputs(policy) -> list:
    """Return three inputs of unlike length: waves of noise, or texts."""
    import torch

    from audiorl.data.utterance import Utterance

    lengths = (1, 2, 3)
    if policy.task == "asr":
        generator = torch.Generator().manual_seed(0)
        return [0.1 * torch.randn(n * policy.sample_rate, generator=generator) for n in lengths]
    speaker = policy.facts.speakers[0]
    return [Utterance(f"u{n}", "", "yes " * n, speaker=speaker) for n in lengths]


def check(contract, case, engine) -> int:
    """Print a line for each promise; return how many are broken, at most 1."""
    if not engine.truncates:
        contract.SAMPLINGS = [s for s in contract.SAMPLINGS if not s.top_k and s.top_p == 1]
        print("top_k and top_p are not checked: it does not know them")
    checks = [(f.__name__, lambda f=f: f(lambda policy: engine, case)) for f in contract.PLAIN]
    checks += [
        (
            f"logps of temperature {s.temperature:g}, top_k {s.top_k}, top_p {s.top_p:g}",
            lambda s=s: contract.logps_are_those_of_the_update(lambda policy: engine, case, s),
        )
        for s in contract.SAMPLINGS
    ]
    failed = 0
    for name, promise in checks:
        started = time.perf_counter()
        try:
            promise()
            outcome = "PASS"
        except AssertionError as error:
            reason = next(filter(str.strip, str(error).splitlines()), "")
            outcome, failed = f"FAIL {reason.strip()}", 1
        engine.sync()
        print(f"{name.replace('_', ' '):<50} {time.perf_counter() - started:6.1f} s  {outcome}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
