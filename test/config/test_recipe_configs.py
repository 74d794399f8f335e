"""Every config and every matrix of the repository loads."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from audiorl.config.loader import load_recipe
from audiorl.config.matrix import load_matrix
from audiorl.config.pretrained import MODEL_TYPES
from audiorl.models.policy import find_policy
from audiorl.table.plan import make_plan

REPO = Path(__file__).resolve().parents[2]
SUFFIXES = (".yaml", ".yml")


def configs() -> list[Path]:
    """The YAML files below conf/ and egs/*/conf, at any depth."""
    folders = [REPO / "conf", *REPO.glob("egs/*/conf")]
    return sorted(p for folder in folders for p in folder.rglob("*") if p.suffix in SUFFIXES)


def matrices() -> list[Path]:
    """The tables of experiments among them."""
    return [path for path in configs() if path.name.startswith("table")]


def name(path: Path) -> str:
    return str(path.relative_to(REPO))


def enter_recipe(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Changes to the folder where run.sh runs; returns the path as seen from there."""
    top, *below = path.relative_to(REPO).parts
    monkeypatch.chdir(REPO / top / below[0] if top == "egs" else REPO)
    return path.relative_to(Path.cwd())


@pytest.mark.parametrize("path", sorted({*configs()} - {*matrices()}), ids=name)
def test_config_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(enter_recipe(path, monkeypatch))
    base = Path(recipe.files[0]).resolve()
    if path.parent.name == "conf":  # in folders below: pieces to extend beside a base
        assert base.parent == REPO / "conf", "a recipe extends a base of conf/, directly or not"


@pytest.mark.parametrize("path", matrices(), ids=name)
def test_matrix_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its configs and presets, and columns that scoring knows; no row is another's double."""
    experiments = load_matrix(enter_recipe(path, monkeypatch))
    plan = make_plan(experiments, Path("exp/sft"), Path("dump"), Path("exp/table"))
    assert len(plan.rows) >= 2 and len(plan.columns) >= 5
    first = {row: next(iter(jobs.values())) for row, jobs in plan.rows.items()}
    rows = [(job.needs, *plan.changes(row)) for row, job in first.items()]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("corpus", ["librispeech", "aishell"])
def test_recipes_of_families_are_named_by_them_and_learn_the_same(corpus: str) -> None:
    """One control serves all of them: they differ in nothing that stage 5 reads of a recipe."""
    folder = REPO / "egs" / corpus / "conf"
    names = sorted(f for f in set(MODEL_TYPES.values()) - {"whisper"})
    found = [name for name in names if (folder / f"{name}.yaml").is_file()]
    assert len(found) == (10 if corpus == "librispeech" else 7)
    control = load_recipe(folder / "pretrained_supervised.yaml").config
    for name in found:
        config = load_recipe(folder / f"{name}.yaml").config
        assert config.model.pretrained and config.model.pretrained.count("/") == 1
        others = replace(config.rl, algorithm="supervised")
        for key in ("rollout_prompts", "micro_batch_tokens"):  # which change no result
            others = replace(others, **{key: getattr(control.rl, key)})
        assert (others, config.lora, config.data) == (control.rl, control.lora, control.data)
        assert config.score == control.score
        if corpus == "aishell":
            same = config.llm.prompt == find_policy(name).prompt
            assert same == (name in ("glm_asr", "phi4_multimodal"))  # which name no language


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
