"""Hypotheses on disk: of exactly the utterances of a set, with what decoding noted of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from audiorl.data.tables import AUDIO_HASH, read_table
from audiorl.errors import UserError
from audiorl.runtime.files import read_json
from audiorl.runtime.stamps import digest


def read_hypotheses(path: Path, ids: list[str], references: Path) -> dict[str, str]:
    """Return the hypotheses of a set by id."""
    if not path.exists():
        raise UserError(f"{path} does not exist; decode first (stage 6).")
    hypotheses = read_table(path)
    check_ids(path, hypotheses, ids, references)
    return hypotheses


def check_ids(
    path: Path,
    found: Iterable[str],
    ids: list[str],
    references: Path,
    fix: str = "decode again (stage 6)",
) -> None:
    """Raise UserError unless `found`, of the file `path`, has exactly the utterances of a set."""
    found = set(found)
    missing = sorted(set(ids) - found)
    if missing:
        raise UserError(
            f"{path} lacks {len(missing)} of the {len(ids)} utterances of {references} "
            f"({some(missing)}); {fix}."
        )
    unknown = sorted(found - set(ids))
    if unknown:
        raise UserError(
            f"{path} has {len(unknown)} utterances that {references} does not know "
            f"({some(unknown)}); remove them, or {fix}."
        )


def read_decoding(path: Path) -> dict:
    """Return the content of decode.json; empty without it."""
    if not path.exists():  # hypotheses of another program
        return {}
    again = "remove it and decode again (stage 6)"
    found = read_json(path, again)
    cut, seconds = found.get("truncated", []), found.get("seconds")
    if not isinstance(cut, list) or type(seconds) not in (int, float, type(None)):
        raise UserError(f"{path} is not whole (truncated or seconds is wrong); {again}.")
    return {**found, "truncated": list(map(str, cut))}


def some(ids: list[str]) -> str:
    """Return the first ids."""
    return ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")


def check_recordings(folder: Path, decoding: dict, data: Path) -> None:
    """Raise UserError if other recordings were decoded than those of the set now."""
    decoded = decoding.get("inputs", {}).get(f"{data.name}/{AUDIO_HASH}")
    if decoded and decoded != digest(data / AUDIO_HASH):
        raise UserError(
            f"{folder}: other recordings were decoded than {data} has now; decode the set again "
            "(stage 6)."
        )
