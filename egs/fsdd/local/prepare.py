"""Makes strings of digits in noise from the Free Spoken Digit Dataset (v1.0.10).

https://github.com/Jakobovski/free-spoken-digit-dataset: 6 speakers, each digit 50 times. The
strings and their sound follow from --seed; what is there already is not made again.

examples:
  local/data.sh --corpus /data/fsdd --out data
  local/data.sh --download true
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from strings import KNOWN, NEW, SETS, TAKES, WORDS, DigitString, Recording, SetSpec, plan, voices_of

from audiorl.bin.cli import parser, run
from audiorl.data.corpus import claim, compare_counts, write_set
from audiorl.data.download import fetch, unpacked
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.runtime.files import progress

# Raise it when the same options make other strings or other sound.
VERSION = 1
MIRROR = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags"
RELEASE = "1.0.10"
SHA256 = "feb479fad3a37883c3d21ed7f982281c2dd1c18d5aefd7e8a5d50f58023392aa"
NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.(wav|flac)")


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--corpus", default="", help="the dataset, or its folder recordings")
    options.add_argument("--out", type=Path, default=Path("data"), help="folder of the sets")
    options.add_argument("--download", choices=("true", "false"), default="false")
    options.add_argument("--mirror", default=MIRROR, help="where --download fetches it")
    options.add_argument("--seed", type=int, default=1, help="other seeds, other strings")
    options.add_argument("--scale", type=float, default=1.0, help="multiplies all sizes")
    args = options.parse_args()
    if args.seed < 0 or not 0 < args.scale <= 100:
        raise UserError(
            f"--seed {args.seed} --scale {args.scale}: expected --seed from 0 and --scale above 0, "
            "up to 100; correct it."
        )
    if args.download == "true":
        args.corpus = args.corpus or "downloads"
        download(Path(args.corpus), args.mirror)
    prepare(find_recordings(args.corpus), args.out, args.seed, args.scale)


def download(folder: Path, mirror: str) -> None:
    """Fetches the release, unless `folder` has recordings; the archive goes away once unpacked."""
    if (folder / "recordings").is_dir():
        print(f"{folder / 'recordings'}: is there")
        return
    archive = folder / f"free-spoken-digit-dataset-{RELEASE}.tar.gz"
    fetch(f"{mirror}/v{RELEASE}.tar.gz", archive, f"sha256:{SHA256}")
    with unpacked(archive) as content:
        found = content / archive.name.removesuffix(".tar.gz")
        os.replace(found / "README.md", folder / "README.md")  # the licence stands in it
        os.replace(found / "recordings", folder / "recordings")
    archive.unlink()
    print(f"{folder / 'recordings'}: downloaded")


def find_recordings(given: str) -> list[Recording]:
    """The recordings in the given folder or its `recordings`, by name; says what is missing."""
    if not given:
        raise UserError(
            "--corpus is needed: the folder of the Free Spoken Digit Dataset that holds "
            "recordings; --download true fetches it (16 MB)."
        )
    folder = Path(os.path.abspath(given))
    folder = folder / "recordings" if (folder / "recordings").is_dir() else folder
    files = sorted(folder.glob("*"))
    matches = [(path, match) for path in files if (match := NAME.fullmatch(path.name))]
    if not matches:
        raise UserError(
            f"{folder} holds no recordings named like 7_jackson_32.wav; give the folder that does, "
            "or --download true."
        )
    found = {
        path.stem: Recording(int(match[1]), match[2], int(match[3]), path)
        for path, match in matches
        if match[2] in KNOWN + NEW and int(match[3]) < TAKES
    }
    print(f"{folder}: kept {len(found):,} of {len(files):,} files, the recordings of the release")
    by_speaker = {
        speaker: [recording for recording in found.values() if recording.speaker == speaker]
        for speaker in sorted(KNOWN + NEW)
    }
    compare_counts(by_speaker, dict.fromkeys(by_speaker, TAKES * len(WORDS)))
    return list(found.values())


def prepare(recordings: Sequence[Recording], out: Path, seed: int, scale: float) -> None:
    """Writes the sets and what audio is missing. Raises UserError for another corpus in `out`."""
    voices = {spec.name: voices_of(spec, recordings) for spec in SETS}
    names = "".join(sorted(recording.path.stem for recording in recordings))
    digest = hashlib.sha256(names.encode()).hexdigest()
    claim(out, {"version": VERSION, "seed": seed, "recordings": digest[:16]})
    for spec in SETS:
        count = math.ceil(spec.size * scale)
        write(out, spec, [plan(spec, index, seed, voices[spec.name]) for index in range(count)])


def write(out: Path, spec: SetSpec, utterances: list[DigitString]) -> None:
    """The audio of a set, as far as it is missing, and its data directory."""
    paths = {u.id: out / "wav" / spec.name / u.speaker / f"{u.id}.wav" for u in utterances}
    if missing := [u for u in utterances if not paths[u.id].exists()]:
        from sound import write_string  # here: a call with nothing to do can spare what it loads

        for utterance in progress(missing, f"making {spec.name}", unit="utt"):
            write_string(paths[utterance.id], utterance)
    listed = [
        Utterance(
            u.id, os.path.abspath(paths[u.id]), u.text, u.speaker,
            tags={"snr": f"{u.snr:g}", "noise": u.noise},
        )
        for u in utterances
    ]  # fmt: skip
    write_set(out / spec.name, listed, genders={})


if __name__ == "__main__":
    run(main)
