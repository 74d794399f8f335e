"""Speech tokens on disk: `tokens`, in Kaldi's text form of integer vectors, and `codec.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from audiorl.data.tables import read_table, scan_table, write_table
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.runtime import ranks
from audiorl.runtime.files import read_json, write_json

TOKENS, CODEC = "tokens", "codec.json"
HISTORIES = "tokens"  # the folder beside an RL set: what the start model speaks of its texts
AGAIN = "run audiorl.bin.speech_tokens again"
SAME_CODEC = f"{AGAIN} with the same codec, or train what reads them again"


class CodecInfo(TypedDict):
    """Codec of some tokens: its facts on which a language model of the tokens depends."""

    kind: str  # `codec.type`
    fingerprint: str
    codebook_size: int
    token_rate: float  # Hz


class CodebookUse(NamedTuple):
    """Use of a codebook."""

    share: float  # of the codes that occur at all
    perplexity: float  # how many codes, all alike frequent, would have the same entropy


def write_tokens(folder: Path, tokens: Mapping[str, Sequence[int]], info: CodecInfo) -> None:
    """Write the tokens of a set, lines `<id> 12 5 700 …` sorted by id, and `info` last."""
    if ranks.is_main():
        (folder / CODEC).unlink(missing_ok=True)
    write_table(folder / TOKENS, {name: " ".join(map(str, row)) for name, row in tokens.items()})
    write_json(folder / CODEC, info)


def read_tokens(folder: Path) -> tuple[dict[str, list[int]], CodecInfo]:
    """Return the tokens of a set by utterance id, and their codec.

    Raises UserError when a file is missing, or when a line holds anything but whole numbers from 0
    up to the codebook's size.
    """
    info = _read_info(folder / CODEC)
    path = folder / TOKENS
    tokens = {}
    for name, value in read_table(path).items():
        try:
            tokens[name] = [int(token) for token in value.split()]
        except ValueError:
            tokens[name] = [-1]
        wrong = [token for token in tokens[name] if not 0 <= token < info["codebook_size"]]
        if wrong:
            line = scan_table(path).lines[name]
            expected = f"whole numbers from 0 to {info['codebook_size'] - 1} (see {CODEC})"
            raise UserError(f"{path}:{line}: {name} has tokens that are not {expected}; {AGAIN}.")
    return tokens, info


def read_tokens_of(
    utterances: Iterable[Utterance], folder: Path
) -> tuple[dict[str, list[int]], CodecInfo]:
    """Return `read_tokens`; raise UserError also if some of the utterances have no tokens."""
    tokens, info = read_tokens(folder)
    wanted = [u.id for u in utterances]
    if missing := [name for name in wanted if not tokens.get(name)]:
        raise UserError(
            f"{folder / TOKENS} has no tokens for {len(missing)} of {len(wanted)} utterances, "
            f"{missing[0]} first; {AGAIN}."
        )
    return tokens, info


def check_codec(
    found: CodecInfo, expected: CodecInfo, name: str, other: str, fix: str = SAME_CODEC
) -> None:
    """Raise UserError unless both (tokens, a codec or a model of tokens) are of one codec.

    name, other: names of the two, such as `exp/codec/tokens/train` and `exp/sft`.
    """
    if found == expected:
        return
    if all(found[key] == expected[key] for key in ("kind", "codebook_size", "token_rate")):
        difference = f"{name} and {other} are of two trainings of the codec"
    else:
        difference = f"{name} has {_describe(found)}, and {other} has {_describe(expected)}"
    raise UserError(f"{difference}; {fix}.")


def codebook_use(tokens: Iterable[Sequence[int]], codebook_size: int) -> CodebookUse:
    """Return the share of the codes that occurs in `tokens`, and their perplexity."""
    import numpy as np

    counts = np.zeros(codebook_size)
    for row in tokens:
        counts += np.bincount(np.asarray(row, dtype=np.int64), minlength=codebook_size)
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return CodebookUse(len(shares) / codebook_size, float(np.exp(-(shares * np.log(shares)).sum())))


def _describe(info: CodecInfo) -> str:
    rate = f"{info['token_rate']:g} tokens a second"
    return f"{rate} of {info['codebook_size']} {info['kind']} codes"


def _read_info(path: Path) -> CodecInfo:
    info = read_json(path, AGAIN)
    try:
        return {
            "kind": str(info["kind"]),
            "fingerprint": str(info["fingerprint"]),
            "codebook_size": int(info["codebook_size"]),
            "token_rate": float(info["token_rate"]),
        }
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} lacks kind, fingerprint, codebook_size or token_rate of a codec; {AGAIN}."
        ) from error
