"""Speaks a text with a system of synthesis: its speech LM, its codec, one of its voices.

example:
  python -m audiorl.bin.speak "call me at seven" --model both.zip --out seven.wav
  python -m audiorl.bin.speak "call me at seven" --model exp/both --codec exp/codec --dump dump \\
      --speaker anna --out seven.wav

--model: an experiment, what unpack made, or a zip of audiorl.bin.pack. A zip has its codec and its
voices; beside an experiment they are named.
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin.cli import parser, refuse_other_task, run
from audiorl.bin.pack import CODEC_FOLDER, keep_voices
from audiorl.bin.unpack import opened


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("text")
    options.add_argument("--model", required=True, help="see above")
    options.add_argument("--out", type=Path, required=True, help="the wav to write")
    options.add_argument("--speaker", help="a voice; the first one by default")
    options.add_argument("--codec", type=Path, help="beside an experiment: that of the codec")
    options.add_argument("--dump", type=Path, help="beside an experiment: the formatted sets")
    options.add_argument("--seed", type=int, help="of sampling; that of the config by default")
    args = options.parse_args()
    with opened(args.model) as folder:
        exp = Path(folder)
        refuse_other_task(exp, "tts")
        if args.codec and args.dump:
            keep_voices(exp, args.codec, args.dump)
        from audiorl.infer.say import say

        codec = args.codec or exp / CODEC_FOLDER
        said = say(exp, codec, exp / CODEC_FOLDER, args.text, args.out, args.speaker, args.seed)
    print(f"wrote {args.out}: {said}")


if __name__ == "__main__":
    run(main)
