"""The documents: commands that would run, configs that load, links and files that are there.

Commands are parsed by the programs that they call, not run: a misspelt option, an unknown key of
the config or a file that has moved fails here.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest

from audiorl.config import load_config
from audiorl.config.keys import key_values, schema_keys
from audiorl.config.matrix import load_matrix
from audiorl.config.rewards import REWARDS, RewardOptions
from audiorl.config.schema import Config
from audiorl.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(ROOT.glob("docs/*.md"))
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("egs/**/*.md"), *PAGES]
)
MOST_WORDS = 1500  # of a page of docs/
# What cannot be tried here: programs of others, and what only an installation brings.
ALLOWED = ("git clone ", "tensorboard --logdir ", "ruff ", "source tools/venv/bin/activate")
# Written by recipes: such paths need not exist.
MADE = ("data", "dump", "exp", "downloads", "/")
LAST_STAGE = 9


@dataclass
class Shell:
    """Where a reader stands who types the commands of a block, and what was copied where."""

    folder: Path = ROOT
    copies: dict[Path, Path] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """A path as typed; in a copied folder that of the original."""
        path = (self.folder / name).resolve()
        for copy, original in self.copies.items():
            if path.is_relative_to(copy):
                path = original / path.relative_to(copy)
        return path

    def check(self, command: str) -> None:
        """Raises AssertionError if the command would not be understood."""
        words = shlex.split(command, comments=True)
        if ">" in words:
            words = words[: words.index(">")]
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if not words or " ".join(words).startswith(ALLOWED):
            return
        program, *arguments = words
        if program == "cd":
            self.folder = self.path(arguments[0])
            assert self.folder.is_dir(), f"no folder {arguments[0]}"
        elif words[:2] == ["cp", "-r"]:
            original = self.path(words[2])
            assert original.is_dir(), f"no folder {words[2]}"
            self.copies[(self.folder / words[3]).resolve()] = original
        elif program == "cp":
            assert list(self.folder.glob(arguments[0])), f"no files {arguments[0]}"
            assert self.path(arguments[1]).is_dir(), f"no folder {arguments[1]}"
        elif words[:2] == ["sed", "-i"]:
            assert self.path(arguments[-1]).is_file(), f"no file {arguments[-1]}"
        elif program == "python" and arguments[0] == "-m":
            assert arguments[1].startswith("audiorl.bin."), f"unknown module {arguments[1]}"
            self.check_arguments(importlib.import_module(arguments[1]).main, arguments[2:])
        elif program == "python":
            self.check_script(self.path(arguments[0]), arguments[1:])
        else:
            self.check_program(self.path(program), arguments)

    def check_program(self, program: Path, arguments: list[str]) -> None:
        assert program.is_file(), f"no program {program}"
        name = program.relative_to(ROOT).as_posix()
        if re.fullmatch(r"egs/\w+/run\.sh", name):
            self.check_recipe(program, arguments)
        elif re.fullmatch(r"egs/\w+/run_table\.sh", name):
            self.check_help(program, arguments)
            options = dict(itertools.pairwise(arguments))
            self.check_matrix(
                program.parent / options.get("--matrix", "conf/table.yaml"), arguments
            )
        elif re.fullmatch(r"egs/\w+/local/data\.sh", name):
            called = re.search(r'"\$here/(\w+\.py)"|-m (audiorl\.bin\.\w+)', program.read_text())
            if called[2]:
                self.check_arguments(importlib.import_module(called[2]).main, arguments)
            else:
                self.check_script(program.parent / called[1], arguments)
        elif name in ("test/run.sh", ".ci/run"):
            for argument in arguments:
                assert "/" not in argument or self.path(argument).exists(), f"no {argument}"
        elif name in ("tools/install.sh", "tools/install_engine.sh"):
            listed = program.read_text().partition("\nset ")[0]
            for argument in arguments:
                assert not argument.startswith("-") or argument in listed, f"unknown {argument}"
        else:
            raise AssertionError(f"{name}: this test does not know how to check it")

    def check_recipe(self, program: Path, arguments: list[str]) -> None:
        """run.sh itself looks at its options when it is asked for help after them."""
        self.check_help(program, arguments)
        options = dict(re.findall(r"--(stage|stop_stage|config)[ =](\S+)", " ".join(arguments)))
        for stage in (options.get("stage", 1), options.get("stop_stage", LAST_STAGE)):
            assert 1 <= int(stage) <= LAST_STAGE, f"no stage {stage}"
        config = program.parent / options.get("config", "conf/grpo.yaml")
        self.check_config(config, sets_in(arguments))

    def check_help(self, program: Path, arguments: list[str]) -> None:
        done = subprocess.run([program, *arguments, "--help"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def check_script(self, script: Path, arguments: list[str]) -> None:
        assert script.is_file(), f"no script {script}"
        spec = importlib.util.spec_from_file_location(script.stem, script)
        module = importlib.util.module_from_spec(spec)
        known = set(sys.modules)
        sys.path.insert(0, str(script.parent))
        try:
            spec.loader.exec_module(module)
            self.check_arguments(module.main, arguments)
        finally:
            sys.path.remove(str(script.parent))
            for name in set(sys.modules) - known:  # other recipes have modules of these names
                if "/egs/" in (getattr(sys.modules[name], "__file__", None) or ""):
                    del sys.modules[name]

    def check_arguments(self, main: Callable[[], None], arguments: list[str]) -> None:
        """Calls an entry point up to the end of its parsing; then its config has to load."""
        options = parse(main, arguments)
        files = [getattr(options, "config", None) or "", *getattr(options, "files", [])]
        for file in filter(None, files):
            if not file.startswith(MADE):
                self.check_config(self.path(file), getattr(options, "set", []))
        if matrix := getattr(options, "matrix", None):
            self.check_matrix(self.path(matrix), arguments)

    def check_config(self, path: Path, overrides: list[str]) -> None:
        try:
            load_config(path, overrides)
        except UserError as error:
            raise AssertionError(error) from error

    def check_matrix(self, path: Path, arguments: list[str]) -> None:
        try:
            load_matrix(path, sets_in(arguments))
        except UserError as error:
            raise AssertionError(error) from error


def sets_in(arguments: list[str]) -> list[str]:
    return [value for option, value in itertools.pairwise(arguments) if option == "--set"]


class Parsed(Exception):
    """Raised in the place of an entry point's work."""


def parse(main: Callable[[], None], arguments: list[str]) -> argparse.Namespace:
    """What an entry point makes of its arguments; AssertionError if it refuses them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("parse_args", "parse_intermixed_args"):
            original = getattr(argparse.ArgumentParser, name)

            def stop(parser, *values, original=original):
                raise Parsed(original(parser, *values))

            patch.setattr(argparse.ArgumentParser, name, stop)
        patch.setattr(sys, "argv", ["program", *arguments])
        try:
            main()
        except Parsed as parsed:
            return parsed.args[0]
        except SystemExit as refused:
            assert refused.code == 0, f"{' '.join(arguments)}: refused, see the usage above"
            return argparse.Namespace()  # --help
    raise AssertionError("the entry point does not parse its arguments")


def blocks(document: Path) -> list[tuple[int, list[str]]]:
    """(line number, commands) of every block of shell commands."""
    text = document.read_text(encoding="utf-8")
    found = []
    for block in re.finditer(r"^ *```(?:sh|bash)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        number = text[: block.start()].count("\n") + 2
        found.append((number, block[1].replace("\\\n", " ").splitlines()))
    return found


def copied(document: Path) -> list[str]:
    """The commands of a document that copy a recipe: later blocks work on the copy."""
    return [c for _, commands in blocks(document) for c in commands if c.startswith("cp -r ")]


BLOCKS = [
    pytest.param([*copied(document), *commands], id=f"{document.relative_to(ROOT)}:{number}")
    for document in DOCUMENTS
    for number, commands in blocks(document)
]


@pytest.mark.parametrize("commands", BLOCKS)
def test_commands(commands: list[str]) -> None:
    shell = Shell()
    for command in commands:
        shell.check(command)


def test_no_document_is_left_out() -> None:
    try:
        listing = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.md"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    known = {ROOT / name.decode() for name in listing.stdout.split(b"\0") if name}
    assert {path for path in known if path.exists()} == set(DOCUMENTS)
    assert len(DOCUMENTS) >= 7 and len(BLOCKS) >= 15


@pytest.mark.parametrize(
    "commands",
    [
        "egs/mini_asr/run.sh --sage 3",
        "egs/mini_asr/run.sh --stage 10",
        "egs/mini_asr/run.sh --set rl.betta=1",
        "egs/mini_asr/run.sh --config conf/none.yaml",
        "egs/mini_asr/run_table.sh --job 2",
        "egs/mini_asr/run_table.sh --matrix conf/none.yaml",
        "egs/mini_asr/run_table.sh --set rl.betta=1",
        "python -m audiorl.bin.compare exp/sft",
        "egs/none/run.sh",
        "cd egs/none",
        "cd egs/mini_asr; python -m audiorl.bin.check_config conf/none.yaml",
        "cd egs/mini_asr; python -m audiorl.bin.check_config conf/grpo.yaml --prnt",
        "cd egs/mini_asr; python -m audiorl.bin.check_config conf/grpo.yaml --set seed=x",
        "python -m audiorl.bin.train_sft --config conf/asr.yaml",
        "python -m audiorl.bin.data_dir subset data/a data/b",
        "python tools/none.py",
        "python -m pip install audiorl",
        "egs/librispeech/local/data.sh --corpsu x",
        "egs/mini_asr/local/data.sh --language fr",
        "tools/install.sh --torhc cpu",
        "test/run.sh test/none",
        "utils/recipe.sh",
        "cp -r egs/none egs/mine",
    ],
)
def test_what_is_wrong_is_noticed(commands: str) -> None:
    shell = Shell()
    *before, last = commands.split("; ")
    for command in before:
        shell.check(command)
    with pytest.raises(AssertionError):
        shell.check(last)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_are_short_and_in_the_index(page: Path) -> None:
    words = len(page.read_text(encoding="utf-8").split())
    assert words <= MOST_WORDS, f"{page}: {words} words; split it, or leave something out"
    index = page.parent / "README.md"
    assert page == index or f"({page.name})" in index.read_text(encoding="utf-8"), page


def test_the_page_of_stages_lists_the_keys_that_may_change_in_a_run() -> None:
    page = (ROOT / "docs" / "stages.md").read_text(encoding="utf-8")
    listed = page[page.index("## Stop and resume") :].partition("Any other change")[0]
    names = set(re.findall(r"`(?:\w+\.)*(\w+)`", listed))
    keys = {key for key, (_, field) in schema_keys().items() if field.metadata["resume"]}
    assert {key.rpartition(".")[2] for key in keys} - names == set()


def test_the_files_of_the_table_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page[page.index("| I want to … |") :].partition("\n\n")[0]
    rows = table.splitlines()[2:]
    assert len(rows) >= 30
    for row in rows:
        wish, places = row.strip("| ").split(" | ")
        named = re.findall(r"\[`([^`]+)`\]\(\.\./([^)]+)\)", places)
        assert named or "](reports.md" in places, wish
        assert all(name == path and (ROOT / path).exists() for name, path in named), wish


def test_every_reward_and_option_is_in_the_page_of_rewards() -> None:
    page = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    common = {field.name for field in fields(RewardOptions)}
    for name in REWARDS:
        row = re.search(rf"^\| `{name}` \|.*$", page, re.MULTILINE)
        assert row, f"no row for {name}"
        own = {field.name for field in fields(REWARDS.module(name).Options)} - common
        assert own <= set(re.findall(r"`(\w+)`", row[0].rpartition(" | ")[2])), (name, own)


def test_the_reward_module_of_the_page_is_a_reward(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n([^`]*class Options[^`]*)```", page)
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "brevity.py").write_text(code, encoding="utf-8")
    lines = (
        "from audiorl.config.rewards import reward_options",
        "from audiorl.config.decoding import ScoreConfig",
        "from audiorl.data.utterance import Utterance",
        "from audiorl.rewards import Context, Sample, build_reward",
        "reward = build_reward(reward_options('brevity', longest=3), Context(ScoreConfig()))",
        "said = Utterance('u', '', 'yes', 's')",
        "samples = [Sample(said, text, True) for text in ('yes', 'yes yes')]",
        "assert reward.function(samples) == [0.0, -1.0] and reward.penalty",
    )
    environment = {**os.environ, "AUDIORL_PLUGINS": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), f"{document}: {target}"
        assert path.is_relative_to(ROOT), f"{document}: {target} leads out of the repository"
        assert not anchor or anchor in anchors(path), f"{document}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_keys_in_the_text(document: Path) -> None:
    """`folder/file.py` is there, seen from the document, the repository or a recipe's folder."""
    places = (document.parent, ROOT, ROOT / "egs" / "TEMPLATE", ROOT / "egs" / "mini_asr")
    keys = key_values(Config())
    sections = {key.partition(".")[0] for key in keys if "." in key}
    for code in re.findall(r"`([^`\n]+)`", document.read_text(encoding="utf-8")):
        if re.fullmatch(r"(\.?\w[\w.-]*/)+[\w.-]+\.(py|sh|yaml|md)", code):
            generated = code.startswith(MADE)
            assert generated or any((place / code).exists() for place in places), code
        if (match := re.match(r"((\w+)(?:\.\w+)+)(=|: |$)", code)) and match[2] in sections:
            assert match[1] in keys or any(key.startswith(f"{match[1]}.") for key in keys), code
