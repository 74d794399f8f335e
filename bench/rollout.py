"""Times rollouts of engines on the same weights and prefixes, by group size, prefix and model size.

example:
  python bench/rollout.py --engines native,vllm --python tools/engines/vllm/bin/python

Each case is one call of an engine: B prefixes of random embeddings, G responses of exactly R tokens
(the stop ids are forbidden). The first call of a case is not counted. Seconds are on the wall, and
of the processor, the engine's process included.
"""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch
from grpo_step import circumstances
from link import Clock
from transformers import AutoConfig, AutoModelForCausalLM

from audiorl.bin.cli import parser, run
from audiorl.config.rl import RLConfig
from audiorl.engines.engine import Draws, Engine, make_engine
from audiorl.engines.sampling import Sampling
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.runtime.device import pick_device
from audiorl.runtime.files import write_json

# Width, layers; heads of 64, feed-forward of 4 widths, vocabulary 4,096.
SIZES = {"tiny": (64, 1), "5M": (256, 4), "25M": (512, 6), "100M": (768, 12), "1B": (2048, 18)}


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--engines", type=listed, default=["native", "vllm"])
    options.add_argument("--python", default="", help="of the engine's environment")
    options.add_argument("--sizes", type=listed, default=["5M"], help=", ".join(SIZES))
    options.add_argument("--groups", type=listed, default=["2", "8", "16"])
    options.add_argument("--prefixes", type=listed, default=["128", "512"], help="tokens")
    options.add_argument("--prompts", type=int, default=8)
    options.add_argument("--response", type=int, default=32, help="tokens")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--json", type=Path, metavar="FILE", help="where to write all numbers")
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    print("| model | engine | group | prefix | s | s of the processor | tokens / s | sync, s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for size, name in product(args.sizes, args.engines):
        policy = random_policy(size, getattr(torch, args.dtype))
        with make_engine(name, policy, RLConfig(engine=name, engine_python=args.python)) as engine:
            clock = Clock()
            engine.sync()
            sync = clock.read()["wall"]
            for group, prefix in product(map(int, args.groups), map(int, args.prefixes)):
                seconds = measure(engine, args, group, prefix)
                wall, cpu = (median(s[kind] for s in seconds) for kind in ("wall", "cpu"))
                rate = args.prompts * group * args.response / wall
                cells = (size, name, group, prefix, f"{wall:.2f}", f"{cpu:.2f}", f"{rate:.0f}")
                print("|", *(f"{cell} |" for cell in (*cells, f"{sync:.2f}")), flush=True)
                rows.append(dict(zip(("size", "engine", "group", "prefix"), cells, strict=False)))
                rows[-1] |= {"seconds": seconds, "sync": sync}
    if args.json:
        write_json(args.json, {**circumstances(), "rows": rows})


def listed(text: str) -> list[str]:
    return text.split(",")


def random_policy(size: str, dtype: torch.dtype) -> SimpleNamespace:
    """Return what engines ask of a policy, on the device that there is."""
    width, layers = SIZES[size]
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=4096,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        head_dim=64,
        tie_word_embeddings=True,
    )
    device = pick_device("auto")
    lm = AutoModelForCausalLM.from_config(config, dtype=dtype).to(device).eval()
    forbidden = torch.zeros(config.vocab_size, dtype=torch.bool, device=device)
    forbidden[0] = True
    return SimpleNamespace(
        llm=LanguageModel.of(lm),
        stop_ids=(0,),
        pad_id=0,
        forbidden=forbidden,
        device=device,
        family="bench",
    )


def measure(engine: Engine, args, group: int, length: int) -> list[dict]:
    """Return the seconds of each repeat, on the wall and of the processor."""
    policy, seconds = engine.policy, []
    generator = torch.Generator().manual_seed(1)
    for repeat in range(args.repeats + 1):
        shape = (args.prompts, length, policy.llm.config.hidden_size)
        embeds = 0.5 * torch.randn(shape, generator=generator)
        embeds = embeds.to(policy.device, policy.llm.lm_head.weight.dtype)
        clock, before = Clock(), children(engine)
        rollout = engine.generate(
            Prefix.join(list(embeds)),
            group=group,
            max_length=args.response,
            sampling=Sampling(),
            draws=Draws(0, repeat, [str(i) for i in range(args.prompts)]),
        )
        took = clock.read()
        took["cpu"] += children(engine) - before
        assert int(rollout.mask.sum()) == args.prompts * group * args.response
        if repeat:
            seconds.append(took)
    return seconds


def children(engine: Engine) -> float:
    """Return the seconds of the processor that the engine's own process has taken."""
    if engine.exact:
        return 0.0
    fields = Path(f"/proc/{engine.link.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    run(main)
