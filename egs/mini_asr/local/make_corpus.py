"""Makes the generated corpus: Kaldi data directories and audio, from espeak-ng and a grammar.

example: python local/make_corpus.py --out data --nj 2 --language en --seed 1 --scale 1.0
"""

from __future__ import annotations

import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import repeat
from pathlib import Path

import sentences_en
import sentences_zh
from plans import Corpus, Plan, Planner, audio_path
from sets import SETS
from speakers import speakers
from tables import HEADER, is_listed, write_set

from audiorl.bin.cli import parser, run
from audiorl.data.corpus import claim
from audiorl.errors import UserError
from audiorl.runtime.files import progress
from audiorl.runtime.processes import end_with

# Raise it when the same options make other sentences or other sound.
VERSION = 6
GRAMMARS = {"en": sentences_en.GRAMMAR, "zh": sentences_zh.GRAMMAR}
CORPUS = Corpus(VERSION, SETS, speakers, GRAMMARS)


def main(corpus: Corpus = CORPUS, doc: str = __doc__) -> None:
    """The command line; other recipes give their own corpus and what --help says of it."""
    arguments = parser(doc, config=False)
    arguments.add_argument("--out", default="data", help="where the data directories go")
    arguments.add_argument("--nj", type=int, default=os.cpu_count(), help="processes")
    arguments.add_argument("--language", choices=sorted(corpus.grammars), default="en")
    arguments.add_argument("--seed", type=int, default=1, help="other seeds, other sentences")
    arguments.add_argument("--scale", type=float, default=1.0, help="multiplies all sizes")
    options = arguments.parse_args()
    for name, valid in {
        "nj": options.nj >= 1,
        "seed": options.seed >= 0,
        "scale": 0 < options.scale <= 100,
    }.items():
        if not valid:
            raise UserError(
                f"--{name} {getattr(options, name)}: expected --nj from 1, --seed from 0 and "
                "--scale above 0, up to 100; correct it."
            )
    out = Path(options.out)
    make_corpus(corpus, out, options.nj, options.language, options.seed, options.scale)


def make_corpus(corpus: Corpus, out: Path, nj: int, language: str, seed: int, scale: float) -> None:
    """Makes what is missing of the corpus in `out`; says so in one line when nothing is.

    Raises UserError when `out` holds a corpus of other options, the disk refuses, or a worker
    is killed; what is complete by then stays and is not made again.
    """
    claim(out, {"version": corpus.version, "language": language, "seed": seed})
    plans = {}
    for spec in corpus.sets:
        planner = Planner(corpus, spec, seed, language)
        plans[spec] = [planner.plan(index) for index in range(math.ceil(spec.size * scale))]
    missing = [
        utterance
        for spec, utterances in plans.items()
        for utterance in utterances
        if spec.audio and not audio_path(out, utterance).exists()
    ]
    total = sum(map(len, plans.values()))
    if not missing and all(is_listed(out, spec, len(plans[spec])) for spec in plans):
        print(f"{out}: complete, {total} utterances in {len(plans)} sets; nothing to do.")
        return
    print(f"{out}: {total - len(missing)} of {total} utterances are there; making the others.")
    synthesise(out, missing, nj)
    print(HEADER)
    for spec, utterances in plans.items():
        print(write_set(out, spec, utterances, corpus.grammars[language]))


def synthesise(out: Path, missing: list[Plan], nj: int) -> None:
    """Makes each utterance in `nj` processes."""
    if not missing:
        return
    # Here, because it loads much that a call with nothing to do can spare.
    from render import make_utterance

    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(nj, context, end_with, (os.getpid(),))
    try:
        done = pool.map(make_utterance, repeat(str(out)), missing, chunksize=8)
        for _ in progress(done, "synthesis", len(missing), "utt"):
            pass
    except BrokenProcessPool as error:
        raise UserError(
            "A process of the synthesis was killed (is memory short?); run the same command again "
            "to go on, with a smaller --nj if it happens again."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    run(main)
