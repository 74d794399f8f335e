"""Unpacks a zip of `audiorl.bin.pack`, after checking that it is whole and stays in its folder.

example:
  python -m audiorl.bin.unpack grpo.zip exp/grpo
  python -m audiorl.bin.decode --config exp/grpo/config.yaml --dump dump exp/grpo
  python -m audiorl.bin.unpack grpo.zip exp/grpo --run talk.flac

A system of synthesis has its codec and its voices in DIR/codec, and speaks:
  python -m audiorl.bin.unpack both.zip exp/both
  python -m audiorl.bin.synthesise --config exp/both/config.yaml --dump dump \\
      --codec exp/both/codec exp/both
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from audiorl.bin import cli
from audiorl.bin.pack import CODEC_FOLDER, META, PACKED_PARTS
from audiorl.errors import UserError, visible
from audiorl.runtime.files import progress, remove_leftovers

LARGEST_META = 16 << 20  # bytes
BLOCK_BYTES = 1 << 20  # bytes
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


def main() -> None:
    parser = cli.parser(__doc__, config=False)
    parser.add_argument("zip", type=Path, help="written by pack")
    parser.add_argument("dir", type=Path, help="a new or empty folder")
    parser.add_argument("--run", nargs="+", metavar="FILE", help="transcribe these right away")
    parser.add_argument(
        "--base", type=Path, help="folder of the pretrained model, where the zip refers to one"
    )
    args = parser.parse_args()
    meta = unpack(args.zip, args.dir, args.base)
    told = f"packed {meta['created']} by audiorl {meta['audiorl']}"
    print(visible(f"{args.dir}: {len(meta['files'])} files, checksums right, {told}"))
    if not args.run:
        print(advice(args.dir, meta))
        return
    from audiorl.infer.files import open_model, transcribe_files

    model, config = open_model(args.dir)
    for transcript in transcribe_files(model, config, args.run):
        print(f"{transcript.file}: {transcript.text}")


@contextlib.contextmanager
def opened(model: str) -> Iterator[str]:
    """Yield what `model` names; of a zip, a folder with its content, removed in the end."""
    if not os.path.isfile(model):
        yield model
        return
    with tempfile.TemporaryDirectory() as folder:
        unpack(Path(model), Path(folder) / "system")
        yield f"{folder}/system"


def advice(folder: Path, meta: dict) -> str:
    """Return the command that decodes, or speaks, with the unpacked system."""
    name, codec = shlex.quote(str(folder)), shlex.quote(str(folder / CODEC_FOLDER))
    config = shlex.quote(str(folder / "config.yaml"))
    verb, command, options = "decode", "decode", ""
    if any(member.startswith(f"{CODEC_FOLDER}/") for member in meta["files"]):
        verb, command, options = "speak", "synthesise", f" --codec {codec}"
    return (
        f"to {verb}: python -m audiorl.bin.{command} --config {config} --dump dump{options} {name}"
    )


def unpack(source: Path, folder: Path, base: Path | None = None) -> dict:
    """Fill `folder` with the whole content or not at all; return meta.json.

    A model that was packed by reference is made whole with `base`, or what the hub has. Raises
    UserError when the zip is damaged, differs from its meta.json in any name, size or
    checksum, or holds a name or a link that could lead out of `folder`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; name a new one, nothing is overwritten.")
    if not source.is_file():
        raise UserError(f"{source} does not exist; give the zip that pack wrote.")
    remove_leftovers(folder.parent.glob(f".{folder.name}.*.tmp"))
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(source) as archive:
            meta = _read_meta(source, archive)
            entries = _check_entries(source, archive, meta["files"])
            folder.parent.mkdir(parents=True, exist_ok=True)
            total = sum(entry.file_size for entry in entries)
            if total > shutil.disk_usage(folder.parent).free:
                raise UserError(f"{source} needs {total / 1e6:.0f} MB; free the disk of {folder}.")
            for entry in progress(entries, desc="unpacking", unit="file"):
                _extract(source, archive, entry, temporary, meta["files"])
        (temporary / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        _complete(temporary, base)
        os.replace(temporary, folder)
    except (*DAMAGED, UnicodeError, ValueError, RuntimeError) as error:
        raise UserError(f"{source} is damaged or no zip ({error}); copy it again.") from error
    except OSError as error:
        raise UserError(
            f"{source} cannot be unpacked to {folder} ({error.strerror or error}); free the disk "
            "or fix access, then run again."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return meta


def _complete(folder: Path, base: Path | None) -> None:
    # Only where there is something to do: it imports torch.
    referring = [
        folder / part for part in PACKED_PARTS if (folder / part / "reference.json").is_file()
    ]
    if referring:
        from audiorl.config import load_config
        from audiorl.models.reference import restore

        config = load_config(folder / "config.yaml")
        for part in referring:
            restore(part, config, base)


def _read_meta(source: Path, archive: zipfile.ZipFile) -> dict:
    try:
        entry = archive.getinfo(META)
        if entry.file_size > LARGEST_META:
            raise ValueError(f"{entry.file_size} bytes long")
        meta = json.loads(archive.read(entry))
        for member in meta["files"].values():
            if type(member["size"]) is not int or type(member["sha256"]) is not str:
                raise ValueError("a size or a checksum is none")
        return {"audiorl": str(meta["audiorl"]), "created": str(meta["created"])} | {
            "files": meta["files"]
        }
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, LookupError) as error:
        raise UserError(
            f"{source} has no readable {META} ({error}); only zips of audiorl.bin.pack can be "
            "unpacked."
        ) from error


def _check_entries(
    source: Path, archive: zipfile.ZipFile, files: dict[str, dict]
) -> list[zipfile.ZipInfo]:
    entries = [entry for entry in archive.infolist() if entry.filename != META]
    names = [entry.filename for entry in entries]
    for entry in entries:
        name = entry.filename
        path = PurePosixPath(name)
        if (
            not path.parts
            or path.is_absolute()
            or ".." in path.parts
            or "\\" in name
            or path.as_posix() != name
        ):
            raise UserError(f"{source}: the name {name!r} leads out of its folder; do not use it.")
        if not stat.S_ISREG(entry.external_attr >> 16) or entry.flag_bits & 1:
            raise UserError(f"{source}: {name} is a link or no plain file; do not use this zip.")
        if name in files and entry.file_size != files[name]["size"]:
            raise UserError(
                f"{source}: {name} expands to {entry.file_size} bytes, not to the "
                f"{files[name]['size']} that {META} declares; get the zip again from its source."
            )
    if len(set(names)) != len(names) or set(names) != files.keys():
        odd = sorted(set(names) ^ files.keys()) or sorted(n for n in names if names.count(n) > 1)
        raise UserError(
            f"{source}: {odd[0]} is in the zip or in {META} but not once in both; get the zip "
            "again from its source."
        )
    return entries


def _extract(
    source: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, files: dict
) -> None:
    # Never more than the declared size is written.
    target = folder / entry.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), entry.file_size
    with archive.open(entry) as stream, open(target, "wb") as written:
        while left >= 0 and (block := stream.read(min(BLOCK_BYTES, left + 1))):
            left -= len(block)
            digest.update(block)
            written.write(block)
    if left or digest.hexdigest() != files[entry.filename]["sha256"]:
        raise UserError(
            f"{source}: {entry.filename} differs from the checksum in {META}; copy the zip again."
        )
    target.chmod(0o755 if entry.filename.endswith(".sh") else 0o644)


if __name__ == "__main__":
    cli.run(main)
