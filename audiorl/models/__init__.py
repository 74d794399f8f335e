"""Models: weights in files, each with a checksum of itself."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiorl.errors import UserError, reason

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = "model.safetensors"
NO_CODE = {"trust_remote_code": False}  # of a checkpoint; else transformers asks for a yes
SPEECH_FACTS = "speech.json"  # beside the weights of a speech LM
LARGEST_HEADER = 100 << 20  # bytes; safetensors reads no larger one
EMPTY_SUM = b"00000000"  # in place of the checksum while it is computed
MARK = b'"crc32":"'  # before the checksum, in the metadata of safetensors
MARKED = MARK + EMPTY_SUM + b'"'


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model by name, tied ones once, without the frontend's constants."""
    tensors: dict[str, Tensor] = {}
    # By identity, not by address: the empty shards of small tensors all lie at 0.
    parameters = model.named_parameters(remove_duplicate=False)
    buffers = model.named_buffers(remove_duplicate=False)
    owners = {name: id(tensor) for name, tensor in (*parameters, *buffers)}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if not name.startswith("frontend.") and owners[name] not in seen:
            seen.add(owners[name])
            tensors[name] = tensor.contiguous()
    return tensors


def learning_tensors(
    model: nn.Module, masters: Mapping[nn.Parameter, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return what training may change, by name: parameters that learn, and all buffers.

    Where there are `masters` (of `Optimizers`), these in place of what is rounded.
    """
    parameters, masters = dict(model.named_parameters(remove_duplicate=False)), masters or {}
    return {
        name: masters.get(parameters.get(name), tensor)
        for name, tensor in weights_of(model).items()
        if name not in parameters or parameters[name].requires_grad
    }


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all weights of a model."""
    save_tensors(weights_of(model), path)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors by name as safetensors with their checksum, whole or not at all.

    Of several processes one writes; all have to call it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from audiorl.runtime import ranks
    from audiorl.runtime.files import atomic_path
    from audiorl.runtime.sharding import full

    whole = {}
    for name, tensor in tensors.items():
        value = full(tensor)
        if ranks.is_main():
            whole[name] = value if value is tensor else value.cpu()
    if not ranks.is_main():
        return
    with atomic_path(path) as temporary:
        try:
            save_file(whole, str(temporary), {"format": "pt", "crc32": EMPTY_SUM.decode()})
        except SafetensorError as error:  # it wraps the system's own error
            raise OSError(str(error)) from error
        _seal(temporary)


def _seal(path: Path) -> None:
    """Fill in the checksum of a new file, whose metadata is in any order, and then in one."""
    with open(path, "r+b") as stream:
        start = stream.read(64)
        stream.seek(0)
        stream.write(start.replace(b'"format":"pt",' + MARKED, MARKED + b',"format":"pt"'))
    place, _, actual = _checksum(path)
    with open(path, "r+b") as stream:
        stream.seek(place)
        stream.write(actual)


def open_weights(path: Path) -> Any:
    """Return a file of tensors, to read one at a time; UserError if it is missing or damaged.

    Files of other programs have no checksum. Comparing it takes about 0.4 s a GB.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path}: there is no model; run stage 3, or 5 if RL makes it.")
    try:
        stored = safe_open(path, framework="pt")
        _, written, actual = _checksum(path)
    except (SafetensorError, OSError) as error:
        raise _unusable(path, error) from error
    if written not in (b"", actual):
        raise _unusable(path, ValueError("its checksum is wrong: it was changed or damaged"))
    return stored


def _checksum(path: Path) -> tuple[int, bytes, bytes]:
    """Return the place of the checksum in a file, itself (empty: none), and what it should be."""
    with open(path, "rb") as stream:
        size = stream.read(8)
        header = size + stream.read(min(int.from_bytes(size, "little"), LARGEST_HEADER))
        before, mark, after = header.partition(MARK)
        if not mark:
            return 0, b"", b""
        crc = zlib.crc32(before + mark + EMPTY_SUM + after[len(EMPTY_SUM) :])
        while block := stream.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return len(before + mark), after[: len(EMPTY_SUM)], b"%08x" % crc


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name; UserError if it is missing or damaged."""
    stored = open_weights(path)
    return {name: stored.get_tensor(name) for name in stored.keys()}


def load_weights(model: nn.Module, path: Path) -> None:
    """Read weights; UserError if the file is missing, damaged or of another model."""
    try:
        fill_weights(model, read_weights(path))
    except RuntimeError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: cannot be loaded ({reason(error)}); restore the file or train again."
    )


def fill_weights(
    model: nn.Module, tensors: dict[str, Tensor], expected: Collection[str] | None = None
) -> None:
    """Put tensors into a model; RuntimeError unless they are exactly the `expected`, or all."""
    expected = weights_of(model).keys() if expected is None else set(expected)
    if tensors.keys() != expected:
        names = sorted(tensors.keys() ^ expected)
        raise RuntimeError(f"{len(names)} tensors differ from the model's, {names[0]} first")
    put_tensors(model, tensors)


def put_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors by name into a model; tied weights are filled through their twin."""
    from audiorl.runtime.sharding import put

    if not getattr(model, "sharing", ""):
        model.load_state_dict(tensors, strict=False)
        return
    own = model.state_dict()
    for name, value in tensors.items():
        put(own[name], value)
