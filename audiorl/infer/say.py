"""One text to one wave, by a system of synthesis."""

from __future__ import annotations

from pathlib import Path

import soundfile
import torch

from audiorl.config import load_config
from audiorl.data.speech_tokens import check_codec
from audiorl.data.tables import read_table
from audiorl.data.utterance import Utterance
from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer.speak import speak
from audiorl.infer.synthesise import decode_waves
from audiorl.infer.voices import VOICES, voices_of
from audiorl.models.codec import codec_info, load_codec
from audiorl.models.policy import load_policy
from audiorl.runtime.device import pick_device, setup_torch
from audiorl.runtime.files import atomic_path


def say(
    exp: Path,
    codec_folder: Path,
    voices_folder: Path,
    text: str,
    out: Path,
    speaker: str | None = None,
    seed: int | None = None,
) -> str:
    """Write the speech of `text` to the wav `out` (16 bit); return its length and voice in words.

    `codec_folder` has the codec's model, `voices_folder` the vectors of speakers, of which the
    first speaks if none is named. Raises UserError if one of these, or the speaker, is not there,
    or the text cannot be spoken.
    """
    vectors = voices_folder / VOICES
    if not (codec_folder / "model").is_dir() or not vectors.is_file():
        raise UserError(
            f"{exp} is mute without its codec and the vectors of its speakers; name --codec, the "
            "codec's experiment, and --dump, the formatted sets, or give a zip of audiorl.bin.pack."
        )
    known = sorted(read_table(vectors))
    speaker = speaker or known[0]
    if speaker not in known:
        raise UserError(
            f"--speaker {speaker} is no voice of {exp}; take one of {', '.join(known)}."
        )
    config = load_config(exp / "config.yaml")
    setup_torch(config.num_threads)
    device = str(pick_device(config.device))
    model, codec = load_policy(exp / "model", device), load_codec(codec_folder / "model", device)
    fix = f"name the codec that {exp} was trained on"
    check_codec(codec_info(codec), model.facts.codec, str(codec_folder), str(exp), fix)
    seed = config.seed if seed is None else seed
    u = Utterance("text", "", text, speaker, duration=1 / codec.token_rate)
    model.refuse_texts([u], config.decode.max_completion_length)
    spoken = speak(PolicyEngine(model), [u], config.decode, seed)
    torch.manual_seed(seed)  # for codecs that draw
    voices = voices_of(codec, [u], (), vectors)
    ((_, wave),) = decode_waves(codec, voices, [u], {u.id: spoken[u.id].tokens})
    with atomic_path(out) as file:
        samples = wave.float().cpu().numpy()
        soundfile.write(file, samples, codec.output_rate, "PCM_16", format="WAV")
    end = "" if spoken[u.id].finished else ", cut at decode.max_completion_length"
    return f"{len(wave) / codec.output_rate:.2f} s, voice {speaker}{end}"
