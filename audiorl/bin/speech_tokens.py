"""Writes the speech tokens of sets of recordings to EXP/tokens/<set> (stage 3).

example:
  python -m audiorl.bin.speech_tokens --config conf/grpo.yaml --dump dump exp/codec
  python -m audiorl.bin.speech_tokens --config conf/grpo.yaml --dump dump exp/codec --sets test
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.config import load_config
from audiorl.runtime import ranks


def main() -> None:
    options = parser(__doc__, "dump")
    options.add_argument("codec", type=Path, metavar="EXP", help="with a codec's model/ inside")
    options.add_argument(
        "--sets", nargs="+", default=[], metavar="SET", help="default: data.train and data.dev"
    )
    args = options.parse_args()
    config = load_config(args.config, args.set)
    from audiorl.models.codec import load_codec
    from audiorl.runtime.device import pick_device, setup_torch
    from audiorl.runtime.locks import exclusive
    from audiorl.train.codec_sets import write_set_tokens

    setup_torch(config.num_threads)
    tokens = args.codec / "tokens"
    with ranks.joined(config.parallelism.timeout_seconds), exclusive(tokens):
        codec = load_codec(args.codec / "model", str(pick_device(config.device)))
        for name in args.sets or [config.data.train, config.data.dev]:
            write_set_tokens(codec, args.dump / name, tokens / name, config.codec.batch_seconds)


if __name__ == "__main__":
    run(main)
