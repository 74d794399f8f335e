"""Writes what is said in audio files, by a system of a recipe or by a pretrained recogniser.

example:
  python -m audiorl.bin.transcribe talk.flac --model exp/grpo
  python -m audiorl.bin.transcribe *.wav --model grpo.zip --format srt --out subtitles
  python -m audiorl.bin.transcribe talk.flac --model openai/whisper-tiny.en --format json

--model: an experiment, a zip of audiorl.bin.pack, a model's folder or a hub name. An experiment or
a zip decodes as its config asks (method, num_beams, window_seconds), another model greedily.
Segments are windows that end at pauses; --window 8 makes them short, as subtitles are.
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.bin.unpack import opened


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("audio", nargs="+", metavar="FILE", help="audio files")
    options.add_argument("--model", required=True, help="see above")
    options.add_argument("--format", choices=("text", "json", "srt"), default="text")
    options.add_argument("--out", type=Path, help="a folder for one output file for each input")
    options.add_argument("--window", type=float, default=0.0, help="seconds of a segment at most")
    args = options.parse_args()
    if args.window and args.window < 1:
        options.error("--window needs at least 1 s.")
    if args.format == "srt" and not args.out and len(set(args.audio)) > 1:
        options.error("subtitles of several files need --out, a folder.")
    from audiorl.infer.files import open_model, output_names, shown, transcribe_files
    from audiorl.runtime.device import setup_torch
    from audiorl.runtime.files import atomic_write

    names = output_names(args.audio, args.out, args.format) if args.out else {}
    with opened(args.model) as folder:
        model, config = open_model(folder)
        setup_torch(config.num_threads)
        found = transcribe_files(model, config, args.audio, args.window)
    for transcript in found:
        text = shown(transcript, args.format)
        if names:
            with atomic_write(names[transcript.file]) as stream:
                stream.write(f"{text}\n")
            print(f"wrote {names[transcript.file]}")
        elif args.format == "text" and len(found) > 1:
            print(f"{transcript.file}: {text}")
        else:
            print(text)


if __name__ == "__main__":
    run(main)
