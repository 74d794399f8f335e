"""Checks configs: keys, types, ranges, what must fit together, the files and packages they need.

All problems are listed, each with its line and its fix (exit status 1). Otherwise it shows what
differs from the defaults and where it was set. Precedence: defaults < base < recipe < --set.

example:
  python -m audiorl.bin.check_config conf/grpo.yaml --set rl.beta=0.04
  python -m audiorl.bin.check_config conf/grpo.yaml --print     # in full, with comments
  python -m audiorl.bin.check_config conf/grpo.yaml --memory    # what RL needs, and what is there
  python -m audiorl.bin.check_config --defaults asr             # every key, as in conf/asr.yaml
"""

from __future__ import annotations

from audiorl.bin.cli import add_set, parser, run
from audiorl.config.check import base_recipe, check_recipe, summary
from audiorl.config.dump import dump_config
from audiorl.config.schema import Config
from audiorl.errors import UserError


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("files", nargs="*", metavar="FILE", help="configs to check")
    add_set(options)
    options.add_argument("--print", action="store_true", help="show the whole resolved config")
    options.add_argument(
        "--memory", action="store_true", help="estimate the memory of stage 5; no weights are read"
    )
    options.add_argument(
        "--defaults", choices=("asr", "tts"), help="show every key of a task, as in conf/TASK.yaml"
    )
    args = options.parse_intermixed_args()
    if bool(args.defaults) == bool(args.files):
        options.error("give configs to check, or --defaults TASK")
    if args.defaults:
        print(base_recipe(args.defaults), end="")
    problems = []
    for file in args.files:
        try:
            recipe = check_recipe(file, args.set)
            needs = _estimate(recipe.config) if args.memory else ""
        except UserError as error:
            problems.append(str(error))
        else:
            print(f"# {file}\n{dump_config(recipe.config)}" if args.print else summary(recipe))
            if needs:
                print(needs)
    if problems:
        raise UserError("\n".join(problems))


def _estimate(config: Config) -> str:
    from audiorl.rl.estimate import estimate  # with torch, which a check does not wait for

    return estimate(config)


if __name__ == "__main__":
    run(main)
