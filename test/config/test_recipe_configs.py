"""Every config of the repository loads."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from audiorl.config.loader import load_recipe

REPO = Path(__file__).resolve().parents[2]
SUFFIXES = (".yaml", ".yml")


def configs() -> list[Path]:
    """The YAML files below conf/ and egs/*/conf, at any depth."""
    folders = [REPO / "conf", *REPO.glob("egs/*/conf")]
    return sorted(p for folder in folders for p in folder.rglob("*") if p.suffix in SUFFIXES)


@pytest.mark.parametrize("path", configs(), ids=lambda path: str(path.relative_to(REPO)))
def test_config_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top, *below = path.relative_to(REPO).parts
    monkeypatch.chdir(REPO / top / below[0] if top == "egs" else REPO)  # where run.sh runs
    recipe = load_recipe(path.relative_to(Path.cwd()))
    base = Path(recipe.files[0]).resolve()
    if path.parent != REPO / "conf" / "algorithms":  # pieces that a recipe extends beside its base
        assert base.parent == REPO / "conf", "a recipe extends a base of conf/, directly or not"


def test_none_is_left_out() -> None:
    """The walk finds what git knows, in conf folders and nowhere else below egs/ and conf/."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "conf", "egs"],
            cwd=REPO,
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    names = {REPO / name.decode() for name in listing.stdout.split(b"\0") if name}
    known = {path for path in names if path.suffix in SUFFIXES and path.exists()}
    assert set(configs()) == known
    assert len(known) > 0


def test_base_recipe_is_among_them() -> None:
    assert REPO / "conf" / "asr.yaml" in configs()
    assert load_recipe(REPO / "conf" / "asr.yaml").files == [str(REPO / "conf" / "asr.yaml")]
