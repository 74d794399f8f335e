"""Settings of a codec, as they are saved beside its weights."""

from __future__ import annotations

from dataclasses import dataclass

from audiorl.config.codec import CodecConfig, FlowConfig
from audiorl.config.field import key
from audiorl.config.model import FrontendConfig
from audiorl.config.schema import Config


@dataclass
class CodecSettings:
    """Sections that a codec is made of; a pretrained one is measured with the frontend alone."""

    kind: str = key("codec", "kind of model", choices=("codec",))
    sample_rate: int = key(16000, "Hz", ge=1)
    seed: int = key(0, "of the noise that the flow starts from", ge=0)
    frontend: FrontendConfig = key(FrontendConfig, "features")
    codec: CodecConfig = key(CodecConfig, "waves to tokens")
    flow: FlowConfig = key(FlowConfig, "tokens to waves")

    @classmethod
    def of(cls, config: Config) -> CodecSettings:
        """Return those of a recipe."""
        rate, seed = config.data.sample_rate, config.seed
        return cls("codec", rate, seed, config.frontend, config.codec, config.flow)
