"""Stage 6: decodes test sets with the model of an experiment."""

from __future__ import annotations

import json
import time
from pathlib import Path

from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.infer.transcribe import Hypothesis, transcribe
from audiorl.models.audio_llm import AudioLLM
from audiorl.runtime.files import atomic_write, write_json


def decode_set(model: AudioLLM, config: Config, data: Path, out: Path) -> None:
    """Writes out/text, nbest.jsonl (n-best only) and, last, decode.json."""
    utterances = read_utterances(data)
    started = time.perf_counter()
    found = transcribe(
        model,
        utterances,
        max_length=config.decode.max_completion_length,
        batch_seconds=config.decode.batch_seconds,
        num_beams=1 if config.decode.method == "greedy" else config.decode.num_beams,
        desc=data.name,
    )
    seconds = time.perf_counter() - started
    _write(utterances, found, config, seconds, out)


def is_decoded(config: Config, weights: Path, data: Path, out: Path) -> bool:
    """Whether `out` holds the hypotheses of these weights for this set with these settings."""
    path = out / "decode.json"
    if not path.exists():
        return False
    newest = max(weights.stat().st_mtime, (data / "text").stat().st_mtime)
    return path.stat().st_mtime >= newest and json.loads(path.read_text())["settings"] == _settings(
        config
    )


def _settings(config: Config) -> dict[str, object]:
    decode = config.decode
    beams = {"num_beams": decode.num_beams} if decode.method == "nbest" else {}
    return {"method": decode.method, "max_completion_length": decode.max_completion_length, **beams}


def _write(
    utterances: list[Utterance],
    found: dict[str, list[Hypothesis]],
    config: Config,
    seconds: float,
    out: Path,
) -> None:
    with atomic_write(out / "text") as stream:
        # One line each, whatever white space a pretrained LLM may write.
        stream.writelines(" ".join([u.id, *found[u.id][0].text.split()]) + "\n" for u in utterances)
    if config.decode.method == "nbest":
        with atomic_write(out / "nbest.jsonl") as stream:
            for u in utterances:
                listed = [{"text": h.text, "logp": round(h.logp, 4)} for h in found[u.id]]
                line = {"id": u.id, "hypotheses": listed}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    audio = sum(u.duration for u in utterances)
    write_json(
        out / "decode.json",
        {
            "settings": _settings(config),
            "method": config.decode.method,
            "seconds": round(seconds, 3),
            "audio_seconds": round(audio, 3),
            "rtf": round(seconds / audio, 5),
            "truncated": [u.id for u in utterances if not found[u.id][0].finished],
        },
    )
