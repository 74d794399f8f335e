"""The speech tokens of a set: `<utt-id> 12 5 700 …` lines, and beside them whose they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from audiorl.data.tables import read_table, write_table
from audiorl.errors import UserError
from audiorl.files import write_json

TOKENS, CODEC = "tokens", "codec.json"


@dataclass(frozen=True)
class CodecInfo:
    """Which codec made tokens: those of another mean other sounds."""

    fingerprint: str  # of its weights; empty: not known
    codebook_size: int
    token_rate: float  # Hz


def write_tokens(folder: Path, tokens: Mapping[str, Sequence[int]], info: CodecInfo) -> None:
    """Writes folder/codec.json and, last, folder/tokens."""
    write_json(folder / CODEC, asdict(info))
    write_table(folder / TOKENS, {name: " ".join(map(str, row)) for name, row in tokens.items()})


def read_tokens(folder: Path) -> tuple[dict[str, list[int]], CodecInfo]:
    """Tokens by utterance id, and their codec; UserError names file and line of what is wrong."""
    if not (folder / TOKENS).exists():
        raise UserError(f"{folder / TOKENS} does not exist; run the stage that writes it (3).")
    info = read_codec_info(folder / CODEC)
    tokens = {}
    for line, (name, value) in enumerate(read_table(folder / TOKENS).items(), start=1):
        try:
            tokens[name] = [int(token) for token in value.split()]
        except ValueError:
            tokens[name] = [-1]
        if any(not 0 <= token < info.codebook_size for token in tokens[name]):
            raise UserError(
                f"{folder / TOKENS}:{line}: {name}: expected tokens from 0 to "
                f"{info.codebook_size - 1}; run stage 3 again."
            )
    return tokens, info


def read_codec_info(path: Path) -> CodecInfo:
    """Reads codec.json; UserError if it is missing or not whole."""
    try:
        return CodecInfo(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} does not describe a codec ({error}); run stage 3 again."
        ) from error
