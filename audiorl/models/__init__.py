"""Models: weights in files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiorl.errors import UserError, reason

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = "model.safetensors"


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model by name, tied ones once, without the frontend's constants."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if not name.startswith("frontend.") and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.contiguous()
    return tensors


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all weights of a model."""
    save_tensors(weights_of(model), path)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors by name as safetensors, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from audiorl.runtime.files import atomic_path

    with atomic_path(path) as temporary:
        try:
            save_file(tensors, str(temporary))
        except SafetensorError as error:  # it wraps the system's own error
            raise OSError(str(error)) from error


def open_weights(path: Path) -> Any:
    """Return a file of tensors, to read one at a time; UserError if it is missing or cut short."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path}: there is no model; run the training stage that writes it.")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise _unusable(path, error) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name; UserError if it is missing or cut short."""
    stored = open_weights(path)
    return {name: stored.get_tensor(name) for name in stored.keys()}


def load_weights(model: nn.Module, path: Path) -> None:
    """Read weights; UserError if the file is missing, cut short or of another model."""
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
    model.load_state_dict(tensors, strict=False)  # tied weights are filled through their twin
