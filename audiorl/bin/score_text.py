"""Scores transcripts of any recogniser: two text files, no audio, no config.

example:
  python -m audiorl.bin.score_text --ref ref.txt --hyp hyp.txt
  python -m audiorl.bin.score_text --ref text --hyp a/text --hyp2 b/text --normalizer english
  python -m audiorl.bin.score_text --ref ref.tsv --hyp hyp.trn --keywords names.txt --align

Files: a text a line, Kaldi's text, sclite's .trn, JSON lines (NeMo's manifests, say) or a table
between tabs; the content tells which. Utterances are joined by id; a missing one is an error.
Prints WER and CER with 95 % intervals, with keywords B-WER and U-WER; --hyp2 compares by paired
tests. --keywords: a keyword a line for all utterances, or a list for each: Kaldi's utt2keywords
(<id> <keyword>; <keyword>), JSON lines or a table with a column keywords.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from audiorl.bin import cli


def main() -> None:
    parser = cli.parser(__doc__, config=False)
    parser.add_argument("--ref", type=Path, required=True, help="references")
    parser.add_argument("--hyp", type=Path, required=True, help="hypotheses")
    parser.add_argument("--hyp2", type=Path, nargs="+", default=[], help="compared with --hyp")
    parser.add_argument("--keywords", type=Path, help="for B-WER, U-WER, precision and recall")
    parser.add_argument("--normalizer", default="none", help="none (default), english, mandarin …")
    parser.add_argument("--unit", help="word, char or mixed; default: mixed of Mandarin, else word")
    parser.add_argument("--format", default="", help="of all files: lines, kaldi, trn, jsonl, tsv")
    parser.add_argument("--align", action="store_true", help="prints utterances with errors")
    parser.add_argument("--out", type=Path, help="folder for result.json, per_utt.tsv, *.trn …")
    args = parser.parse_args()

    from audiorl.config.decoding import ScoreConfig
    from audiorl.data.transcripts import FORMATS
    from audiorl.errors import UserError
    from audiorl.report.tables import WIDTH, as_text, paired_table, verdict
    from audiorl.score.results import aligned_lines, summary_lines, write_set
    from audiorl.score.texts import score_files
    from audiorl.text.normalise import normalizer, split_units

    unit = args.unit or ("mixed" if args.normalizer.startswith("mandarin") else "word")
    normalizer(args.normalizer), split_units("", unit)  # an unknown name is told at once
    if args.format and args.format not in FORMATS:
        raise UserError(f"--format {args.format} is unknown; choose one of {', '.join(FORMATS)}.")
    scoring = ScoreConfig(normalizer=args.normalizer, unit=unit)
    hyps = [args.hyp, *args.hyp2]
    systems, files = score_files(args.ref, hyps, args.keywords, scoring, args.format)
    for path, form in files:
        print(f"{path}: {form}, {len(systems[0].pooled.utterances)} utterances")
    print(f"normalizer {args.normalizer}, unit {unit}")
    for system in systems:
        print("", system.label, *summary_lines(system.pooled, unit), sep="\n")
        if args.align:
            print("", *aligned_lines(system.pooled), sep="\n")
        if args.out:
            folder = args.out / system.label if args.hyp2 else args.out
            write_set(folder, system.pooled, unit)
            print(f"{folder}: written")
    for system in systems[1:]:
        table = paired_table([systems[0], system])
        print("", *textwrap.wrap(verdict([systems[0], system], system, unit)[0], WIDTH), sep="\n")
        print("", as_text(table), "", *textwrap.wrap(table.note, WIDTH), sep="\n")


if __name__ == "__main__":
    cli.run(main)
