"""Recipes from YAML, strictly: all problems of a config at once, each with its line and its fix.

A file may extend another (`extends: ../base.yaml`, relative to the file): mappings merge, lists
replace. The later one wins: defaults of the schema < base < recipe < `--set key.path=value`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from audiorl.config.keys import schema_keys
from audiorl.config.reader import Reader, build, sentence
from audiorl.config.schema import Config
from audiorl.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """A config and where it came from."""

    config: Config
    origins: dict[str, str]  # key path -> `file:line` or `--set …`; absent: the schema's default
    files: list[str]  # base first

    def problem(self, keys: Sequence[str], message: str) -> str:
        """The sentence about `keys[0]`, which does not fit the other keys."""

        def precedence(origin: str) -> int:
            file = origin.rpartition(":")[0]
            return self.files.index(file) if file in self.files else len(self.files)

        # What was set last is what the user has just changed.
        places = [self.origins[key] for key in keys if key in self.origins]
        return sentence(max(places, key=precedence, default=self.files[-1]), keys[0], message)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The config in `path` with `--set` overrides; UserError lists all of its problems."""
    return load_recipe(path, overrides).config


def load_section(kind: type[T], path: str | Path) -> T:
    """Return the section of class `kind` in a file; UserError lists all of its problems."""
    reader = Reader(kind)
    settings = reader.attempt(reader.read_file, str(path))
    refuse_if_any(str(path), reader.problems)
    return build(kind, settings)


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), overlays: Sequence[str | Path] = ()
) -> Recipe:
    """As `load_config`, with the origin of each value; the files `overlays` are merged over `path`.

    An overlay holds a few keys that serve many recipes, such as the settings of an algorithm.
    """
    reader = Reader()
    settings = reader.attempt(reader.read_file, str(path))
    for overlay in overlays:
        settings |= reader.attempt(reader.read_overlay, str(overlay))
    for option in overrides:
        settings |= reader.attempt(reader.read_override, option)
    origins = {key: setting.where for key, setting in settings.items()}
    recipe = Recipe(build(Config, settings), origins, reader.files)
    problems = reader.problems
    if not reader.lost:
        problems += [recipe.problem([key], message) for key, message in _foreign_keys(recipe)]
        for keys, message in recipe.config.broken_rules():
            if not any(map(reader.was_refused, keys)):
                problems.append(recipe.problem(keys, message))
    refuse_if_any(str(path), problems)
    return recipe


def _foreign_keys(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The keys that were set though they are of another task than the recipe's."""
    known, task = schema_keys(), recipe.config.task
    for key in recipe.origins:
        names = key.split(".")
        above = (".".join(names[: i + 1]) for i in range(len(names)))
        theirs = {known[path][1].metadata["task"] for path in above} - {None, task}
        if theirs:
            yield key, f"is a key of task {theirs.pop()}, and this recipe's is {task}; remove it"


def refuse_if_any(path: str, problems: list[str]) -> None:
    """Raises one UserError: a single problem as it is, several in a list below their count."""
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        raise UserError("\n  ".join([f"{path} has {len(problems)} problems:", *problems]))
