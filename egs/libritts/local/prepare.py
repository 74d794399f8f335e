"""Prepares LibriTTS (https://www.openslr.org/60) from its own layout, whole or in part.

Texts are the normalised ones. Ids are the corpus's with `-` in the place of `_`, so that what is
sorted by utterance is sorted by speaker, as Kaldi wants it: utterance 84-121123-000007-000001 of
speaker 84. A quarter of the readers are the judge's (judge_train) and in no other set. The held-out
parts, of readers that nothing is trained on, name a prompt for each utterance. Sets that are
unchanged are left as they are.

examples:
  local/data.sh --corpus /data/LibriTTS --out data
  local/data.sh --download true --corpus downloads --parts train-clean-100
"""

from __future__ import annotations

from pathlib import Path

from audiorl.bin.cli import parser, run
from audiorl.data.corpus import compare_counts, hold_out, join, write_changed, write_set
from audiorl.data.judge_set import set_aside
from audiorl.data.libri import chapters, download_parts, find_parts, read_genders, set_name
from audiorl.data.utterance import Utterance
from audiorl.data.zero_shot import read_zero_shot

MIRROR = "https://www.openslr.org/resources/60"
# Part -> (utterances, SHA-256 of its archive).
PARTS = {
    "train-clean-100": (
        33236, "c5608bf1ef74bb621935382b8399c5cdd51cd3ee47cec51f00f885a64c6c7f6b"
    ),
    "train-clean-360": (
        116500, "ce7cff44dcac46009d18379f37ef36551123a1dc4e5c8e4eb73ae57260de4886"
    ),
    "train-other-500": (
        205044, "e35f7e34deeb2e2bdfe4403d88c8fdd5fbf64865cae41f027a185a6965f0a5df"
    ),
    "dev-clean": (5736, "da0864e1bd26debed35da8a869dd5c04dfc27682921936de7cff9c8a254dbe1a"),
    "dev-other": (4613, "d413eda26f3a152ac7c9cf3658ef85504dfb1b625296e5fa83727f5186cca79c"),
    "test-clean": (4837, "234ea5b25859102a87024a4b9b86641f5b5aaaf1197335c95090cde04fe9a4f5"),
    "test-other": (5120, "33a5342094f3bba7ccc2e0500b9e72d558f72eb99328ac8debe1d9080402f10d"),
}  # fmt: skip
TRAIN = [part for part in PARTS if part.startswith("train")]


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--corpus", default="", help="the folder that holds train-clean-100 …")
    options.add_argument("--out", type=Path, default=Path("data"), help="folder of the sets")
    options.add_argument("--download", choices=("true", "false"), default="false")
    options.add_argument("--parts", default=",".join(PARTS), help="what --download fetches")
    options.add_argument("--mirror", default=MIRROR, help="where --download fetches it")
    options.add_argument("--zero_shot", default="", help="list of Seed-TTS-Eval: set zero_shot")
    args = options.parse_args()
    if args.download == "true":
        args.corpus = args.corpus or "downloads"
        checksums = {part: checksum for part, (_, checksum) in PARTS.items()}
        folder = Path(args.corpus)
        download_parts("LibriTTS", checksums, args.parts.split(","), folder, args.mirror)
    prepare(find_parts("LibriTTS", list(PARTS), args.corpus, "84 GB"), args.out)
    if args.zero_shot:
        write_changed(args.out / "zero_shot", read_zero_shot(Path(args.zero_shot)))


def prepare(corpus: Path, out: Path) -> None:
    """Writes the sets of what is in `corpus`; what is missing or partial is said."""
    parts = {part: read_part(corpus / part) for part in PARTS if (corpus / part).is_dir()}
    compare_counts(parts, {part: count for part, (count, _) in PARTS.items()})
    everything = [utterance for part in TRAIN for utterance in parts.get(part, ())]
    judge, rest = set_aside(everything, lambda utterance: utterance.speaker, "readers")
    held_out, train = hold_out(rest, ["dev", "test_seen"])
    kept = {utterance.id for utterance in train}
    sets = {"train": train, "judge_train": judge or train} | held_out
    for part, utterances in parts.items():
        if utterances:
            whole = part not in TRAIN
            sets[set_name(part)] = [u for u in utterances if whole or u.id in kept]
    genders = read_genders(corpus / "SPEAKERS.txt")
    unheard = [set_name(part) for part in parts if part not in TRAIN]
    for name, utterances in sets.items():
        write_set(out / name, utterances, genders, prompts=name in unheard)


def read_part(folder: Path) -> list[Utterance]:
    """A part's utterances: <reader>/<chapter>/<utterance>.wav beside its .normalized.txt."""
    audio, texts = {}, {}
    for chapter in chapters(folder):
        audio |= {identify(file.stem): file for file in chapter.glob("*.wav")}
        for file in chapter.glob("*.normalized.txt"):
            name = file.name.removesuffix(".normalized.txt")
            texts[identify(name)] = file.read_text(encoding="utf-8")
    return join(folder.name, audio, texts, lambda name: name.partition("-")[0])


def identify(name: str) -> str:
    return name.replace("_", "-")


if __name__ == "__main__":
    run(main)
