"""From a matrix to jobs: commands, order, columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiorl.config.matrix import load_matrix
from audiorl.errors import UserError
from audiorl.table.plan import Plan, make_plan
from audiorl.table.run import describe, run_table

CONFIG = "data: {test: [one, two, silence], no_speech: [silence], rl_dev: rl_dev}\n"
MATRIX = """\
config: grpo.yaml
seeds: [3, 4]
columns: [COLUMNS]
data: {all: {}, hard: {set: [rl_data.drop_flat=true]}}
cells:
  a: {}
  b: {data: hard, set: [rl.beta=0.5]}
"""
COLUMNS = "one.wer, pooled.cer, silence.words_per_minute"


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The plan of a matrix with these columns."""
    monkeypatch.chdir(tmp_path)
    Path("grpo.yaml").write_text(CONFIG)

    def plan(columns: str = COLUMNS, *overrides: str) -> Plan:
        Path("table.yaml").write_text(MATRIX.replace("COLUMNS", columns))
        experiments = load_matrix("table.yaml", overrides)
        return make_plan(experiments, Path("exp/sft"), Path("dump"), Path("exp/table"))

    return plan


def test_commands_are_those_of_the_stages(plan) -> None:
    found = plan()
    run = found.rows["b"][4]
    assert run.name == "b/seed4"
    assert [" ".join(command) for command in run.commands] == [
        "audiorl.bin.train_rl --config exp/table/b/seed4.yaml --init exp/sft "
        "--data exp/table/data/hard.jsonl --dump dump --out exp/table/b/seed4",
        "audiorl.bin.decode --config exp/table/b/seed4.yaml --dump dump exp/table/b/seed4",
        "audiorl.bin.score --config exp/table/b/seed4.yaml --dump dump exp/table/b/seed4",
    ]
    assert (run.config.seed, run.config.rl.beta) == (4, 0.5)
    assert run.needs == ("data/hard",)
    assert run.output == Path("exp/table/b/seed4/decode_greedy/result.json")
    assert found.rows["a"][3].needs == ("data/all",)
    assert [" ".join(job.commands[0]) for job in found.data] == [
        f"audiorl.bin.build_rl_data --config exp/table/data/{name}.yaml --dump dump "
        f"--init exp/sft --out exp/table/data/{name}.jsonl"
        for name in ("all", "hard")
    ]
    assert [command[0] for command in found.warm_start.commands] == [
        "audiorl.bin.decode",
        "audiorl.bin.score",
    ]
    assert found.warm_start.commands[0][-1] == "exp/sft"


def test_of_synthesis_the_models_stand_beside_the_warm_start(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("grpo.yaml").write_text("task: tts\ndata: {test: [one]}\nscore: {unit: char}\n")
    Path("table.yaml").write_text("config: grpo.yaml\ncolumns: [one.similarity]\ncells: {a: {}}\n")
    found = make_plan(load_matrix("table.yaml"), Path("exp/sft"), Path("dump"), Path("exp/table"))
    exp = "exp/table/a/seed1"
    assert [" ".join(command) for command in found.rows["a"][1].commands] == [
        f"audiorl.bin.train_rl --config {exp}.yaml --init exp/sft "
        f"--data exp/table/data/train/train.jsonl --dump dump --out {exp} "
        "--histories exp/table/data/train/tokens "
        "--codec exp/codec --reward_model exp/reward_model --judge exp/judge",
        f"audiorl.bin.synthesise --config {exp}.yaml --dump dump --codec exp/codec {exp}",
        f"audiorl.bin.score --config {exp}.yaml --dump dump --judge exp/judge {exp}",
    ]
    assert Path("exp/reward_model/model/model.safetensors") in found.rows["a"][1].inputs
    Path("exp/sft/model").mkdir(parents=True)
    Path("exp/sft/model/model.safetensors").touch()
    with pytest.raises(UserError, match=r"exp/codec/.*belongs beside the warm start"):
        run_table(found, 1)


def test_a_row_may_begin_with_the_models_of_another(plan, monkeypatch) -> None:
    monkeypatch.setattr("test_plan.MATRIX", MATRIX + "  c: {after: b}\n  d: {}\n")
    found = plan()
    job = found.rows["c"][4]
    assert "--init exp/table/b/seed4 --data exp/table/data/all.jsonl" in " ".join(job.commands[0])
    assert job.needs == ("data/all", "b/seed4")
    assert Path("exp/table/b/seed4/model/model.safetensors") in job.inputs
    # They wait until all others have ended.
    names = ["a/seed3", "b/seed3", "d/seed3", "a/seed4", "b/seed4", "d/seed4", "c/seed3", "c/seed4"]
    assert [job.name for job in found.runs] == names


def test_what_a_job_is_made_from(plan) -> None:
    found = plan()
    assert [str(path) for path in found.rows["b"][3].inputs] == [
        "exp/table/data/hard.jsonl", "exp/sft/model/model.safetensors",
        "dump/one", "dump/rl_dev", "dump/silence", "dump/two",
    ]  # fmt: skip
    names = [path.name for path in found.data[0].inputs]
    assert names == ["model.safetensors", "dev", "one", "rl_dev", "silence", "train", "two"]


def test_the_first_seed_comes_first(plan) -> None:
    assert [job.name for job in plan().runs] == ["a/seed3", "b/seed3", "a/seed4", "b/seed4"]


def test_what_rows_change(plan) -> None:
    found = plan(COLUMNS, "rl.max_steps=5")
    assert found.changes("a") == []
    assert found.changes("b") == ["rl.beta: 0.0 -> 0.5"]
    assert found.rows["a"][3].config.rl.max_steps == 5
    assert describe(found).splitlines() == [
        "a: the table's config (data/all, 0 of 2 seeds done)",
        "b: rl.beta: 0.0 -> 0.5 (data/hard, 0 of 2 seeds done)",
        "columns: one WER %, pooled CER %, silence words/min",
        "compared with: warm_start",
    ]


def test_columns(plan) -> None:
    columns = plan("pooled.deletions, two.keyword_f1, silence.output").columns
    assert [column.sets for column in columns] == [("one", "two"), ("two",), ("silence",)]
    assert [column.title for column in columns] == [
        "pooled deletions %", "two keyword F1 %", "silence output %",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("oen.wer", "oen is not one of data.test; did you mean one?"),
        ("three.wer", "choose one of one, two, silence, pooled"),
        ("one", "one has no ``; choose one of cer, wer, "),
        ("one.wre", "one has no `wre`; did you mean wer?"),
        ("one.mer", "one has no `mer`; did you mean wer?"),
        ("one.outputs", "one has no `outputs`; did you mean output?"),
        (
            "silence.wer",
            "silence has no `wer`; choose one of output, words_per_minute, "
            "words_output, signs_alone, unfinished.",
        ),
    ],
)
def test_columns_that_do_not_exist(plan, column: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        plan(f"pooled.wer, {column}")
    assert f"table.yaml:3: columns: {column}: " in str(refused.value)
    assert message in str(refused.value)


def test_metrics_are_named_after_the_unit(plan) -> None:
    assert plan("pooled.mer", "score.unit=mixed").columns[0].title == "pooled MER %"
    with pytest.raises(UserError, match="pooled has no `mer`"):
        plan("pooled.mer")
    for unit in ("word", "char", "mixed"):  # those of words and letters are always there
        assert plan("pooled.wer", f"score.unit={unit}").columns[0].title == "pooled WER %"
        assert plan("pooled.cer", f"score.unit={unit}").columns[0].title == "pooled CER %"


def test_what_must_be_there_first(plan) -> None:
    with pytest.raises(UserError, match=r"model\.safetensors: there is no warm start; train it"):
        run_table(plan(), 1)
    weights = Path("exp/sft/model/model.safetensors")
    weights.parent.mkdir(parents=True)
    weights.touch()
    with pytest.raises(UserError, match=r"dump/one, dump/silence, dump/two: no such set; prepare"):
        run_table(plan(), 1)
