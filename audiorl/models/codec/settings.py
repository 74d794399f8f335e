"""Settings of a codec, as they are saved beside its weights."""

from __future__ import annotations

from dataclasses import dataclass

from audiorl.config.codec import CodecShape, FlowShape
from audiorl.config.field import key
from audiorl.config.model import FrontendConfig
from audiorl.config.schema import Config
from audiorl.models.settings import part_of


@dataclass
class CodecSettings:
    """Sections that a codec is made of; a pretrained one is measured with the frontend alone."""

    kind: str = key("codec", "kind of model", choices=("codec",))
    sample_rate: int = key(16000, "Hz", ge=1)
    seed: int = key(0, "of the noise that the flow starts from", ge=0)
    frontend: FrontendConfig = key(FrontendConfig, "features")
    codec: CodecShape = key(CodecShape, "waves to tokens")
    flow: FlowShape = key(FlowShape, "tokens to waves")

    @classmethod
    def of(cls, config: Config) -> CodecSettings:
        """Return those of a recipe."""
        parts = part_of(config.codec, CodecShape), part_of(config.flow, FlowShape)
        return cls("codec", config.data.sample_rate, config.seed, config.frontend, *parts)
