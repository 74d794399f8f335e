"""Writes a pretrained recogniser, after training, as a folder that plain transformers loads.

example:
  python -m audiorl.bin.export exp/qwen3_asr --out qwen3_asr_grpo

It holds weights with adapters merged, tokenizer, features and a model card, and nothing of audiorl.
`model.pretrained: qwen3_asr_grpo` begins another recipe with it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from audiorl.bin import cli
from audiorl.bin.pack import without_paths
from audiorl.config.pretrained import MODEL_TYPES
from audiorl.errors import UserError
from audiorl.runtime.files import disk_errors, remove_leftovers


def main() -> None:
    parser = cli.parser(__doc__, config=False)
    parser.add_argument("exp", type=Path, help="experiment folder")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    args = parser.parse_args()
    export(args.exp, args.out)
    size = sum(path.stat().st_size for path in args.out.rglob("*")) / 1e6
    print(f"{args.out}: {size:.1f} MB, for transformers")


def export(exp: Path, out: Path) -> None:
    """Fill `out` with the model of `exp` and its card, or not at all.

    Raises UserError if `out` has files, and for a model that transformers has no class for.
    """
    from audiorl.models.lora import merge_adapters
    from audiorl.models.policy import load_policy, saved_family
    from audiorl.models.settings import FILE
    from audiorl.report.card import CARD, model_card

    family = saved_family(exp / "model")
    if family not in MODEL_TYPES.values():
        raise UserError(
            f"{exp} is of the family {family}, for which transformers has no class; "
            f"`python -m audiorl.bin.pack {exp} --out FILE.zip` takes it to another machine."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder; name a new one, nothing is overwritten.")
    remove_leftovers(out.parent.glob(f".{out.name}.*.tmp"))
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    card = without_paths(model_card(exp))
    model = load_policy(exp / "model")
    merge_adapters(model)
    try:
        with disk_errors(out):
            model.save(temporary)
            (temporary / FILE).unlink()
            (temporary / CARD).write_text(card, encoding="utf-8")
            os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    cli.run(main)
