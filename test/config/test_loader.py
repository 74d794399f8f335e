"""What YAML means under the schema, and the sentence for each thing that it may not hold."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from audiorl.config import Config, load_config
from audiorl.config.loader import load_recipe
from audiorl.config.rewards import reward_options
from audiorl.errors import UserError


def only(problems: list[str]) -> str:
    """The one problem."""
    assert len(problems) == 1, problems
    return problems[0]


def short(value: object) -> str:
    """The id of a parameter that may be long."""
    return repr(value)[1:40]


# What values mean


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-5", 1e-5),  # text to YAML 1.1
        ("1E-5", 1e-5),
        ("1.0e-05", 1e-5),
        (".5", 0.5),
        ("1.", 1.0),
        ("+3", 3.0),
        ("0", 0.0),
        ("7", 7.0),
    ],
)
def test_numbers(load: Callable, written: str, value: float) -> None:
    beta = load(f"rl: {{beta: {written}}}").rl.beta
    assert beta == value and type(beta) is float


@pytest.mark.parametrize(
    "written", ["no", "on", "yes", "012", "1:30", "1e-5", "true", "3", "0x1F", "2024-01-01", ".inf"]
)
def test_text_stays_text(load: Callable, written: str) -> None:
    assert load(f"encoder:\n  init: {written}").encoder.init == written


def test_quotes_and_block_text(load: Callable) -> None:
    assert load('llm: {prompt: "a\\n{audio}"}').llm.prompt == "a\n{audio}"
    assert load("llm:\n  prompt: |-\n    a\n    {audio}").llm.prompt == "a\n{audio}"
    assert load('llm: {pretrained: ""}').llm.pretrained == ""
    assert load("data: {dev: 'null'}").data.dev == "null"
    assert load("llm: {prompt: '转写 {audio}'}").llm.prompt == "转写 {audio}"


@pytest.mark.parametrize(("written", "value"), [("true", True), ("false", False), ("True", True)])
def test_booleans(load: Callable, written: str, value: bool) -> None:
    assert (
        load(f"rl: {{mask_truncated_completions: {written}}}").rl.mask_truncated_completions
        is value
    )


def test_whole_numbers_are_int(load: Callable) -> None:
    seed = load("seed: 12").seed
    assert seed == 12 and type(seed) is int


def test_lists_and_lists_of_mappings(load: Callable) -> None:
    config = load(
        "data:\n  test:\n    - no\n    - b\nrl:\n  rewards:\n    - {name: wer, weight: 2}\n"
    )
    assert config.data.test == ["no", "b"]
    assert config.rl.rewards == [reward_options("wer", 2.0)]
    assert load("rl: {rewards: [{weight: 3}]}").rl.rewards == [reward_options("wer", 3.0)]
    assert load("data: {test: []}").data.test == []


def test_what_is_not_set_has_its_default(load: Callable) -> None:
    assert load("seed: 1") == Config(seed=1)


def test_crlf_and_byte_order_mark(load: Callable) -> None:
    assert load("\ufeffseed: 3\r\nrl:\r\n  beta: 1\r\n").rl.beta == 1.0


# Refusals: the place, the key, what was expected, the fix


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed: 1.0", "c.yaml:1: seed: expected a whole number >= 0 (got 1.0); write 1."),
        ("seed: 1e1", "c.yaml:1: seed: expected a whole number >= 0 (got 1e1); write 10."),
        ("seed: 012", "c.yaml:1: seed: expected a whole number >= 0 (got 012); write 12."),
        ("seed: 1_000", "c.yaml:1: seed: expected a whole number >= 0 (got 1_000); write 1000."),
        (
            "seed: 0x10",
            "c.yaml:1: seed: expected a whole number >= 0 (got 0x10); the default is 1.",
        ),
        ('seed: "3"', 'c.yaml:1: seed: expected a whole number >= 0 (got "3"); remove the quotes.'),
        ("seed: 2.5", "(got 2.5); write a number without a fraction."),
        ("seed: -1", "c.yaml:1: seed: expected a whole number >= 0 (got -1); the default is 1."),
        ("seed: " + "9" * 19, "(got 9999999999999999999); the default is 1."),
        ("seed: " + "9" * 5000, "999…); the default is 1."),
        ("seed: true", "(got true); the default is 1."),
        ("seed: [1]", "(got a list); the default is 1."),
        ("seed: {a: 1}", "(got a mapping); the default is 1."),
        ("seed:", "c.yaml:1: seed: expected a whole number >= 0 (got nothing); remove the key."),
        ("seed: ~", "(got ~); remove the key."),
        ("rl: {beta: abc}", "rl.beta: expected a number >= 0 (got abc); the default is 0.0."),
        ("rl: {beta: .inf}", "(got .inf); the default is 0.0."),
        ("rl: {beta: .nan}", "(got .nan); the default is 0.0."),
        ("rl: {beta: 1e999}", "(got 1e999); the default is 0.0."),
        ("rl: {beta: 1:30}", "(got 1:30); the default is 0.0."),
        ("rl: {top_p: 0}", "rl.top_p: expected a number > 0, <= 1 (got 0); the default is 1.0."),
        (
            "rl: {top_p: 1.5}",
            "rl.top_p: expected a number > 0, <= 1 (got 1.5); the default is 1.0.",
        ),
        ("rl: {mask_truncated_completions: yes}", "expected true or false (got yes); write true."),
        ("rl: {mask_truncated_completions: Off}", "expected true or false (got Off); write false."),
        ("rl: {mask_truncated_completions: 1}", "expected true or false (got 1); write true."),
        ("rl: {mask_truncated_completions: 'true'}", '(got "true"); remove the quotes.'),
        ("device: gpu", "device: expected one of auto, cpu, cuda (got gpu); did you mean cpu?"),
        ("device: CUDA", "device: expected one of auto, cpu, cuda (got CUDA); did you mean cuda?"),
        ("device: 9", "device: expected one of auto, cpu, cuda (got 9); the default is auto."),
        ("data: {dev: }", 'data.dev: expected text (got nothing); write "" for an empty text.'),
        ("data: {dev: null}", 'data.dev: expected text (got null); write "" for an empty text.'),
        ("data: {dev: [a]}", "data.dev: expected text (got a list); the default is dev."),
        (
            "llm:\n  prompt: {audio}",
            "c.yaml:2: llm.prompt: expected text (got a mapping); put text",
        ),
        ("rl: {rewards: wer}", "(got wer); write [{name: wer}]."),
        ("data: {test: a}", "data.test: expected a list of text (got a); write [a]."),
        ("data:\n  test:\n  - a\n  - [b]", "c.yaml:4: data.test[1]: expected text (got a list)"),
        ("rl: {rewards: [wer]}", "rl.rewards[0]: expected keys indented below it (got wer)"),
        ("rl: {rewards: wer}", "rl.rewards: expected a list of mappings (got wer)"),
        (
            "rl:\n  rewards:\n  - nam: wer",
            "c.yaml:3: rl.rewards[0].nam: unknown key; did you mean rl.",
        ),
        ("rl: {rewards: [{weight: x}]}", "rl.rewards[0].weight: expected a number (got x)"),
        (
            "sft:\nrl: {beta: 1}",
            "c.yaml:1: sft: expected keys indented below it (got nothing); add",
        ),
        ("rl: 3", "c.yaml:1: rl: expected keys indented below it (got 3)"),
    ],
    ids=short,
)
def test_wrong_value(problems: Callable, text: str, sentence: str) -> None:
    problem = only(problems(text))
    assert problem.startswith("c.yaml:") and sentence in problem


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            "rl: {num_generation: 4}",
            "rl.num_generation: unknown key; did you mean rl.num_generations?",
        ),
        ("rl: {num-generations: 4}", "did you mean rl.num_generations?"),
        ("num_generations: 4", "num_generations: unknown key; did you mean rl.num_generations?"),
        ("decode: {num_iteration: 4}", "did you mean rl.num_iterations?"),
        ("decode: {num_iterations: 4}", "did you mean rl.num_iterations?"),
        ("rll: {beta: 1}", "c.yaml:1: rll: unknown key; did you mean rl?"),
        ("rl: {ppo_epochs: 2}", "did you mean rl.num_iterations?"),  # verl's name
        ("rl: {n: 2}", "did you mean rl.num_generations?"),  # rollout.n
        ("max_steps: 2", "did you mean sft.schedule.max_steps or rl.max_steps?"),
        (
            "rl.beta: 2",
            "rl.beta: a key of a section; write `rl:` and below it, indented, `beta: …`.",
        ),
        ("extend: a.yaml", "extend: unknown key; did you mean extends?"),
        ("rl: {extends: a.yaml}", "rl.extends: only a file extends, at its top; move it there."),
        ("zzzzz: 2", "zzzzz: unknown key; `check_config --defaults asr` lists all keys."),
    ],
)
def test_unknown_key_with_the_nearest(problems: Callable, text: str, hint: str) -> None:
    assert hint in only(problems(text))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "",
            "c.yaml:1: expected sections such as `rl:` with keys below (got an empty file); add",
        ),
        ("# nothing\n", "(got an empty file)"),
        ("- a", "c.yaml:1: expected sections such as `rl:` with keys below (got a list)"),
        ("rl", "(got rl)"),
        ("seed: 1\nrl:\n\tbeta: 1", "c.yaml:3: a tab stands here; indent with spaces."),
        ("seed: 1\n---\nseed: 2", "c.yaml:2: a second document begins here"),
        ("seed: [1", "not YAML (expected ',' or ']', but got '<stream end>')"),
        ("llm:\n  prompt: {audio} text", "c.yaml:2: not YAML (expected <block end>"),
        ("llm:\n  prompt: a: {audio}", "c.yaml:2: not YAML (mapping values are not allowed here)"),
        (
            "llm:\n  prompt: @a",
            "c.yaml:2: not YAML (found character '@' that cannot start any token)",
        ),
        ("seed: 1\nllm: {prompt: '\x07{audio}'}", "c.yaml:2: character U+0007 cannot be printed"),
        (b"seed: 1\nllm: {prompt: \xff{audio}}", "c.yaml:2: not UTF-8; save the file as UTF-8."),
        ("seed: 1".encode("utf-16"), "c.yaml:1: not UTF-8"),
        ("a: " + "[" * 2000, "nested too deeply"),
    ],
    ids=short,
)
def test_what_is_no_config(problems: Callable, text: str | bytes, sentence: str) -> None:
    assert sentence in only(problems(text))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed: !!int 3", "c.yaml:1: tag !!int is refused, a config is plain data; remove it."),
        ("seed: 1\nllm: !new:os.system {}", "c.yaml:2: tag !new:os.system is refused"),
        ("data: {dev: !ref <x>}", "tag !ref is refused"),
        ("data: {test: [!x a]}", "tag !x is refused"),
        ("!x seed: 3", "tag !x is refused"),
        (
            "rl: &base {beta: 1}",
            "c.yaml:1: anchor &base is refused; share settings through `extends`.",
        ),
        ("? [a]\n: 1", "a key is a plain name (got a list)"),
        ("rl: {<<: {beta: 1}}", "c.yaml:1: rl: merge key << is refused; share settings"),
    ],
)
def test_refused_yaml(problems: Callable, text: str, sentence: str) -> None:
    assert sentence in only(problems(text))


def test_a_tag_executes_nothing(problems: Callable) -> None:
    problem = only(problems("data: {dev: !!python/object/apply:os.mkdir [made]}"))
    assert problem.startswith("c.yaml:1: tag !!python/object/apply:os.mkdir is refused")
    assert not os.path.exists("made")


def test_aliases_are_refused_even_recursive_ones(problems: Callable) -> None:
    assert problems("data: {test: &a [x, *a]}") == [
        "c.yaml:1: alias *a is refused; write the value itself.",
        "c.yaml:1: anchor &a is refused; share settings through `extends`.",
    ]


def test_duplicate_key_names_both_lines(problems: Callable) -> None:
    assert only(problems("seed: 1\nrl:\n  beta: 1\n  top_k: 3\n  beta: 2\n")) == (
        "c.yaml:5: rl.beta: set twice (first at c.yaml:3); keep one."
    )
    assert only(problems("seed: 1\nrl: {beta: 1}\nseed: 2")).startswith("c.yaml:3: seed: set twice")
    assert "extends: set twice" in problems("extends: a\nextends: b")[0]
    assert "rl.rewards[0].name: set twice" in only(
        problems("rl: {rewards: [{name: wer, name: wer}]}")
    )


def test_all_problems_at_once(problems: Callable) -> None:
    found = problems(
        "seed: x\nrl:\n  betta: 1\n  top_p: 2\n  top_p: 3\ndata:\n  dev: !x d\n  no_speech: [q]\n",
        "rl.beta=-1",
        "foo",
    )
    assert [line.split(": ")[:2] for line in found] == [
        ["c.yaml:7", "tag !x is refused, a config is plain data; remove it."],
        ["c.yaml:1", "seed"],
        ["c.yaml:5", "rl.top_p"],
        ["c.yaml:3", "rl.betta"],
        ["c.yaml:4", "rl.top_p"],
        ["--set rl.beta=-1", "expected a number >= 0 (got -1); the default is 0.0."],
        ["--set foo", "expected KEY.PATH=VALUE; write, for example, rl.beta=0.04."],
    ]


def test_missing_file() -> None:
    with pytest.raises(
        UserError, match=r"^no/such\.yaml: cannot be read \(No such file or dir.*fix"
    ):
        load_config("no/such.yaml", ["codec.type=mimi"])  # of which task is not known
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        load_config(Path(__file__).parent)


# extends


def test_extends_merges_mappings_and_replaces_lists(write: Callable) -> None:
    write("seed: 5\nrl: {epsilon: 0.1, top_k: 7}\ndata: {test: [a, b]}\n", "base/b.yaml")
    write("extends: b.yaml\nrl: {epsilon: 0.15}\n", "base/middle.yaml")
    leaf = write(
        "extends: ../base/middle.yaml\nrl:\n  top_p: 0.5\ndata: {test: [c]}\n", "x/leaf.yaml"
    )
    recipe = load_recipe(leaf, ["rl.top_p=0.25"])
    rl = recipe.config.rl
    assert (recipe.config.seed, rl.epsilon, rl.top_k, rl.top_p) == (5, 0.15, 7, 0.25)
    assert recipe.config.data.test == ["c"]
    assert recipe.files == ["base/b.yaml", "base/middle.yaml", "x/leaf.yaml"]
    assert recipe.origins == {
        "seed": "base/b.yaml:1",
        "rl.epsilon": "base/middle.yaml:2",
        "rl.top_k": "base/b.yaml:2",
        "rl.top_p": "--set rl.top_p=0.25",
        "data.test": "x/leaf.yaml:4",
    }


def test_extends_several_and_the_later_wins(write: Callable) -> None:
    write("seed: 5\nrl: {top_k: 7, top_p: 0.9}\n", "base.yaml")
    write("rl: {top_k: 8}\n", "algorithms/one.yaml")
    leaf = write("extends: [base.yaml, algorithms/one.yaml]\nrl: {top_p: 0.5}\n", "leaf.yaml")
    recipe = load_recipe(leaf)
    rl = recipe.config.rl
    assert (recipe.config.seed, rl.top_k, rl.top_p) == (5, 8, 0.5)
    assert recipe.files == ["base.yaml", "algorithms/one.yaml", "leaf.yaml"]


def test_extends_may_be_all_there_is(write: Callable) -> None:
    write("seed: 5", "b.yaml")
    assert load_config(write("extends: b.yaml")).seed == 5
    assert load_config(write(f"extends: {os.path.abspath('b.yaml')}")).seed == 5


def test_problems_name_the_file_that_set_the_value(write: Callable, problems: Callable) -> None:
    write("seed: 1\nrl:\n  beta: x\n", "b.yaml")
    assert problems("extends: b.yaml\nrl:\n  beta: 2\n  top_k: y\n") == [
        "b.yaml:3: rl.beta: expected a number >= 0 (got x); the default is 0.0.",
        "c.yaml:4: rl.top_k: expected a whole number >= 0 (got y); the default is 0.",
    ]


def test_missing_base_names_the_line_that_extends(write: Callable, problems: Callable) -> None:
    assert only(problems("seed: 1\nextends: ../nowhere.yaml")) == (
        "c.yaml:2: extends: there is no file ../nowhere.yaml; give its path relative to this file."
    )
    write("extends: gone.yaml", "d/b.yaml")
    assert problems("extends: d/b.yaml\nsed: 1") == [
        "d/b.yaml:1: extends: there is no file d/gone.yaml; give its path relative to this file.",
        "c.yaml:2: sed: unknown key; did you mean seed?",
    ]


def test_a_circle_is_shown(write: Callable, problems: Callable) -> None:
    write("extends: ../c.yaml", "d/b.yaml")
    assert only(problems("extends: d/b.yaml")) == (
        "d/b.yaml:1: extends: a circle (c.yaml -> d/b.yaml -> c.yaml); remove one `extends`."
    )
    assert "a circle (c.yaml -> c.yaml)" in only(problems("extends: c.yaml"))


@pytest.mark.parametrize("written", ["[{a: b}]", "[~]", "{a: b}", "", "~"])
def test_extends_is_a_path_or_several(problems: Callable, written: str) -> None:
    assert "extends: expected a path, or a list of them, relative to this file (got" in only(
        problems(f"extends: {written}")
    )


# --set


def test_overrides_win_and_the_last_of_them(load: Callable) -> None:
    text = "rl: {beta: 1, rewards: [{name: wer, weight: 5}]}"
    config = load(
        text,
        "rl.beta=2",
        "rl.beta=1e-5",
        "rl.rewards=[{name: wer, weight: 0.5}]",
        "data.test=[a, no]",
        "decode={name: wide, num_beams: 8}",
        "rl.mask_truncated_completions=true",
        "llm.prompt=a=b {audio}",
        "encoder.init=",
    )
    assert config.rl.beta == 1e-5
    assert config.rl.rewards == [reward_options("wer", 0.5)]
    assert config.data.test == ["a", "no"]
    assert (config.decode.name, config.decode.num_beams) == ("wide", 8)
    assert config.rl.mask_truncated_completions is True
    assert config.llm.prompt == "a=b {audio}"
    assert config.encoder.init == ""


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("rl.xx", "--set rl.xx: expected KEY.PATH=VALUE; write, for example, rl.beta=0.04."),
        ("=3", "--set =3: expected KEY.PATH=VALUE"),
        ("rl.betta=3", "--set rl.betta=3: unknown key; did you mean rl.beta?"),
        ("beta=3", "--set beta=3: unknown key; did you mean rl.beta?"),
        ("rl=3", "--set rl=3: expected keys indented below it (got 3)"),
        ("rl.beta.x=3", "--set rl.beta.x=3: rl.beta: expected a number >= 0 (got a mapping)"),
        ("rl.beta=yes", "--set rl.beta=yes: expected a number >= 0 (got yes)"),
        ("rl.beta=", '--set rl.beta=: expected a number >= 0 (got "")'),
        ("rl.beta= ", "expected a number >= 0 (got nothing); remove the key."),
        ("rl.beta=[", "--set rl.beta=[: not YAML"),
        ("rl.beta=!x 1", "--set rl.beta=!x 1: tag !x is refused"),
        ("extends=a.yaml", "--set extends=a.yaml: only a file extends, at its top; move it there."),
        ("rl.rewards=[{name: wr}]", "rl.rewards[0].name: expected one of"),
        ("rl.rewards[0].weight=2", "unknown key; did you mean rl.rewards?"),
        ("rl.beta=" + "9" * 400, "9…: expected a number >= 0 (got 999"),
    ],
    ids=short,
)
def test_wrong_override(problems: Callable, option: str, sentence: str) -> None:
    problem = only(problems("seed: 1", option))
    assert problem.startswith("--set ") and sentence in problem and len(problem) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("codec: {type: mimi}", "2: codec.type: is a key of task tts, and this recipe's is asr; "),
        (
            "task: tts\nsft: {batch_seconds: 9}",
            "3: sft.batch_seconds: is a key of task asr, and this recipe's is",
        ),
    ],
)
def test_a_key_of_the_other_task_is_refused(write: Callable, text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        load_config(write("seed: 1\n" + text))
