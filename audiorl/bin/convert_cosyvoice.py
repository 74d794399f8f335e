"""Converts CosyVoice 2's or 3's llm.pt to a Hugging Face checkpoint, for `speech.layout: cosyvoice`
and for rollout engines, and back to CosyVoice.

examples:
  python -m audiorl.bin.convert_cosyvoice to-hf downloads/CosyVoice2-0.5B/llm.pt \\
      --text downloads/CosyVoice2-0.5B/CosyVoice-BlankEN --out downloads/cosyvoice2
  python -m audiorl.bin.convert_cosyvoice from-hf exp/grpo/model --out exp/grpo/llm.pt
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin.cli import parser, run


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("direction", choices=("to-hf", "from-hf"))
    options.add_argument(
        "source", type=Path, help="llm.pt; or a checkpoint, or the model/ of an experiment"
    )
    options.add_argument("--text", type=Path, help="of to-hf: the folder CosyVoice-BlankEN")
    options.add_argument("--out", type=Path, required=True, help="folder, or llm.pt, to write")
    args = options.parse_args()
    if (args.direction == "to-hf") != bool(args.text):
        options.error("to-hf needs --text, from-hf has none")
    from audiorl.models.cosyvoice import from_hugging_face, to_hugging_face

    if args.direction == "to-hf":
        to_hugging_face(args.source, args.text, args.out)
    else:
        from_hugging_face(args.source, args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    run(main)
