"""utils/parallel.sh: shards, logs, exit codes, and trying again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

PARALLEL = Path(__file__).resolve().parents[2] / "utils" / "parallel.sh"
LOG = "my logs/count.JOB.log"


def parallel(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PARALLEL, *words], cwd=folder, capture_output=True, text=True, timeout=600
    )


def logs(folder: Path) -> list[list[str]]:
    return [path.read_text().splitlines() for path in sorted((folder / "my logs").iterdir())]


def test_each_log_has_command_output_and_exit_code(tmp_path: Path) -> None:
    done = parallel(tmp_path, "--nj", "3", f"--log={LOG}", "--", "sh", "-c", "echo to JOB >&2; pwd")
    assert done.returncode == 0 and not done.stderr
    assert re.fullmatch(rf"3 of 3 shards done in \d+ s: {LOG}\n", done.stdout)
    assert [path.name for path in sorted((tmp_path / "my logs").iterdir())] == [
        f"count.{job}.log" for job in (1, 2, 3)
    ]
    for job, lines in enumerate(logs(tmp_path), start=1):
        assert lines[0].startswith("# sh -c ") and f"to\\ {job}" in lines[0]
        assert lines[1:3] == [f"to {job}", str(tmp_path)]
        assert re.fullmatch(r"Ended \(code 0\) after \d+s", lines[3]) and len(lines) == 4


def test_failing_shards_are_named_and_the_first_log_is_shown(tmp_path: Path) -> None:
    command = "for i in $(seq 30); do echo line $i; done; printf end; exit $((JOB % 2 * 7))"
    done = parallel(tmp_path, "--nj", "4", "--log", LOG, "--", "sh", "-c", command)
    assert done.returncode == 1 and not done.stdout
    lines = done.stderr.splitlines()
    assert lines[0] == "2 of 4 shards failed: 1 3. The end of my logs/count.1.log:"
    assert lines[-4:-1] == ["  | line 30", "  | end", lines[-2]]
    assert re.fullmatch(r"  \| Ended \(code 7\) after \d+s", lines[-2])
    codes = [re.search(r"code (\d+)", lines[-1]).group(1) for lines in logs(tmp_path)]
    assert codes == ["7", "0", "7", "0"]


def test_retry_runs_only_what_has_not_succeeded(tmp_path: Path) -> None:
    command = ("sh", "-c", "echo run >> ran.JOB; test JOB != 2 || test -e mended")
    options = ("--nj", "3", "--log", LOG)
    assert parallel(tmp_path, *options, "--", *command).returncode == 1
    assert parallel(tmp_path, *options, "--retry", "failed", "--", *command).returncode == 1
    (tmp_path / "mended").touch()
    done = parallel(tmp_path, *options, "--retry=failed", "--", *command)
    assert done.returncode == 0 and done.stdout.startswith("1 of 3 shards done")
    ran = [(tmp_path / f"ran.{job}").read_text().count("run") for job in (1, 2, 3)]
    assert ran == [1, 3, 1]
    done = parallel(tmp_path, *options, "--retry", "failed", "--", *command)
    assert done.returncode == 0 and done.stdout == f"All 3 shards have succeeded before: {LOG}\n"
    assert (tmp_path / "ran.2").read_text().count("run") == 3


def test_retry_runs_another_command_and_a_killed_shard(tmp_path: Path) -> None:
    options = ("--nj", "2", "--log", LOG, "--retry", "failed", "--")
    parallel(tmp_path, *options, "echo", "old JOB")
    first = tmp_path / "my logs" / "count.1.log"
    done = parallel(tmp_path, *options, "echo", "new JOB")
    assert done.stdout.startswith("2 of 2") and "new 1" in first.read_text()
    lines = first.read_text().splitlines(keepends=True)
    first.write_text("".join(lines[:-1]))  # as SIGKILL leaves it
    assert parallel(tmp_path, *options, "echo", "new JOB").stdout.startswith("1 of 2")


def test_words_are_passed_on_as_they_are(tmp_path: Path) -> None:
    words = ["$(touch harm)", "two  words", "it's", "", "*"]
    done = parallel(tmp_path, "--nj=1", "--log", LOG, "--", "printf", "<%s>\n", *words)
    assert done.returncode == 0
    assert logs(tmp_path)[0][1:-1] == [f"<{word}>" for word in words]
    assert not (tmp_path / "harm").exists()


def test_a_missing_program_is_a_failure(tmp_path: Path) -> None:
    done = parallel(tmp_path, "--nj=2", "--log", LOG, "--", "no-such-program")
    assert done.returncode == 1 and "no-such-program: not found" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nj", "2", "--log", "x.JOB"], "the command is missing"),
        (["--nj", "2", "--log", "x.JOB", "--"], "the command is missing"),
        (["--nj", "2", "--", "true"], "--log is missing"),
        (["--log", "x.JOB", "--", "true"], "--nj needs a whole number above 0, not ''"),
        (["--nj", "0", "--log", "x.JOB", "--", "true"], "--nj needs a whole number above 0"),
        (["--nj", "two", "--log", "x.JOB", "--", "true"], "--nj needs a whole number"),
        (["--nj", "--", "true"], "--nj needs a value"),
        (["--nj", "2", "--log", "x", "--", "true"], "JOB is missing"),
        (["--nj", "2", "--log", "x.JOB", "--retry", "all", "--", "true"], "only 'failed'"),
        (["--nj", "2", "--lgo", "x.JOB", "--", "true"], "'--lgo' is no option"),
        (["true"], "'true' is no option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "-",
)
def test_wrong_options_are_refused(tmp_path: Path, words: list[str], message: str) -> None:
    done = parallel(tmp_path, *words)
    assert done.returncode == 1 and message in done.stderr
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_signal_ends_the_shards(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [PARALLEL, "--nj", "2", "--log", LOG, "--", "sh", "-c", "echo $$; exec sleep 900"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(6000):
        texts = [path.read_text() for path in tmp_path.glob("my logs/*")]
        processes = [re.search(r"^(\d+)$", text, re.MULTILINE) for text in texts]
        if len(processes) == 2 and all(processes):
            break
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=600)
    assert running.returncode == 143 and errors.startswith("interrupted")
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(int(process.group(1)), 0)
    assert all(re.match(r"Ended \(code 143\)", lines[-1]) for lines in logs(tmp_path))
