"""Packs a trained system into one zip: model, configs, environment, results, checksums.

example:
  python -m audiorl.bin.pack exp/grpo --out exp/grpo/grpo.zip
  python -m audiorl.bin.pack exp/both --dump dump --codec exp/codec --out exp/both/both.zip

A pretrained recogniser is packed whole, or with --by_reference: what learnt (adapters, or the
tensors that changed) with the name, revision and checksums of its base.

A system of synthesis brings its codec and the vectors of its speakers, which are made here of the
training recordings. `python -m audiorl.bin.unpack grpo.zip DIR` makes DIR a folder to decode with,
or to speak with, on any machine.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import re
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

import yaml

import audiorl
from audiorl.bin import cli
from audiorl.config.pretrained import MODEL_TYPES
from audiorl.errors import UserError
from audiorl.infer.voices import VOICES
from audiorl.models import SPEECH_FACTS, open_weights
from audiorl.runtime.files import (
    atomic_path,
    atomic_write,
    progress,
    read_json,
    remove_leftovers,
    sha256,
)

META = "meta.json"
CODEC_FOLDER = "codec"  # of synthesis: its codec and its voices, below the experiment once unpacked
ADAPTED_MODEL = "model/adapted.yaml"  # of a model that is adapters alone (models/lora.py)
MERGED = "merged"  # that model with its base, below the experiment
REFERRING = "by_reference"  # that model, or another, without its base: the folders of PACKED_PARTS
PACKED_PARTS = ("base", "model")  # below a packed system; base: of adapters
NEEDED = ("config.yaml", "model/config.yaml", "model/model.safetensors")
EXPECTED = ("env.json", "run.sh", "RESULTS.md", "report.html")
TEXTS = (".html", ".json", ".md", ".py", ".sh", ".yaml")
ABSOLUTE = re.compile(
    r"""(?:(?<=[\s"'=(\[>;`])|^)/(?!(?:bin|dev|usr)/)(?:[\w.+@%,-]+/)+[\w.+@%,-]*""", re.MULTILINE
)
PASSWORD = re.compile(r"https?://[^\s/@:\"']*:[^\s/@\"']+@")
# Keys of what a model or a part of it was before it was trained on: its weights are packed, and
# nothing reads them again, so that of a folder of this machine the name alone is packed.
ORIGINS = ("model.pretrained", "encoder.pretrained", "llm.pretrained", "pretrained")
KEPT_FILES = (
    "model/**/*",
    "rewards/*.py",
    "images/*",
    "decode_*/result.json",
    "decode_*/*/result.json",
)


def main() -> None:
    parser = cli.parser(__doc__, config=False)
    parser.add_argument("exp", type=Path, help="experiment folder")
    parser.add_argument("--out", type=Path, required=True, help="the zip to write")
    parser.add_argument("--codec", type=Path, help="of synthesis: experiment of the codec")
    parser.add_argument("--dump", type=Path, help="of synthesis: folder of the formatted sets")
    parser.add_argument(
        "--by_reference", action="store_true", help="pretrained recognisers: without their base"
    )
    args = parser.parse_args()
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    if args.by_reference:
        refer(args.exp)
    else:
        shutil.rmtree(args.exp / REFERRING, ignore_errors=True)
        merge(args.exp)
    keep_card(args.exp)
    if args.codec and args.dump:
        keep_voices(args.exp, args.codec, args.dump)
    changed = pack(args.exp, args.out, now, args.codec)
    missing = [name for name in EXPECTED if not (args.exp / name).exists()]
    if missing:
        print(f"{args.exp} has no {', '.join(missing)}: packed without.")
    size = args.out.stat().st_size / 1e6
    print(f"{args.out}: {'packed' if changed else 'up to date'}, {size:.1f} MB")


def merge(exp: Path) -> None:
    """Write the whole model below `exp` where that has adapters alone."""
    from audiorl.models import WEIGHTS
    from audiorl.models.lora import merge_adapters
    from audiorl.models.policy import load_policy, model_files
    from audiorl.runtime.stamps import Stamp

    if not (exp / ADAPTED_MODEL).is_file():
        return
    merged = exp / MERGED
    inputs = model_files(exp / "model")
    stamp = Stamp(exp / f"{MERGED}.json", {}, inputs, [merged / WEIGHTS])
    if not stamp.is_current(merged):
        model = load_policy(exp / "model")
        merge_adapters(model)
        model.save(merged)
        stamp.write()


def refer(exp: Path) -> None:
    """Write the model of a pretrained recogniser below `exp` without what its base has.

    Raises UserError for other models, and where the base cannot be read.
    """
    from audiorl.config import load_config
    from audiorl.config.loader import load_section
    from audiorl.models.lora import Adapted
    from audiorl.models.policy import saved_family
    from audiorl.models.reference import write_reference

    model, out, adapted = exp / "model", exp / REFERRING, exp / ADAPTED_MODEL
    if saved_family(model) not in MODEL_TYPES.values():
        raise UserError(f"--by_reference: {exp} has no pretrained base; pack it whole.")
    config = load_config(exp / "config.yaml")
    shutil.rmtree(out, ignore_errors=True)
    if not adapted.is_file():
        write_reference(model, config, out / "model")
        return
    base = model / load_section(Adapted, adapted).base
    write_reference(base, config, out / "base")
    shutil.copytree(model, out / "model")
    text = adapted.read_text(encoding="utf-8")
    text = re.sub(r"^base: \S+", "base: ../base", text, flags=re.MULTILINE)
    (out / ADAPTED_MODEL).write_text(text, encoding="utf-8")


def keep_card(exp: Path) -> None:
    """Write the model card of a pretrained recogniser beside its weights; others have none."""
    from audiorl.models.policy import saved_family
    from audiorl.report.card import CARD, model_card

    model = exp / "model"
    # What was unpacked has its card, and may not have the base's licence at hand.
    if not (exp / META).exists() and saved_family(model) in MODEL_TYPES.values():
        folder = exp / MERGED if (exp / ADAPTED_MODEL).is_file() else model
        if (exp / REFERRING).is_dir():
            folder = exp / REFERRING / "model"
        with atomic_write(folder / CARD) as stream:
            stream.write(without_paths(model_card(exp)))


def keep_voices(exp: Path, codec: Path, dump: Path) -> None:
    """Write the vectors of the train set's speakers below `exp`; a recogniser has none."""
    from audiorl.config import load_config
    from audiorl.data.speech_tokens import check_codec
    from audiorl.data.tables import set_files
    from audiorl.data.utterance import read_utterances
    from audiorl.infer.voices import speaker_voices, write_voices
    from audiorl.models import WEIGHTS
    from audiorl.models.codec import codec_info, load_codec
    from audiorl.runtime.device import pick_device, setup_torch
    from audiorl.runtime.stamps import Stamp

    if not (exp / "model" / SPEECH_FACTS).is_file():
        return
    config = load_config(exp / "config.yaml")
    setup_torch(config.num_threads)
    loaded = load_codec(codec / "model", str(pick_device(config.device)))
    facts = exp / "model" / SPEECH_FACTS
    expected = read_json(facts, "restore it or train again").get("codec", {})
    fix = f"name the codec that {exp} was trained on"
    check_codec(codec_info(loaded), expected, str(codec), str(exp), fix)
    voices, train = exp / CODEC_FOLDER / VOICES, dump / config.data.train
    inputs = {"codec": codec / "model" / WEIGHTS, **set_files(train)}
    stamp = Stamp(voices.with_name(f"{VOICES}.json"), {}, inputs, [voices])
    if not stamp.is_current(voices):
        recordings = read_utterances(train)
        speakers = {u.speaker for u in recordings}
        found = speaker_voices(loaded, recordings, speakers)
        write_voices(voices, {name: voice.vector for name, voice in found.items()})
        stamp.write()


def pack(exp: Path, out: Path, created: datetime.datetime, codec: Path | None = None) -> bool:
    """Write `out`; return False when it already holds the same files.

    `codec`: of synthesis, its experiment; None for a system that was unpacked. Raises UserError
    when the model is missing or damaged, when a config names a path of this machine or when a text
    holds a password. Other texts lose their paths.
    """
    remove_leftovers(out.parent.glob(f".{out.name}.*.tmp"))
    files = _members(exp, codec or exp / CODEC_FOLDER)
    texts = {n: _portable(n, path) for n, path in files.items() if path.suffix in TEXTS}
    for path in files.values():
        if path.suffix == ".safetensors":
            open_weights(path)
    listed = {}
    for name, path in progress(files.items(), desc="checksums", unit="file"):
        if name in texts:
            sum_, size = hashlib.sha256(texts[name]).hexdigest(), len(texts[name])
        else:
            sum_, size = sha256(path), path.stat().st_size
        listed[name] = {"sha256": sum_, "size": size}
    if _packed_files(out) == listed:
        return False
    meta = {"audiorl": audiorl.__version__, "created": created.isoformat(), "files": listed}
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(_entry(META, created), json.dumps(meta, indent=2) + "\n")
        for name, path in progress(files.items(), desc="packing", unit="file"):
            entry = _entry(name, created)
            entry.file_size = listed[name]["size"]
            source = io.BytesIO(texts[name]) if name in texts else open(path, "rb")
            with source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    return True


def _portable(name: str, path: Path) -> bytes:
    """Return a text as it is packed; UserError if it holds a password.

    Paths of this machine are made relative in what people read; the user's code stays as it is.
    """
    content = path.read_bytes()
    text = content.decode(errors="replace")
    if PASSWORD.search(text):
        raise UserError(
            f"{path}: an address there holds a password, which a pack would spread; remove it, see "
            "authorization in docs/rewards.md, and pack again."
        )
    if path.name == "config.yaml":
        for key, value in _strings(yaml.safe_load(text)):
            if key in ORIGINS and os.path.isabs(value):
                text = text.replace(value, PurePosixPath(value).name)
        return text.encode()
    if name in EXPECTED or path.name == "result.json":
        return without_paths(text).encode()
    if path.suffix == ".py" and (found := ABSOLUTE.search(text)):
        print(f"{path} names {found[0]}, a path of this machine: packed as it is.")
    return content


def without_paths(text: str) -> str:
    """Return a text for other machines: absolute paths become relative, or their last name."""
    return ABSOLUTE.sub(lambda found: _relative(found[0]), text)


def _relative(path: str) -> str:
    here = os.getcwd()
    inside = path == here or path.startswith(here + "/")
    return os.path.relpath(path, here) if inside else f"…/{PurePosixPath(path).name}"


def _members(exp: Path, codec: Path) -> dict[str, Path]:
    for name in NEEDED:
        if not (exp / name).is_file():
            raise UserError(
                f"{exp / name} is missing, and nothing decodes without it; train first."
            )
    found = [exp / name for name in (*NEEDED, *EXPECTED)]
    found += [path for pattern in KEPT_FILES for path in exp.glob(pattern)]
    files = {path.relative_to(exp).as_posix(): path for path in found if _is_kept(path)}
    elsewhere = {}
    if (exp / REFERRING).is_dir():
        elsewhere = {part: exp / REFERRING / part for part in PACKED_PARTS}
    elif (exp / ADAPTED_MODEL).is_file():
        elsewhere = {"model": exp / MERGED}
    if elsewhere:
        files = {name: path for name, path in files.items() if not name.startswith("model/")}
    for part, folder in elsewhere.items():
        kept = filter(_is_kept, folder.rglob("*"))
        files |= {f"{part}/{path.relative_to(folder).as_posix()}": path for path in kept}
    for name in ("config.yaml", "model/config.yaml"):
        for key, value in _portable_strings(exp / name):
            if key.split(".")[-1] == "reward_file" and value:
                member = _inside(exp, name, key, value)
                files[member.as_posix()] = exp / member
    if (exp / "model" / SPEECH_FACTS).is_file():
        files |= _codec_members(exp, codec)
    return dict(sorted(files.items()))


def _codec_members(exp: Path, codec: Path) -> dict[str, Path]:
    folder, voices = codec / "model", exp / CODEC_FOLDER / VOICES
    if not (folder / "model.safetensors").is_file() or not voices.is_file():
        raise UserError(
            f"{exp} is a speech LM, which is mute without its codec and the vectors of its "
            "speakers; name --codec, the codec's experiment, and --dump, the formatted sets."
        )
    _portable_strings(folder / "config.yaml")
    kept = {
        f"{CODEC_FOLDER}/model/{path.relative_to(folder).as_posix()}": path
        for path in folder.rglob("*")
        if _is_kept(path)
    }
    return {**kept, f"{CODEC_FOLDER}/{VOICES}": voices}


def _is_kept(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _portable_strings(config: Path) -> list[tuple[str, str]]:
    found = _strings(yaml.safe_load(config.read_text(encoding="utf-8")))
    for key, value in found:
        if key not in ORIGINS and (os.path.isabs(value) or value.startswith("~")):
            raise UserError(
                f"{config}: {key} is {value}, a path of this machine; write a path relative to "
                "the recipe there (or a hub name) and pack again."
            )
    return found


def _inside(exp: Path, config: str, key: str, value: str) -> PurePosixPath:
    name = PurePosixPath(value)
    if ".." in name.parts or not (exp / name).is_file():
        raise UserError(
            f"{exp / config}: {key} is {value}, and {exp} has no such file, though training keeps "
            "a copy; put it there and pack again."
        )
    return name


def _strings(node: object, key: str = "") -> list[tuple[str, str]]:
    if isinstance(node, dict):
        below = ((f"{key}.{name}" if key else str(name), value) for name, value in node.items())
    elif isinstance(node, list):
        below = ((f"{key}[{index}]", value) for index, value in enumerate(node))
    else:
        return [(key, node)] if isinstance(node, str) else []
    return [found for name, value in below for found in _strings(value, name)]


def _entry(name: str, created: datetime.datetime) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, created.timetuple()[:6])
    entry.create_system = 3  # Unix, so that the bytes are the same on every system
    mode = 0o755 if name.endswith(".sh") else 0o644
    entry.external_attr = (stat.S_IFREG | mode) << 16
    weights = name.endswith(".safetensors")  # noise does not compress
    entry.compress_type = zipfile.ZIP_STORED if weights else zipfile.ZIP_DEFLATED
    return entry


def _packed_files(out: Path) -> dict | None:
    try:
        with zipfile.ZipFile(out) as archive:
            return json.loads(archive.read(META))["files"]
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError):
        return None  # absent, or not ours: packed again


if __name__ == "__main__":
    cli.run(main)
