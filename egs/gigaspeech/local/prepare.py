"""Prepares GigaSpeech (https://github.com/SpeechColab/GigaSpeech) from its own layout.

GigaSpeech.json lists recordings, opus files of up to hours, and their segments. It is read one
recording at a time, so that the whole corpus takes no more memory than a part of it. Punctuation,
which it writes as <COMMA>, is left out of transcripts, and segments without words (<MUSIC>) are
left out. Ids are the corpus's; a segment's speaker is its recording, as the corpus knows no other.

example:
  local/data.sh --corpus /data/GigaSpeech --subset M --out data
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audiorl.bin.cli import parser, run
from audiorl.data.importing import HeldOut, Row, import_rows
from audiorl.errors import UserError

SUBSETS = {"XS": "10 hours", "S": "250", "M": "1,000", "L": "2,500", "XL": "10,000"}
HELD_OUT = {"{DEV}": "dev", "{TEST}": "test"}
TAG = re.compile(r"<[A-Z]+>")  # of punctuation, or of a segment without words
PIECE = 1 << 20  # characters read at once


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--corpus", default="", help="the folder with GigaSpeech.json and audio")
    options.add_argument("--out", type=Path, default=Path("data"), help="folder of the sets")
    options.add_argument("--subset", choices=SUBSETS, default="XL", help="what train is")
    args = options.parse_args()
    corpus = Path(args.corpus)
    if not args.corpus or not (corpus / "GigaSpeech.json").is_file():
        raise UserError(
            f"--corpus {args.corpus or '(not given)'} has no GigaSpeech.json; give the folder "
            "that does, which its own scripts fetch."
        )
    import_rows(rows(corpus, args.subset), args.out, HeldOut(), f"GigaSpeech {args.subset}")


def rows(corpus: Path, subset: str) -> Iterator[Row]:
    """The segments of a subset, of dev and of test."""
    path = corpus / "GigaSpeech.json"
    splits = HELD_OUT | {f"{{{subset}}}": "train"}
    for recording in recordings(path):
        try:
            for segment in recording["segments"]:
                names = [splits[name] for name in segment["subsets"] if name in splits]
                if names:
                    yield Row(
                        f"{path}: {segment['sid']}",
                        str(corpus / recording["path"]),
                        TAG.sub("", segment["text_tn"]),
                        recording["aid"],
                        segment["sid"],
                        kaldi=True,
                        start=float(segment["begin_time"]),
                        end=float(segment["end_time"]),
                        split=names[0],
                    )
        except (KeyError, TypeError, ValueError) as error:
            name = recording.get("aid", str(recording)[:40])
            raise UserError(
                f"{path}: recording {name} is not as GigaSpeech has it ({error!r}); fetch it again."
            ) from error


def recordings(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of the list `audios`, without the whole file in memory."""
    decoder = json.JSONDecoder()
    with open(path, encoding="utf-8") as stream:
        text = stream.read(PIECE)
        _, found, text = text.partition('"audios"')
        text = text.lstrip(" :\n\r\t")
        if not found or not text.startswith("["):
            raise UserError(f"{path} has no list of audios in its beginning; fetch it again.")
        text = text[1:]
        while True:
            text = text.lstrip(" ,\n\r\t")
            if text.startswith("]"):
                return
            try:
                recording, end = decoder.raw_decode(text)
            except json.JSONDecodeError as error:
                if not (more := stream.read(PIECE)):
                    raise UserError(f"{path} ends in a recording; fetch it again.") from error
                text += more
                continue
            yield recording
            text = text[end:]


if __name__ == "__main__":
    run(main)
