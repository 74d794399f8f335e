"""Measurements of synthesised sets by the instruments of `score.instruments` (stage 7).

Each writes decode_<name>/<set>/instrument_<name>.json beside judged.json, unless waves, recordings
and instrument are as they were: by utterance and measure, what is above and below a fraction line.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from audiorl.config.instruments import INSTRUMENTS, parse_instrument
from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError, reason
from audiorl.infer.hearing import heard, load_judge
from audiorl.infer.likeness import Likeness, samples_of, timed
from audiorl.models.voice import Voice
from audiorl.runtime.batching import shown_batches
from audiorl.runtime.files import progress
from audiorl.runtime.stamps import Stamp, folder_files
from audiorl.score.tts import instrument_file
from audiorl.text.align import count_errors
from audiorl.text.normalise import normal_units

INSTRUMENT_RATE = 16000  # Hz, of all but recognisers
SHORTEST_SECONDS = 0.4  # s; what is shorter is repeated for those that want more
DNSMOS_SECONDS = 9.01  # that it was trained on
# Polynomials of the raw outputs SIG and OVRL, as published with the model.
DNSMOS_FIT = {
    "sig": (-0.08397278, 1.22083953, 0.0052439),
    "ovrl": (-0.06766283, 1.11546468, 0.04602535),
}

Fraction = tuple[float, float]  # above and below the line
Measured = dict[str, Fraction]  # by measure


class VoiceInstrument:
    """Vectors of voices; also in the place of a codec's speaker encoder, as a reward asks it."""

    sample_rate, speaker_size, continues_prompts = INSTRUMENT_RATE, 1, False

    def __init__(self, embed: Callable[[np.ndarray], Tensor]) -> None:
        """`embed`: samples [S] to a vector [D]."""
        self._embed = embed

    @torch.no_grad()
    def speaker(self, waves: Sequence[Tensor]) -> Tensor:
        """Return vectors [B, D] of unit length."""
        vectors = [self._embed(_long_enough(np.asarray(wave))).flatten() for wave in waves]
        return F.normalize(torch.stack(vectors).float(), dim=-1)

    def prompt(self, wave: Tensor, text: str = "") -> Voice:
        return Voice(text, vector=self.speaker([wave])[0])

    def vector(self, samples: np.ndarray) -> Tensor | None:
        """Return the vector of samples [S]; None where there are none."""
        return self.speaker([torch.from_numpy(samples)])[0] if len(samples) else None


class Measure(Protocol):
    """An instrument that looks at one wave at a time."""

    sample_rate: int

    def __call__(self, u: Utterance, samples: np.ndarray) -> Measured: ...


class WhisperErrors:
    """Errors of letters and words in a recogniser's transcript."""

    def __init__(self, path: str, config: Config, device: str) -> None:
        self.judge = load_judge(Path(path), device, config)
        self.sample_rate, self.normalizer = self.judge.sample_rate, config.score.normalizer

    def __call__(self, u: Utterance, samples: np.ndarray) -> Measured:
        (text,) = heard(self.judge, [samples])
        found = {}
        for name, unit in (("whisper_wer", "word"), ("whisper_cer", "char")):
            style = self._style, unit
            counts = count_errors(normal_units(u.text, *style), normal_units(text, *style))
            found[name] = counts.errors, counts.units
        return found

    @property
    def _style(self) -> str:
        # It writes case and signs, which a corpus without them would count as errors.
        return "english" if self.normalizer == "none" else self.normalizer


class DNSMOS:
    """Microsoft's DNSMOS P.835 (arXiv 2110.01763): an estimate of opinions, of noise above all."""

    sample_rate = INSTRUMENT_RATE

    def __init__(self, path: str) -> None:
        runtime = importlib.import_module("onnxruntime")  # of those who want it
        file = Path(path) / "sig_bak_ovr.onnx" if Path(path).is_dir() else Path(path)
        self.session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def __call__(self, u: Utterance, samples: np.ndarray) -> Measured:
        if not len(samples):
            return {}
        size = int(DNSMOS_SECONDS * INSTRUMENT_RATE)
        wave = np.tile(samples, -(-size // len(samples)))
        starts = range(0, max(1, len(samples) - size + 1), INSTRUMENT_RATE)
        raw = [self.session.run(None, {"input_1": wave[None, s : s + size]})[0][0] for s in starts]
        sig, _, ovrl = np.mean(raw, axis=0)
        found = {"sig": sig, "ovrl": ovrl}.items()
        fitted = {name: float(np.polyval(DNSMOS_FIT[name], value)) for name, value in found}
        return {f"dnsmos_{name}": (value, 1.0) for name, value in fitted.items()}


class UTMOS:
    """An estimate of opinions by a model in TorchScript: waves [1, S] at 16 kHz to one number."""

    sample_rate = INSTRUMENT_RATE

    def __init__(self, path: str) -> None:
        self.model = _torchscript(path)

    @torch.no_grad()
    def __call__(self, u: Utterance, samples: np.ndarray) -> Measured:
        if not len(samples):
            return {}
        wave = torch.from_numpy(_long_enough(samples))
        return {"utmos": (float(self.model(wave[None]).flatten()[0]), 1.0)}


def load_voice_instrument(text: str, device: str = "cpu") -> VoiceInstrument:
    """Return an instrument that knows voices, as `name` or `name=path` names it."""
    name, path = parse_instrument(text)
    if name == "resemblyzer":
        package = importlib.import_module("resemblyzer")  # of those who want it
        encoder = package.VoiceEncoder(device, verbose=False)

        def embed(samples: np.ndarray) -> Tensor:
            trimmed = package.preprocess_wav(samples, INSTRUMENT_RATE)
            spoken = trimmed if len(trimmed) else samples
            return torch.from_numpy(encoder.embed_utterance(spoken))

        return VoiceInstrument(embed)
    if Path(path).is_dir():
        return VoiceInstrument(_xvectors(path, device))
    model = _torchscript(path)
    return VoiceInstrument(lambda samples: model(torch.from_numpy(samples)[None]))


def _xvectors(path: str, device: str) -> Callable[[np.ndarray], Tensor]:
    from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

    try:
        extract = AutoFeatureExtractor.from_pretrained(path)
        model = AutoModelForAudioXVector.from_pretrained(path).to(device).eval()
    except (OSError, ValueError) as error:
        raise UserError(
            f"xvector: {path} cannot be loaded ({reason(error)}); give the folder of a WavLM or "
            "wav2vec 2.0 with x-vectors."
        ) from error

    def embed(samples: np.ndarray) -> Tensor:
        inputs = extract(samples, sampling_rate=INSTRUMENT_RATE, return_tensors="pt").to(device)
        return model(**inputs).embeddings.cpu()

    return embed


def _torchscript(path: str) -> torch.jit.ScriptModule:
    try:
        return torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path} is no TorchScript file ({reason(error)}); export one.") from error


def _long_enough(samples: np.ndarray) -> np.ndarray:
    return np.tile(
        samples, max(1, -(-int(SHORTEST_SECONDS * INSTRUMENT_RATE) // max(1, len(samples))))
    )


class Instruments:
    """The instruments of a recipe, loaded when the first set needs them."""

    def __init__(self, config: Config, device: str) -> None:
        self.config, self.device = config, device
        self._loaded: dict[str, Measure | VoiceInstrument] = {}

    def measure(
        self,
        out: Path,
        inputs: Mapping[str, Any],
        waves: Sequence[Utterance],
        texts: Sequence[Utterance],
        recordings: Sequence[Utterance],
    ) -> None:
        """Write what each instrument finds in the waves of a set, unless it is up to date.

        inputs: of the stamp, the waves and what they are compared with.
        """
        for text in self.config.score.instruments:
            name, path = parse_instrument(text)
            file, place = instrument_file(out, name), Path(path)
            own = folder_files(place) if place.is_dir() else {"file": place}
            settings = {"instrument": text, "normalizer": self.config.score.normalizer}
            stamp = Stamp(file, settings, {**inputs, **(own if path else {})})
            if stamp.is_current(file):
                continue
            if text not in self._loaded:
                self._loaded[text] = self._load(name, path, text)
            look = self._voices if INSTRUMENTS[name].knows_voices else self._alone
            stamp.write(utterances=look(name, self._loaded[text], waves, texts, recordings))

    def _load(self, name: str, path: str, text: str) -> Measure | VoiceInstrument:
        if name == "whisper":
            return WhisperErrors(path, self.config, self.device)
        if INSTRUMENTS[name].knows_voices:
            return load_voice_instrument(text, self.device)
        return {"dnsmos": DNSMOS, "utmos": UTMOS}[name](path)

    def _alone(
        self,
        name: str,
        tool: Measure,
        waves: Sequence[Utterance],
        texts: Sequence[Utterance],
        recordings: Sequence[Utterance],
    ) -> dict[str, Measured]:
        batches = shown_batches(name, waves, self.config.decode.batch_seconds)
        return {u.id: tool(u, samples_of(u, tool.sample_rate)) for batch in batches for u in batch}

    def _voices(
        self,
        name: str,
        tool: VoiceInstrument,
        waves: Sequence[Utterance],
        texts: Sequence[Utterance],
        recordings: Sequence[Utterance],
    ) -> dict[str, Measured]:
        likeness = Likeness(texts)
        for u in progress(map(timed, recordings), name, len(recordings), "utt"):
            likeness.add(u, tool.vector(samples_of(u, tool.sample_rate)))
        found = {}
        for u in progress(waves, name, len(waves), "utt"):
            vector = tool.vector(samples_of(u, tool.sample_rate))
            own, others = likeness.own(u, vector), likeness.others(u, vector)
            found[u.id] = {} if own is None else {f"{name}_similarity": (own, 1.0)}
            if own is not None and others is not None:
                found[u.id][f"{name}_margin"] = (own - others, 1.0)
        return found
