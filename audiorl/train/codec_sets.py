"""Tokens of a set of recordings, and the quality of tokens and of resynthesis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from audiorl.data.audio import resample
from audiorl.data.same_speaker import References
from audiorl.data.speech_tokens import CODEC, TOKENS, codebook_use, write_tokens
from audiorl.data.tables import set_files
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.infer.tokenise import read_waves, tokenise
from audiorl.models.codec import Codec, NativeCodec, codec_info
from audiorl.models.codec.base import in_voices
from audiorl.models.codec.native import LEAST_POWER
from audiorl.models.frontend import Frontend
from audiorl.runtime.batching import shown_batches
from audiorl.runtime.stamps import Stamp
from audiorl.text.align import Counts, count_errors
from audiorl.text.normalise import spoken

DECIBELS = 10 / math.log(10)  # of a power, in one natural logarithm


def write_set_tokens(codec: Codec, dump: Path, out: Path, seconds: float) -> None:
    """Write the tokens of the set `dump` to the folder `out`, unless they are there already.

    `seconds` of audio, padding included, are encoded at once.
    """
    info = codec_info(codec)
    stamp = Stamp(out / "stamp.json", info, set_files(dump), [out / TOKENS, out / CODEC])
    if stamp.is_current(out):
        print(f"{out} is complete: nothing to do")
        return
    utterances = read_utterances(dump)
    tokens = tokenise(codec, utterances, seconds)
    write_tokens(out, {name: row.tolist() for name, row in tokens.items()}, info)
    stamp.write()
    share, perplexity = codebook_use((row.numpy() for row in tokens.values()), codec.codebook_size)
    mean = sum(map(len, tokens.values())) / len(tokens)
    used = f"{100 * share:.1f} % of {codec.codebook_size} codes, perplexity {perplexity:.0f}"
    print(f"{out}: {len(tokens):,} utterances of {mean:.1f} tokens on average; {used}")


def tokens_report(codec: Codec, utterances: Sequence[Utterance], seconds: float) -> dict:
    """Return the use of the codebook; and, of a native codec, the error rate of its CTC."""
    tokens = tokenise(codec, utterances, seconds)
    share, perplexity = codebook_use((row.numpy() for row in tokens.values()), codec.codebook_size)
    report = {"eval/codes_used": share, "eval/perplexity": perplexity}
    if isinstance(codec, NativeCodec):
        counts = Counts()
        for batch in shown_batches("evaluation", utterances, seconds):
            for u, text in zip(batch, codec.transcribe(read_waves(codec, batch)), strict=True):
                counts += count_errors(list(spoken(u.text)), list(text))
        report["eval/cer"] = counts.rate
    return report


def sound_report(codec: Codec, utterances: Sequence[Utterance], seconds: float) -> dict:
    """Return the error of resynthesis from tokens, in the voice of another recording.

    It is the mean absolute difference of log-mel values in dB, over frames and bands.
    """
    frontend = Frontend(codec.settings.frontend, codec.sample_rate)
    references = References(utterances)
    total = count = 0.0
    for batch in shown_batches("resynthesis", utterances, seconds):
        waves = read_waves(codec, batch)
        speakers = codec.speaker(read_waves(codec, references.draw(batch, 0)))
        again = codec.decode(codec.encode(waves), in_voices(speakers))
        rates = codec.output_rate, codec.sample_rate
        again = [torch.from_numpy(resample(wave.numpy(), *rates)) for wave in again]
        for wave, other in zip(waves, again, strict=True):
            both = min(len(wave), len(other))
            pair = torch.stack([wave[:both], other[:both]])
            pair, _ = frontend.pad(pair, 1, pair.device)
            first, second = frontend.mel(pair).clamp(min=LEAST_POWER).log()  # [n_mels, N]
            total += (first - second).abs().sum().item()
            count += first.numel()
    return {"eval/mel_db": DECIBELS * total / count}
