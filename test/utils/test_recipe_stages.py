"""Stages, logs, failures and signals of utils/recipe.sh, through recipes that really run."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time

import pytest

FAILING = """\
if stage 1 "First"; then
    run echo first
fi
if stage 2 "Second"; then
    run python -c "
import os, sys
print('corpus is', sys.argv[1])
if os.path.exists('mended'):
    sys.exit()
for i in range(30):
    print('line', i)
print('ValueError: the cause', file=sys.stderr)
sys.exit(3)" "$corpus"
    echo "not reached"
fi
if stage 3 "Third"; then
    run echo third
fi
"""
SLOW = """\
if stage 3 "Third"; then
    run python -c "
import os, sys, time
from audiorl.runtime.files import progress
print('process', os.getpid())
try:
    for _ in progress(range(600), 'waiting'):
        time.sleep(0.1)
except KeyboardInterrupt:
    print('stopped politely', file=sys.stderr)
    sys.exit(130)"
fi
"""


def test_each_stage_says_what_it_is_and_how_long_it_took(recipe) -> None:
    done = recipe.run()
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    for number, text in enumerate(["First", "Second", "Third"], start=1):
        start = next(
            i for i, x in enumerate(lines) if x.startswith(f"== Stage {number} of 3: {text}")
        )
        assert lines[start + 1].startswith("+ ")
        assert re.fullmatch(rf"== Stage {number} took \d+ s", lines[start + 3])
        assert recipe.log(number).splitlines() == lines[start : start + 4]
    assert re.fullmatch(r"== Stages 1 to 3 done in \d+ s", lines[-1])


def test_a_second_run_keeps_the_log_of_the_first(recipe) -> None:
    recipe.run("--stage=3", "--nj=5")
    recipe.run("--stage=3", "--nj=6")
    assert "third 5" in recipe.log(3) and "third 6" in recipe.log(3)


def test_a_wrong_config_stops_before_any_stage(recipe) -> None:
    with open(recipe.folder / "conf" / "supervised.yaml", "a") as config:
        config.write("sede: 3\n")
    for options in ([], ["--stage", "3"]):
        done = recipe.run(*options)
        assert done.returncode == 1
        assert "conf/supervised.yaml:3" in done.stderr and "sede" in done.stderr
        assert "== Stage" not in done.stdout and not (recipe.folder / "exp").exists()
    done = recipe.run("--config", "conf/none.yaml")
    assert done.returncode == 1 and "conf/none.yaml" in done.stderr


def test_a_failure_shows_the_end_of_the_log_and_how_to_go_on(recipe) -> None:
    recipe.write(FAILING)
    corpus = "my corpus, it's $(touch harm)"
    done = recipe.run("--corpus", corpus, "--stage=1", command="egs/small/run.sh")
    assert done.returncode == 3
    assert "third" not in done.stdout and "not reached" not in done.stdout
    before, _, end = done.stderr.partition("The end of egs/small/exp/log/stage_2.log:\n")
    assert before.strip() == "Stage 2 (Second) failed."
    lines = end.splitlines()
    shown = [line for line in lines if line.startswith("  | ")]
    assert len(shown) == 20
    assert shown[-3:-1] == ["  | line 29", "  | ValueError: the cause"]
    assert "Stage 2 failed (code 3)" in shown[-1]
    assert "ValueError: the cause" in recipe.log(2)
    # What it prints can be typed as it stands, in the folder where the recipe was called.
    (recipe.folder / "mended").touch()
    again = subprocess.run(
        lines[-1],
        shell=True,
        cwd=recipe.root,
        env=recipe.environment,
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stderr
    assert "== Stage 1" not in again.stdout and "third" in again.stdout
    assert f"corpus is {corpus}" in again.stdout
    assert not list(recipe.root.rglob("harm"))


MISSING = """\
if stage 1 "First"; then
    run mkdir -p "$exp/rl"
fi
if stage 2 "Second"; then
    run sh -c "echo 'error: $exp/sft/model: there is no model; train.' >&2; exit 1"
fi
if stage 3 "Third"; then
    run sh -c "echo 'error: $corpus/train does not exist; prepare it.' >&2; exit 1"
fi
"""


@pytest.mark.parametrize(
    ("stage", "corpus", "said", "command"),
    [
        # The stage is left out that makes what is missing.
        (3, "data", "data/train is what stage 1 makes. Go on with:", "--stage 1 --corpus data"),
        # Of what this stage or a later one makes, or what is there, none is.
        (2, "data", "Fix that, then go on with:", "--stage 2 --corpus data"),
        (3, "/", "Fix that, then go on with:", "--stage 3 --corpus /"),
    ],
)
def test_no_command_is_named_that_must_fail_again(
    recipe, stage: int, corpus: str, said: str, command: str
) -> None:
    recipe.write(MISSING.replace("$corpus/train", "/tmp") if corpus == "/" else MISSING)
    done = recipe.run(f"--stage={stage}", "--corpus", corpus)
    assert done.returncode == 1
    *_, before, last = done.stderr.splitlines()
    assert before == said and last.endswith(command)


def test_only_this_run_is_shown_of_a_log(recipe) -> None:
    recipe.write(FAILING)
    recipe.run("--stage=2", "--corpus=old")
    recipe.write(FAILING.replace("range(30)", "range(1)"))
    end = recipe.run("--stage=2", "--corpus=new").stderr
    assert "corpus is new" in end and "corpus is old" not in end
    assert "corpus is old" in recipe.log(2)


def test_a_failure_between_commands_of_a_stage_counts(recipe) -> None:
    recipe.write('if stage 1 "First"; then\n    false\n    run echo more\nfi\n' + FAILING[58:])
    done = recipe.run()
    assert done.returncode == 1
    assert "Stage 1 (First) failed" in done.stderr and "+ echo more" not in done.stdout


def test_a_process_that_outlives_its_stage_does_not_hold_the_recipe(recipe) -> None:
    recipe.write("""\
if stage 3 "Third"; then
    run python -c "
import subprocess
print('left', subprocess.Popen(['sleep', '900']).pid)"
fi
""")
    done = recipe.run("--stage=3")  # reads to the end of its output, which nobody else may hold
    left = int(re.search(r"^left (\d+)$", recipe.log(3), re.MULTILINE).group(1))
    os.kill(left, signal.SIGTERM)
    assert done.returncode == 0


def test_a_log_that_cannot_be_written_is_said(recipe) -> None:
    (recipe.folder / "exp").write_text("a file")
    done = recipe.run("--stage=3")
    assert done.returncode == 1
    assert "error: exp/log/stage_3.log cannot be written" in done.stderr


def wait_for_log(recipe, text: str) -> str:
    """The first match in the log of stage 3, as soon as it is there."""
    for _ in range(6000):
        try:
            if found := re.search(text, recipe.log(3)):
                return found.group(1)
        except FileNotFoundError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"no {text} in the log")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_terminated_recipe_ends_its_command(recipe, sent: signal.Signals, code: int) -> None:
    recipe.write(SLOW)
    running = subprocess.Popen(
        [recipe.script, "--stage=3", "--nj=2"],
        env=recipe.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process = int(wait_for_log(recipe, r"process (\d+)\n"))
    running.send_signal(sent)
    _, errors = running.communicate(timeout=600)
    assert running.returncode == code
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert "Stage 3 (Third) was interrupted" in errors
    assert errors.splitlines()[-1].endswith("run.sh' --stage 3 --nj 2")


def test_on_a_terminal_bars_are_shown_and_ctrl_c_stops_the_stage(recipe) -> None:
    recipe.write(SLOW)
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it
        os.execve(recipe.script, [recipe.script, "--stage=3"], recipe.environment)
    shown = b""
    while b"waiting:   1%" not in shown:
        shown += os.read(terminal, 65536)
    os.write(terminal, b"\x03")
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other side has closed the terminal
            break
        if not part:
            break
        shown += part
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert b"stopped politely" in shown and b"Go on with:" in shown
    assert "stopped politely" in recipe.log(3) and "waiting:" not in recipe.log(3)
