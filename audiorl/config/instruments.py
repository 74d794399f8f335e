"""Instruments of other people that measure synthesised speech beside the judge (stage 7).

Each is optional and named in `score.instruments`: by its name alone, or `name=path`. None rewards
unless a reward says so, and it then does not score as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Instrument:
    """An instrument of the table.

    measures: its numbers with the titles and factors that tables show them with.
    """

    measures: tuple[tuple[str, str, float], ...]
    path: str = ""  # what its path names; empty: it has none
    package: str = ""  # that it needs
    install: str = ""  # the command that brings the package
    knows_voices: bool = False  # it has vectors of speakers, and may reward them


def _voices(name: str, title: str) -> tuple[tuple[str, str, float], ...]:
    own = (f"{name}_similarity", f"{title} %", 100.0)
    return own, (f"{name}_margin", f"{title}: own - others %", 100.0)


INSTRUMENTS = {
    "whisper": Instrument(
        (("whisper_wer", "WER by Whisper %", 100.0), ("whisper_cer", "CER by Whisper %", 100.0)),
        path="the folder of a Whisper, or of another recogniser, as transformers reads it",
        package="whisper_normalizer",
        install="pip install --no-deps whisper-normalizer",
    ),
    "resemblyzer": Instrument(
        _voices("resemblyzer", "Resemblyzer"),
        package="resemblyzer",
        install="pip install resemblyzer",
        knows_voices=True,
    ),
    "xvector": Instrument(
        _voices("xvector", "x-vector"),
        path="the folder of a WavLM or wav2vec 2.0 with x-vectors, or a TorchScript file (ECAPA)",
        knows_voices=True,
    ),
    "dnsmos": Instrument(
        (("dnsmos_sig", "DNSMOS SIG", 1.0), ("dnsmos_ovrl", "DNSMOS OVRL", 1.0)),
        path="sig_bak_ovr.onnx",
        package="onnxruntime",
        install="pip install onnxruntime",
    ),
    "utmos": Instrument((("utmos", "UTMOS", 1.0),), path="a TorchScript file, utmos.jit"),
}
MEASURES = {name: rest for one in INSTRUMENTS.values() for name, *rest in one.measures}


def parse_instrument(text: str) -> tuple[str, str]:
    """Return the name and the path of `name` or `name=path`."""
    name, _, path = text.partition("=")
    return name, path


def instrument_problems(text: str) -> Iterator[str]:
    """Yield what is wrong with an instrument as a config names it, or missing for it."""
    name, path = parse_instrument(text)
    known = INSTRUMENTS.get(name)
    if known is None:
        yield f"there is no instrument {name}; choose among {', '.join(INSTRUMENTS)}"
        return
    if bool(path) != bool(known.path):
        asked = f"name {known.path}: {name}=PATH" if known.path else f"write {name} alone"
        yield f"{text}: {asked}"
    elif path and not os.path.exists(path):
        yield f"{os.path.abspath(path)}: there is no such file; name {known.path}"
    if known.package and find_spec(known.package) is None:
        yield f"{name} needs the package {known.package}, which is missing; run: {known.install}"
