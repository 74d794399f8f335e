"""Models: building, saving and loading."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from audiorl.errors import UserError, reason

if TYPE_CHECKING:
    from torch import Tensor, nn

    from audiorl.models.audio_llm import AudioLLM
    from audiorl.models.speech_lm import SpeechLM

    Model = AudioLLM | SpeechLM

WEIGHTS = "model.safetensors"


def save_model(model: Model, folder: Path) -> None:
    """Writes everything that decoding needs: config, tokenizer, LM config, weights (last)."""
    from audiorl.config import dump_config
    from audiorl.runtime.files import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "config.yaml") as stream:
        stream.write(dump_config(model.config))
    model.save_vocabulary(folder)
    model.llm.config.save_pretrained(folder)
    save_weights(model, folder / WEIGHTS)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model by name, tied ones once; the frontend's follow from its config."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if not name.startswith("frontend.") and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.contiguous()
    return tensors


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes the weights as safetensors, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from audiorl.runtime.files import atomic_path

    with atomic_path(path) as temporary:
        try:
            save_file(weights_of(model), str(temporary))
        except SafetensorError as error:  # it wraps the system's own error
            raise OSError(str(error)) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; UserError if it is missing or cut short."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{path}: there is no model; run the training stage that writes it.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unusable(path, error) from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Reads weights; UserError if the file is missing, cut short or of another model."""
    try:
        fill_weights(model, read_weights(path))
    except RuntimeError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: cannot be loaded ({reason(error)}); restore the file or train again."
    )


def fill_weights(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Puts tensors into a model; RuntimeError unless they are exactly those of `weights_of`."""
    expected = weights_of(model).keys()
    if tensors.keys() != expected:
        names = sorted(tensors.keys() ^ expected)
        raise RuntimeError(f"{len(names)} tensors differ from the model's, {names[0]} first")
    model.load_state_dict(tensors, strict=False)  # tied weights are filled through their twin


def load_model(folder: str | Path, device: str = "cpu") -> Model:
    """The model saved in `folder`, in evaluation mode, with the config it was saved with.

    An audio LLM or a speech LM, by the config's task.
    """
    from audiorl.config import load_config

    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder}: there is no model; run the training stage that writes it.")
    config = load_config(folder / "config.yaml")
    if config.task == "asr":
        from audiorl.models.audio_llm import AudioLLM as model_type
    else:
        from audiorl.models.speech_lm import SpeechLM as model_type
    try:
        model = model_type.load(config, folder)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{folder}: the model is not whole ({reason(error)}); restore the folder or train "
            "again."
        ) from error
    load_weights(model, folder / WEIGHTS)
    return model.to(device).eval()
