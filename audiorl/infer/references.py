"""References of synthesis, judged like systems: natural recordings, and their resynthesis.

`natural` shows the errors of the judge; `resynthesis`, speech of the recordings' own tokens, how
much a language model of such tokens can reach. A test set of texts alone has neither.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from audiorl.config.schema import Config
from audiorl.data.speech_tokens import CODEC, TOKENS, read_tokens, write_tokens
from audiorl.data.tables import set_files, write_table
from audiorl.infer.decode import DONE
from audiorl.infer.synthesise import SAMPLED, SOUND, made_in, write_waves
from audiorl.infer.tokenise import tokenise
from audiorl.infer.voices import recordings_for, voices_of
from audiorl.models.codec import codec_info
from audiorl.runtime.files import write_json
from audiorl.runtime.stamps import Stamp
from audiorl.score.tts import REFERENCE, recorded_sets

if TYPE_CHECKING:
    from audiorl.models.codec import Codec


def write_natural(dump: Path, config: Config, exp: Path) -> None:
    """Write `exp`/decode_<name>/<set>/wav.scp of the recordings themselves."""
    for name, utterances in recorded_sets(dump, config).items():
        folder = exp / f"decode_{config.decode.name}" / name
        stamp = Stamp(folder / DONE, {}, set_files(dump / name), [folder / "wav.scp"])
        if not stamp.is_current(folder):
            write_table(folder / "wav.scp", {u.id: u.audio for u in utterances})
            stamp.write(method="natural", truncated=[])
    _note(exp, "natural recordings")


def write_resynthesis(codec: Codec, weights: Path, dump: Path, config: Config, exp: Path) -> None:
    """Write tokens and waves as stage 6 does, with the tokens of the recordings themselves.

    Voices are those of systems: of prompts, or of speakers' recordings in the train set. What is
    up to date with the codec's `weights` is left; a run that was cut off continues.
    """
    sets, train = recorded_sets(dump, config), dump / config.data.train
    spoken = [u for utterances in sets.values() for u in utterances]
    voices = voices_of(codec, spoken, recordings_for(spoken, train))
    sound = {f"{SOUND}{name}": path for name, path in set_files(train).items()}
    for name, utterances in sets.items():
        folder = exp / f"decode_{config.decode.name}" / name
        inputs = {"codec": weights, **set_files(dump / name), **sound}
        stamp = Stamp(folder / DONE, {"seed": config.seed}, inputs, made_in(folder))
        if stamp.is_current(folder):
            continue
        encoded = stamp.at(folder / SAMPLED, [folder / TOKENS, folder / CODEC], without=SOUND)
        if not encoded.is_current():
            tokens = tokenise(codec, utterances, config.decode.batch_seconds)
            write_tokens(folder, {u: row.tolist() for u, row in tokens.items()}, codec_info(codec))
            encoded.write()
        started = time.perf_counter()
        tokens, _ = read_tokens(folder)
        audio = write_waves(codec, voices, utterances, tokens, config, stamp)
        seconds = round(time.perf_counter() - started, 3)
        stamp.write(
            method="resynthesis",
            wave_seconds=seconds,
            truncated=[],
            audio_seconds=round(audio, 3),
        )
    _note(exp, "natural tokens, resynthesised")


def _note(exp: Path, reference: str) -> None:
    if not (exp / REFERENCE).exists():
        write_json(exp / REFERENCE, {"reference": reference})
