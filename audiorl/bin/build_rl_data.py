"""Builds the RL set: probes how hard utterances are for the warm start, and chooses (stage 4).

Of synthesis: the texts, and beside them tokens/, which DiffRO learns along.

example:
  python -m audiorl.bin.build_rl_data --config conf/grpo.yaml --dump dump --init exp/sft \\
      --out exp/rl/train.jsonl
"""

from __future__ import annotations

import logging
from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.config import load_config
from audiorl.runtime.locks import exclusive


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--dump", type=Path, required=True, help="folder of the formatted sets")
    options.add_argument(
        "--init", type=Path, required=True, help="experiment whose model is the policy"
    )
    options.add_argument("--out", type=Path, required=True, help="RL set to write (.jsonl)")
    args = options.parse_args()
    config = load_config(args.config, args.set)
    from audiorl.engines.engine import make_engine
    from audiorl.models import WEIGHTS
    from audiorl.models.policy import load_policy
    from audiorl.rl.groups import Sampler
    from audiorl.rl_data.build import build_rl_data, rl_set_stamp
    from audiorl.runtime.device import pick_device, setup_torch

    policy, weights = str(args.init), args.init / "model" / WEIGHTS
    if config.task == "tts":
        from audiorl.rl_data.speech import build_speech_rl_set

        setup_torch(config.num_threads)
        model = load_policy(args.init / "model", str(pick_device(config.device)))
        engine = make_engine(config.rl.engine, model)
        with exclusive(args.out.parent, args.out.name):
            build_speech_rl_set(engine, policy, weights, config, args.dump, args.out)
        return
    if rl_set_stamp(config, policy, args.dump, args.out, weights).is_current(args.out):
        print(f"{args.out} is complete: nothing to do")
        return
    logging.basicConfig(format="%(message)s")  # processes that score have no other way to say why
    setup_torch(config.num_threads)
    model = load_policy(args.init / "model", str(pick_device(config.device)))
    sampler = Sampler(make_engine(config.rl.engine, model), config.rl, config.seed)
    with exclusive(args.out.parent, args.out.name):
        build_rl_data(sampler, policy, weights, config, args.dump, args.out)


if __name__ == "__main__":
    run(main)
