"""Stage 6: decoding of test sets with the models of experiments, and its part for recognition."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from audiorl.config.schema import Config
from audiorl.data.tables import set_files
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.engines.engine import Engine, make_engine
from audiorl.infer.hypothesis import Hypothesis
from audiorl.infer.transcribe import asked, transcribe
from audiorl.infer.windows import join, windows
from audiorl.models.policy import Policy, load_policy, model_files
from audiorl.runtime.device import pick_device
from audiorl.runtime.files import atomic_write
from audiorl.runtime.locks import exclusive
from audiorl.runtime.stamps import Stamp

DONE = "decode.json"  # of a decoded set: its stamp, and what decoding took


class Decoder(Protocol):
    """Decoding as one task does it."""

    config: Config

    def stamp(self, experiment: Path, data: Path, out: Path) -> Stamp:
        """Return the stamp out/DONE: what decoding the set `data` follows from."""

    def load(self, experiment: Path) -> Policy:
        """Return the experiment's model. Raises UserError when it cannot decode."""

    def decode(self, engine: Engine, data: Path, stamp: Stamp) -> None:
        """Decode the set `data` into the folder of `stamp`, which is written last."""


def decode_sets(decoder: Decoder, dump: Path, experiments: Iterable[Path]) -> None:
    """Decode the test sets in `dump` with each experiment, where that is out of date.

    Writes <experiment>/decode_<name>/<set>. Raises UserError when another process is at work there.
    """
    config = decoder.config
    for experiment in experiments:
        folder = experiment / f"decode_{config.decode.name}"
        stamps = {n: decoder.stamp(experiment, dump / n, folder / n) for n in config.data.test}
        wanted = {n: s for n, s in stamps.items() if not s.is_current(folder / n)}
        if not wanted:
            print(f"{folder} is complete: nothing to do")
            continue
        model = decoder.load(experiment)
        engine = make_engine(config.decode.engine, model, config.rl)
        with exclusive(folder), engine:
            for name, stamp in wanted.items():
                decoder.decode(engine, dump / name, stamp)
                print(f"wrote {folder / name}")


class Transcriber:
    """Decoding of recognition: out/text and, of n-best decoding, out/nbest.jsonl."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def stamp(self, experiment: Path, data: Path, out: Path) -> Stamp:
        keys = ["method", "max_completion_length"]
        outputs = [out / "text"]
        if self.config.decode.method == "nbest":
            keys.append("num_beams")
            outputs.append(out / "nbest.jsonl")
        if self.config.decode.window_seconds:
            keys.append("window_seconds")
        if self.config.decode.engine != "native":
            keys.append("engine")
        settings = {key: getattr(self.config.decode, key) for key in keys}
        if self.config.decode.method == "fallback":
            settings["seed"] = self.config.seed
        inputs = {**model_files(experiment / "model"), **set_files(data)}
        return Stamp(out / DONE, settings, inputs, outputs)

    def load(self, experiment: Path) -> Policy:
        return load_policy(experiment / "model", str(pick_device(self.config.device)))

    def decode(self, engine: Engine, data: Path, stamp: Stamp) -> None:
        keys, utterances = self.config.decode, read_utterances(data)
        started = time.perf_counter()
        parts = windows(utterances, keys.window_seconds)
        heard = [part for own in parts.values() for part in own]
        if len(heard) > len(utterances):
            cut = sum(len(own) > 1 for own in parts.values())
            print(f"{data.name}: {cut} of {len(utterances)} recordings in {len(heard)} windows")
        engine.policy.refuse_unfit(heard, data)
        found = join(parts, transcribe(engine, heard, **asked(self.config), desc=data.name))
        seconds = time.perf_counter() - started
        _write(utterances, found, keys.method, stamp.path.parent)
        audio = sum(u.duration for u in utterances)
        stamp.write(
            method=keys.method,
            seconds=round(seconds, 3),
            audio_seconds=round(audio, 3),
            rtf=round(seconds / audio, 5),
            truncated=[u.id for u in utterances if not found[u.id][0].finished],
        )


def _write(
    utterances: list[Utterance], found: dict[str, list[Hypothesis]], method: str, out: Path
) -> None:
    with atomic_write(out / "text") as stream:
        # One line each, whatever white space a pretrained LLM may write.
        stream.writelines(" ".join([u.id, *found[u.id][0].text.split()]) + "\n" for u in utterances)
    if method == "nbest":
        with atomic_write(out / "nbest.jsonl") as stream:
            for u in utterances:
                listed = [{"text": h.text, "logp": round(h.logp, 4)} for h in found[u.id]]
                line = {"id": u.id, "hypotheses": listed}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
