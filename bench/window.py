"""Times a Whisper that reads 30 s beside one that reads the utterance and half a second.

example:
  python bench/window.py --model openai/whisper-tiny.en
  python bench/window.py --model /models/whisper-base --lengths 5,15 --repeats 9 --out window.png

Encoder alone, and with it the greedy decoding of as many tokens as speech of that length has, in
one process and in turns. What is heard is noise: the work is that of speech.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import torch
from grpo_step import circumstances
from link import Clock

from audiorl.bin.cli import parser, run
from audiorl.config.schema import Config
from audiorl.engines.native import PolicyEngine
from audiorl.engines.sampling import Sampling
from audiorl.models.families.whisper import Whisper
from audiorl.runtime.files import atomic_path, progress, write_json

WINDOWS = ("full", "utterance")
WAYS = ("encoder", "recogniser")
TOKENS_A_SECOND = 3.5  # of read speech (LibriSpeech, LJSpeech)


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--model", required=True, help="a Whisper: folder or hub name")
    options.add_argument("--lengths", default="2.5,5,9,15,25", help="of utterances, in seconds")
    options.add_argument("--repeats", type=int, default=5, help="of each, after one to warm up")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--out", type=Path, metavar="PNG", help="where to draw the table")
    options.add_argument("--json", type=Path, metavar="FILE", help="where to write all numbers")
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    lengths = [float(length) for length in args.lengths.split(",")]
    models = {window: load(args.model, window) for window in WINDOWS}
    times = {length: measure(models, length, args.repeats) for length in progress(lengths)}
    print(table(times))
    if args.out:
        draw(times, args.out)
    if args.json:
        write_json(args.json, {**circumstances(), "model": args.model, "seconds": times})


def load(name: str, window: str) -> Whisper:
    """Return the model with a window; it never ends a text, so that all have one length."""
    config = Config()
    config.model.pretrained, config.whisper.window = name, window
    model = Whisper.create(config, ()).eval()
    model.forbidden[model.tokenizer.eos_id] = True
    return model


@torch.no_grad()
def measure(models: dict[str, Whisper], length: float, repeats: int) -> dict[str, dict]:
    """Return processor seconds [repeats] by window and way, of an utterance of `length` seconds."""
    wave = 0.1 * torch.randn(int(length * 16000), generator=torch.Generator().manual_seed(0))
    tokens = round(TOKENS_A_SECOND * length)
    found: dict[str, dict] = {window: {way: [] for way in WAYS} for window in WINDOWS}
    for repeat in range(repeats + 1):
        for window, model in models.items():
            clock = Clock()
            prefix = model.prefix(model.encode([wave]))
            encoded = clock.read()["cpu"]
            rollout = PolicyEngine(model).generate(
                prefix, group=1, max_length=tokens, sampling=Sampling(greedy=True)
            )
            assert rollout.tokens.size(1) == tokens
            if repeat:
                for way, seconds in zip(WAYS, (encoded, clock.read()["cpu"]), strict=True):
                    found[window][way].append(seconds)
    return found


def ratios(times: dict[str, dict], way: str) -> list[float]:
    """Return how many times as fast the cut window is, a number a repeat."""
    return [a / b for a, b in zip(*(times[window][way] for window in WINDOWS), strict=True)]


def table(times: dict[float, dict]) -> str:
    """Return medians in milliseconds, and ratios with the lowest and the highest."""
    lines = ["utterance  window     encoder ms  recogniser ms"]
    for length, found in times.items():
        for window in WINDOWS:
            encoder, whole = (1000 * median(found[window][way]) for way in WAYS)
            lines.append(f"{length:7.1f} s  {window:<9}  {encoder:10.0f}  {whole:13.0f}")
        for way in WAYS:
            rates = ratios(found, way)
            span = f"[{min(rates):.1f}, {max(rates):.1f}]"
            lines.append(f"           {way} {median(rates):.1f} times as fast {span}")
    return "\n".join(lines)


def draw(times: dict[float, dict], path: Path) -> None:
    """Draw how many times as fast the cut window is, by length of the utterance."""
    import matplotlib.figure  # slow to import

    figure = matplotlib.figure.Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for way, marker in zip(WAYS, "os", strict=True):
        rates = [ratios(found, way) for found in times.values()]
        middle = [median(row) for row in rates]
        spread = [[m - min(row) for m, row in zip(middle, rates, strict=True)]]
        spread += [[max(row) - m for m, row in zip(middle, rates, strict=True)]]
        axes.errorbar(list(times), middle, spread, marker=marker, capsize=3, label=way)
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set(xlabel="utterance (s)", ylabel="times as fast as with 30 s", ylim=(0, None))
    axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


if __name__ == "__main__":
    run(main)
