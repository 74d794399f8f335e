"""Prepares LibriSpeech (https://www.openslr.org/12) from its own layout, whole or in part.

Utterances and speakers have the ids of Kaldi's recipe: utterance 1272-128104-0000 of speaker
1272-128104, which is a reader in a chapter. Sets that are unchanged are left as they are.

examples:
  local/data.sh --corpus /data/LibriSpeech --out data
  local/data.sh --download true --corpus downloads --parts train-clean-100,dev-clean,test-clean
  local/data.sh --corpus /data/LibriSpeech --biasing_lists /data/is21_deep_bias
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.data.corpus import carve, compare_counts, write_set
from audiorl.data.libri import download_parts, find_parts, read_genders, read_part, set_name
from audiorl.data.transcripts import read_transcripts
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError

MIRROR = "https://www.openslr.org/resources/12"
# Part -> (utterances, SHA-256 of its archive).
PARTS = {
    "train-clean-100": (
        28539, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"
    ),
    "train-clean-360": (
        104014, "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"
    ),
    "train-other-500": (
        148688, "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"
    ),
    "dev-clean": (2703, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    "dev-other": (2864, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    "test-clean": (2620, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
    "test-other": (2939, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
}  # fmt: skip
TRAIN = [part for part in PARTS if part.startswith("train")]
HELD_OUT = [part for part in PARTS if part not in TRAIN]
RL_PART = "train-clean-100"  # the pool of RL prompts, see conf/grpo.yaml


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--corpus", default="", help="the folder that holds train-clean-100 …")
    options.add_argument("--out", type=Path, default=Path("data"), help="folder of the sets")
    options.add_argument("--download", choices=("true", "false"), default="false")
    options.add_argument("--parts", default=",".join(PARTS), help="what --download fetches")
    options.add_argument("--mirror", default=MIRROR, help="where --download fetches it")
    options.add_argument("--biasing_lists", default="", help="folder of is21_deep_bias: keywords")
    args = options.parse_args()
    if args.download == "true":
        args.corpus = args.corpus or "downloads"
        download(Path(args.corpus), args.parts.split(","), args.mirror)
    prepare(find_corpus(args.corpus), args.out, args.biasing_lists)


def download(folder: Path, parts: list[str], mirror: str) -> None:
    checksums = {part: checksum for part, (_, checksum) in PARTS.items()}
    download_parts("LibriSpeech", checksums, parts, folder, mirror)


def find_corpus(given: str) -> Path:
    return find_parts("LibriSpeech", list(PARTS), given, "60 GB")


def prepare(corpus: Path, out: Path, biasing_lists: str = "") -> None:
    """Writes the sets of what is in `corpus`; what is missing or partial is said."""
    parts = {part: read_part(corpus / part) for part in PARTS if (corpus / part).is_dir()}
    compare_counts(parts, {part: count for part, (count, _) in PARTS.items()})
    train = [utterance for part in TRAIN for utterance in parts.get(part, ())]
    missing = [set_name(part) for part in HELD_OUT if not parts.get(part)]
    carved, train = carve(train, missing, reader)
    kept = {utterance.id for utterance in train}
    sets = {"train": train}
    for part, utterances in parts.items():
        if utterances:
            whole = part in HELD_OUT
            sets[set_name(part)] = [u for u in utterances if whole or u.id in kept]
    genders = read_genders(corpus / "SPEAKERS.TXT")
    keywords = read_biasing_lists(biasing_lists) if biasing_lists else lambda utterance: ()
    for name, utterances in (sets | carved).items():
        utterances = [replace(u, keywords=keywords(u)) for u in utterances]
        spoken = {u.speaker: genders[reader(u)] for u in utterances if reader(u) in genders}
        write_set(out / name, utterances, spoken)
    if not parts.get(RL_PART):
        print(
            f"{corpus} has no {RL_PART}, from which conf/grpo.yaml takes the prompts of RL; name "
            "another set with --set data.rl=train."
        )


def read_biasing_lists(folder: str) -> Callable[[Utterance], tuple[str, ...]]:
    """A function from an utterance to its keywords: the words of its list, if it is in one.

    Others have the words of their transcript that are not among the 5,000 common ones, from which
    the lists were made.
    """
    lists, common = (
        sorted(Path(folder).rglob(name)) for name in ("*.biasing_*.tsv", "*common_words_5k.txt")
    )
    if not lists or not common:
        raise UserError(
            f"--biasing_lists {folder} has no *.biasing_100.tsv or no common_words_5k.txt; give "
            "the folder is21_deep_bias of github.com/facebookresearch/fbai-speech."
        )
    known = set(common[0].read_text(encoding="utf-8").upper().split())
    listed: dict[str, tuple[str, ...]] = {}
    for file in lists:
        found = read_transcripts(file, "ref")
        listed |= {name: found.keywords.get(name, ()) for name in found.texts}
    print(f"{folder}: lists of {len(listed):,} utterances, {len(known):,} common words")

    def keywords(utterance: Utterance) -> tuple[str, ...]:
        words = listed.get(utterance.id)
        if words is None:
            words = [word for word in utterance.text.split() if word not in known]
        return tuple(dict.fromkeys(word.upper() for word in words))

    return keywords


def reader(utterance: Utterance) -> str:
    return utterance.id.partition("-")[0]


if __name__ == "__main__":
    run(main)
