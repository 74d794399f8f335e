"""Scores the decoded test sets of one or more systems; later ones are compared with the first.

example:
  python -m audiorl.bin.score --config conf/grpo.yaml --dump dump exp/sft exp/grpo
  python -m audiorl.bin.score --config conf/both.yaml --dump dump \\
      --judge exp/judge exp/base exp/both

Of synthesis the judge first hears what was synthesised: one by train_judge, or a recogniser, which
knows no voices: of this toolkit (--judge ../mini_asr/exp/sft), or a pretrained one by folder or hub
name (--judge openai/whisper-small).
Writes result.json, result.txt, per_utt.tsv, ref.trn and hyp.trn into exp/*/decode_*/<set>, and
exp/*/decode_*/result.json. Folders whose hypotheses and references are unchanged stay as they are.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from audiorl.bin import cli
from audiorl.runtime import ranks


def main() -> None:
    parser = cli.parser(__doc__, "dump")
    parser.add_argument("exp", nargs="+", type=Path, help="experiment folders, the first = before")
    parser.add_argument(
        "--judge", type=Path, help="of synthesis: who hears; default: judge beside EXP"
    )
    args = parser.parse_args()

    from audiorl.config import load_config
    from audiorl.report.tables import WIDTH, as_text, overview, systems_table
    from audiorl.score.asr import score_systems
    from audiorl.score.metrics import measures_of
    from audiorl.score.results import write_system

    cfg, exps = load_config(args.config, args.set), args.exp
    measures = measures_of(cfg.task)
    if measures.judged:
        from audiorl.infer.judging import judge_systems
        from audiorl.runtime.device import pick_device, setup_torch
        from audiorl.score.tts import scored_together

        setup_torch(cfg.num_threads)
        exps = scored_together(exps, args.dump, cfg)
        judge = args.judge or args.exp[0].parent / "judge"
        with ranks.joined(cfg.parallelism.timeout_seconds):
            judge_systems(judge, exps, args.dump, cfg, str(pick_device(cfg.device)))
            if not ranks.is_main():
                return  # one process scores
    systems = score_systems(exps, args.dump, cfg, measures)
    for system in systems:
        changed = write_system(system, cfg.score.unit, systems[0])
        print(f"{system.folder}: {'scored' if changed else 'unchanged since it was scored'}")
    compared = [s for s in systems if not s.is_reference]
    tables = [overview(compared, cfg.score.unit)] if compared else []  # references alone
    if measures.judged:
        tables = [systems_table(systems, cfg.score.unit), *tables]
    for table in tables:
        print("", as_text(table), "", *textwrap.wrap(table.note, WIDTH), sep="\n")


if __name__ == "__main__":
    cli.run(main)
