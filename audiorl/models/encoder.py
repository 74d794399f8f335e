"""ESPnet's audio encoders, made independent of padding."""

from __future__ import annotations

import contextlib
import io
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

with contextlib.redirect_stdout(io.StringIO()):  # ESPnet prints that flash_attn is not there
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
    from espnet2.asr.encoder.e_branchformer_encoder import EBranchformerEncoder
    from espnet2.asr.encoder.transformer_encoder import TransformerEncoder

from audiorl.config.model import EncoderSizes
from audiorl.errors import UserError, reason


def _conformer(config: EncoderSizes, common: dict) -> nn.Module:
    return ConformerEncoder(
        **common,
        linear_units=config.linear_units,
        macaron_style=True,
        rel_pos_type="latest",
        cnn_module_kernel=config.kernel_size,
        use_flash_attn=False,
    )


def _e_branchformer(config: EncoderSizes, common: dict) -> nn.Module:
    return EBranchformerEncoder(
        **common,
        use_ffn=True,
        macaron_ffn=True,
        linear_units=config.linear_units,
        cgmlp_linear_units=config.linear_units,
        cgmlp_conv_kernel=config.kernel_size,
        merge_conv_kernel=config.kernel_size,
        use_flash_attn=False,
    )


def _transformer(config: EncoderSizes, common: dict) -> nn.Module:
    return TransformerEncoder(**common, linear_units=config.linear_units)


ENCODERS = {
    "conformer": _conformer,
    "e_branchformer": _e_branchformer,
    "transformer": _transformer,
}


class Encoder(nn.Module):
    """Features [B, T, n_mels] to frames [B, T', output_size].

    The input layer `linear`, which no recipe can name, does not subsample: T' = T.

    ESPnet lets padding in at two places: the subsampling keeps a last frame that is partly padding,
    and the convolutions over time read beyond the end of an utterance. Two hooks close both, so
    that an utterance's frames are the same alone and in any batch (tested).
    """

    def __init__(
        self, config: EncoderSizes, n_mels: int, input_layer: str = "conv2d", init: str = ""
    ) -> None:
        super().__init__()
        common = {
            "input_size": n_mels,
            "output_size": config.output_size,
            "attention_heads": config.attention_heads,
            "num_blocks": config.num_blocks,
            "dropout_rate": config.dropout_rate,
            "positional_dropout_rate": config.dropout_rate,
            "input_layer": input_layer,
        }
        self.espnet = ENCODERS[config.type](config, common)
        self.output_size = config.output_size
        self._real: Tensor | None = None  # [B, 1, T'], True on frames of the utterance
        self._lengths: Tensor | None = None  # [B]
        self._convolutions = [
            m for m in getattr(self.espnet.embed, "conv", ()) if isinstance(m, nn.Conv2d)
        ]
        if self._convolutions:
            self.espnet.embed.register_forward_hook(self._exact_mask)
        for module in self.espnet.encoders.modules():
            if isinstance(module, nn.Conv1d) and module.kernel_size[0] > 1:
                module.register_forward_pre_hook(self._silence_padding)
        if init:
            self._load_espnet(Path(init))

    def num_frames(self, features: Tensor) -> Tensor:
        """Return the numbers of output frames [B] of inputs with this many feature frames [B]."""
        frames = features
        for module in self._convolutions:
            frames = (
                torch.div(frames - module.kernel_size[0], module.stride[0], rounding_mode="floor")
                + 1
            )
        return frames

    @property
    def shortest(self) -> int:
        """Least number of feature frames that give one output frame."""
        return next(n for n in range(1, 100) if self.num_frames(torch.tensor(n)) >= 1)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames [B, T', D] and lengths [B] of features [B, T, n_mels], lengths [B]."""
        self._lengths = self.num_frames(lengths)
        longest = self.num_frames(torch.tensor(features.size(1))).item()
        self._real = (torch.arange(longest, device=features.device) < self._lengths[:, None])[
            :, None
        ]
        frames, _, _ = self.espnet(features, lengths)
        return frames, self._lengths

    def _exact_mask(self, module: nn.Module, inputs: tuple, output: tuple) -> tuple:
        embedded, _ = output
        return embedded, self._real

    def _silence_padding(self, module: nn.Module, inputs: tuple) -> tuple:
        return (inputs[0] * self._real, *inputs[1:])  # [B, D, T']

    def _load_espnet(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(
                f"encoder.init: {path} does not exist; give an ESPnet ASR checkpoint (.pth)."
            )
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise UserError(
                f"encoder.init: {path} is not a whole checkpoint of tensors alone; "
                "give an ESPnet ASR checkpoint (.pth)."
            ) from error
        weights = weights.get("model", weights)
        mine = {
            k.removeprefix("encoder."): v for k, v in weights.items() if k.startswith("encoder.")
        }
        try:
            self.espnet.load_state_dict(mine)
        except RuntimeError as error:
            raise UserError(
                f"encoder.init: {path} does not fit the encoder of this config ({reason(error)}); "
                "copy encoder_conf of its config.yaml."
            ) from error
