"""A table of experiments as data: rows that differ in RL data, reward or algorithm, and columns.

    config: grpo.yaml                 # where every row begins
    seeds: [1, 2, 3]
    columns: [test_clean.wer, pooled.wer, test_nospeech.words_per_minute]
    data:                             # RL sets, each built once (stage 4)
      all: {}
      hard: {set: [rl_data.drop_flat=true]}
    cells:                            # the rows
      grpo: {data: all}
      grpo_hard: {data: hard}
      dr_grpo: {data: all, merge: [../../../conf/algorithms/dr_grpo.yaml]}
      control: {data: all, config: supervised.yaml}
      both: {data: all, after: control}   # GRPO on what the control has learnt

It is read as strictly as a config: unknown keys, wrong types, repeated names and missing files are
refused, all at once, with their lines.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from audiorl.config.check import check_recipe
from audiorl.config.dump import config_differences
from audiorl.config.field import key
from audiorl.config.loader import refuse_if_any
from audiorl.config.reader import Reader, build, sentence
from audiorl.config.schema import Config
from audiorl.errors import UserError, nearest

WARM_START = "warm_start"  # the row of the model that all others begin with
RESERVED = (WARM_START, "data", "images", "log")  # folders of the table itself
# A row begins with the weights of the warm start: what that one is cannot differ between rows.
SHARED = ("tokenizer.", "frontend.", "encoder.", "adaptor.", "llm.", "sft.", "data.train")
COMPARED = ("task", "data.test", "data.no_speech", "score.")  # or rows could not be compared


@dataclass
class Variant:
    """A config in three steps, each over the one before."""

    config: str = key("", "config to begin with, relative to this file; empty: the table's")
    merge: list[str] = key([], "files merged over it, relative to this file: presets, say")
    set: list[str] = key([], "keys over those, as after --set: `rl.beta=0.04`")


@dataclass
class Cell(Variant):
    """A row: what is trained, with each of the seeds."""

    data: str = key("", "RL set, one of `data`; empty: the first of them")
    after: str = key(
        "", "row whose models it begins with, seed by seed; empty: the warm start, as that row does"
    )


@dataclass
class Matrix:
    """A table of experiments on one warm start."""

    config: str = key("", "config of the table, relative to this file")
    seeds: list[int] = key([1], "every row is trained with each", ge=0)
    baseline: str = key(WARM_START, "row that the others are compared with; or `warm_start`")
    against: list[str] = key([], "further rows that all are compared with, each in its own table")
    columns: list[str] = key([], "`<set>.<metric>`; <set>: one of data.test, or `pooled`")
    data: dict[str, Variant] = key(lambda: {"train": Variant()}, "RL sets")
    cells: dict[str, Cell] = key({}, "rows")


@dataclass(frozen=True)
class Experiments:
    """A matrix with the configs that it stands for, in full."""

    matrix: Matrix
    base: Config  # decodes and scores the warm start
    data: dict[str, Config]
    cells: dict[str, dict[int, Config]]  # by row and seed
    where: dict[str, str]  # key path -> `file:line`


def load_matrix(path: str | Path, overrides: Sequence[str] = ()) -> Experiments:
    """Reads a matrix and every config that it names; `overrides` hold for all of these.

    Raises UserError with all problems: those of the matrix, or else those of the configs.
    """
    reader = Reader(Matrix)
    settings = reader.attempt(reader.read_file, str(path))
    refuse_if_any(str(path), reader.problems)
    matrix: Matrix = build(Matrix, settings)
    where = {name: setting.where for name, setting in settings.items()}
    refuse_if_any(str(path), list(_broken_rules(matrix, where, str(path))))
    problems: list[str] = []

    def load(part: str, variant: Variant) -> Config:
        try:
            return _load(matrix, part, variant, where, overrides)
        except UserError as error:
            problems.append(f"{where[part]}: {part}: {error}" if part in where else str(error))
            return Config()

    base = load("", Variant())
    refuse_if_any(str(path), problems)
    data = {name: load(f"data.{name}", variant) for name, variant in matrix.data.items()}
    cells = {name: load(f"cells.{name}", cell) for name, cell in matrix.cells.items()}
    if not problems:
        parts = {f"cells.{name}": config for name, config in cells.items()}
        problems += [line for part in parts for line in _unlike(base, parts[part], part, where)]
    refuse_if_any(str(path), problems)
    by_seed = {
        name: {seed: replace(config, seed=seed) for seed in matrix.seeds}
        for name, config in cells.items()
    }
    return Experiments(matrix, base, data, by_seed, where)


def _broken_rules(matrix: Matrix, where: dict[str, str], path: str) -> Iterator[str]:
    def problem(name: str, message: str) -> str:
        return sentence(where.get(name, path), name, message)

    for name in ("config", "columns", "cells", "data", "seeds"):
        if not getattr(matrix, name):
            yield problem(name, "is missing or empty; `run_table --help` shows an example")
    for name in ("seeds", "columns", "against"):
        values = getattr(matrix, name)
        for value in dict.fromkeys(v for v in values if values.count(v) > 1):
            yield problem(name, f"names {value} twice; keep one")
    rows = [WARM_START, *matrix.cells]
    for name, row in [("baseline", matrix.baseline), *(("against", row) for row in matrix.against)]:
        if row not in rows:
            yield problem(name, f"{row} is no row; {nearest(row, rows)}")
    if matrix.baseline in matrix.against:
        yield problem("against", f"names the baseline, {matrix.baseline}, again; remove it there")
    for name, cell in matrix.cells.items():
        if name in RESERVED:
            yield problem(f"cells.{name}", "means something else here; choose another name")
        if cell.data and cell.data not in matrix.data:
            message = f"{cell.data} is not in `data`; {nearest(cell.data, matrix.data)}"
            yield problem(f"cells.{name}.data", message)
        if cell.after:
            first = [row for row, other in matrix.cells.items() if not other.after]
            if cell.after not in first:
                message = f"{cell.after} is no row that begins with the warm start"
                yield problem(f"cells.{name}.after", f"{message}; {nearest(cell.after, first)}")
        if any(option.partition("=")[0] == "seed" for option in cell.set):
            yield problem(f"cells.{name}.set", "the seed comes from `seeds`; remove seed=…")


def _load(
    matrix: Matrix,
    part: str,
    variant: Variant,
    where: dict[str, str],
    overrides: Sequence[str],
) -> Config:
    def seen_from(name: str, file: str) -> str:
        """The path of a file that is named relative to the one that names it."""
        folder = os.path.dirname(where[name].rpartition(":")[0])
        return os.path.normpath(os.path.join(folder, file))

    own = seen_from(f"{part}.config", variant.config) if variant.config else ""
    overlays = [seen_from(f"{part}.merge", file) for file in variant.merge]
    path = own or seen_from("config", matrix.config)
    return check_recipe(path, [*variant.set, *overrides], overlays).config


def _unlike(base: Config, config: Config, part: str, where: dict[str, str]) -> Iterator[str]:
    """Return the keys that a row must share with the others and does not."""
    for line in config_differences(base, config):
        if line.startswith(SHARED):
            reason = "a row begins with the weights of the warm start, which all rows share"
        elif line.startswith(COMPARED):
            reason = "rows that are scored differently cannot be compared"
        else:
            continue
        yield sentence(where[part], part, f"changes {line}, but {reason}; leave it")
