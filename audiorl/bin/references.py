"""Writes references for systems of synthesis: natural recordings and resynthesis (stage 6).

example:
  python -m audiorl.bin.references --config conf/both.yaml --dump dump --codec exp/codec \\
      --natural exp/natural --resynthesis exp/resynthesis

The natural recordings of the test sets, and their tokens made speech again by the codec; both are
then scored like systems. Test sets of texts alone have none.
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.config import load_config


def main() -> None:
    options = parser(__doc__, "dump")
    options.add_argument("--codec", type=Path, required=True, help="experiment of the codec")
    options.add_argument("--natural", type=Path, required=True, help="folder of the recordings")
    options.add_argument("--resynthesis", type=Path, required=True, help="folder of their tokens")
    args = options.parse_args()
    config = load_config(args.config, args.set)
    from audiorl.infer.references import write_natural, write_resynthesis
    from audiorl.models import WEIGHTS
    from audiorl.models.codec import load_codec
    from audiorl.runtime.device import pick_device, setup_torch
    from audiorl.runtime.locks import exclusive
    from audiorl.score.tts import texts_alone

    setup_torch(config.num_threads)
    if alone := texts_alone(args.dump, config):
        print(f"no references of {', '.join(alone)}: texts alone")
    folder = args.codec / "model"
    codec = load_codec(folder, str(pick_device(config.device)))
    with exclusive(args.natural):
        write_natural(args.dump, config, args.natural)
    with exclusive(args.resynthesis):
        write_resynthesis(codec, folder / WEIGHTS, args.dump, config, args.resynthesis)
    print(f"wrote {args.natural} and {args.resynthesis}")


if __name__ == "__main__":
    run(main)
