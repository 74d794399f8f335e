"""What the keys of a speech codec must fulfil together."""

from __future__ import annotations

from collections.abc import Iterator

from audiorl.config.field import Rule
from audiorl.config.schema import Config

MOST_CODES = 65_536  # of xcodec2; a language model has an embedding for each


def broken_codec_rules(config: Config) -> Iterator[Rule]:
    """The rules of `codec` and `flow` that a config of valid keys breaks."""
    codec, flow = config.codec, config.flow
    if (codec.type == "native") == bool(codec.pretrained):
        keys = ("codec.pretrained", "codec.type")
        if codec.pretrained:
            yield keys, "a native codec is trained here; set codec.type to what it is, or remove it"
        else:
            yield keys, f"there is no {codec.type} to load; name its folder or hub name"
    if codec.type != "native":
        return
    if config.frontend.type != "log_mel":
        keys = ("frontend.type", "codec.type")
        yield keys, "a native codec speaks log-mel frames; set log_mel"
    if codec.output_size % codec.attention_heads or codec.output_size % 2:
        keys = ("codec.output_size", "codec.attention_heads")
        heads = f"{codec.attention_heads} attention heads"
        yield keys, f"must be even and a multiple of the {heads}; change one"
    for section, size in (("codec", codec.kernel_size), ("flow", flow.kernel_size)):
        if size % 2 == 0:
            yield (f"{section}.kernel_size",), f"must be odd; set {size + 1}"
    if codec.fsq_levels % 2 == 0:
        message = f"must be odd, so that 0 is one of them; set {codec.fsq_levels + 1}"
        yield ("codec.fsq_levels",), message
    elif (codes := codec.fsq_levels**codec.fsq_dims) > MOST_CODES:
        keys = ("codec.fsq_dims", "codec.fsq_levels")
        yield keys, f"make {codes} codes; take at most {MOST_CODES}"
    if flow.guidance and not flow.condition_dropout:
        keys = ("flow.guidance", "flow.condition_dropout")
        yield keys, "leads away from speech without condition, never learnt; set one above 0 there"
