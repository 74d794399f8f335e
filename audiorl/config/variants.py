"""Packages whose modules are found by name: rewards, engines, model families.

The folders in the environment variable AUDIORL_PLUGINS (separated as in PATH) extend such a package
with modules of the user: `$AUDIORL_PLUGINS/rewards/my_reward.py` is the reward `my_reward`. Only
this variable names the folders, and the processes that a program starts inherit it. A config, an
archive or a checkpoint names a module that is found there already, never a file to execute.
"""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from audiorl.errors import UserError, reason

PLUGINS = "AUDIORL_PLUGINS"


def extend_path(package: str, path: Iterable[str]) -> list[str]:
    """Return the search path of a package, followed by its folders in AUDIORL_PLUGINS.

    Modules of `audiorl.models.families` are searched in `families/`, the last part of the name.
    """
    folders = filter(None, os.environ.get(PLUGINS, "").split(os.pathsep))
    folder = package.rpartition(".")[2]
    return [*path, *(os.path.join(os.path.abspath(root), folder) for root in folders)]


def definition(module: str, name: str) -> Any:
    """Return `name` of a module that a recipe names; None if either is missing."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name != module:  # the module is there and lacks something itself
            raise
        return None


class Variants(Collection):
    """The names of the modules of a package; a module is imported when it is asked for.

    `defines`: names that each module has to define. Sub-packages and modules that begin with an
    underscore are not variants.
    """

    def __init__(self, package: str, *defines: str) -> None:
        self.package = package
        self.defines = defines

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def plugin(self, name: str) -> Path | None:
        """Return the file of a variant of the user; None for one of the package itself."""
        path = self._names[name]
        return None if str(path.parent) == self._folders[0] else path

    def module(self, name: str) -> ModuleType:
        """Import the module of a variant; UserError if it is the user's and cannot be used."""
        path = self._names[name]
        try:
            module = importlib.import_module(f"{self.package}.{name}")
        except Exception as error:
            kind = type(error).__name__
            raise UserError(
                f"{path} cannot be loaded ({kind}: {reason(error)}); fix it."
            ) from error
        for needed in self.defines:
            if not hasattr(module, needed):
                raise UserError(f"{path} has no {needed}; add one, as in {self.package}.")
        return module

    @functools.cached_property
    def _folders(self) -> list[str]:
        return list(importlib.import_module(self.package).__path__)

    @functools.cached_property
    def _names(self) -> dict[str, Path]:
        """Name to file. UserError if AUDIORL_PLUGINS is wrong or a name is taken."""
        for root in filter(None, os.environ.get(PLUGINS, "").split(os.pathsep)):
            if not os.path.isdir(root):
                raise UserError(f"{PLUGINS}: there is no folder {root}; fix the variable.")
        own, *others = self._folders
        taken = {module.name for module in pkgutil.iter_modules([own])}
        found = {name: Path(own, f"{name}.py") for name in _variants(own)}
        for folder in others:
            for name in _variants(folder):
                path = Path(folder, f"{name}.py")
                if name in taken:
                    raise UserError(
                        f"{path}: {self.package} has a module {name} already; rename the file."
                    )
                taken.add(name)
                found[name] = path
        return dict(sorted(found.items()))


def _variants(folder: str) -> Iterator[str]:
    for module in pkgutil.iter_modules([folder]):
        if not module.ispkg and not module.name.startswith("_"):
            yield module.name
