"""Rewards of one's own: a Python file, or a server."""

from __future__ import annotations

import http.client
import importlib.util
import json
import logging
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from audiorl.config.schema import Config, RewardConfig, ScoreConfig
from audiorl.errors import UserError, reason
from audiorl.rewards.base import Reward, Sample

log = logging.getLogger(__name__)

BACKOFF = 0.5  # s before the second attempt; doubled before each further one
MAY_PASS = (408, 429)  # of the 4xx: too late, too many requests; the others blame the request
TERMINATED = 143  # the status that a SIGTERM ends us with (audiorl/bin/cli.py)


def reward_files(config: Config) -> list[Path]:
    """The users' files among the rewards; UserError if one does not exist."""
    files = [Path(options.reward_file) for options in config.rl.rewards if options.reward_file]
    for path in files:
        if not path.is_file():
            raise UserError(f"{path} does not exist; mend reward_file of rl.rewards.")
    return files


def file(score: ScoreConfig, options: RewardConfig) -> Reward:
    """The function `reward(samples)` of the user's Python file.

    It is given a list of `audiorl.rewards.Sample` (those of an utterance are consecutive) and
    returns a number or None (unscorable) for each. UserError if the file has no such function.
    """
    path = Path(options.reward_file)
    function = _load(path)

    def reward(samples: Sequence[Sample]) -> list[float | None]:
        try:
            values = list(function(list(samples)))
        except SystemExit as error:
            raise _not_to_end(error) from error
        if len(values) != len(samples):
            raise UserError(
                f"{path}: reward() returned {len(values)} values for {len(samples)} samples; "
                "return a number or None for each."
            )
        return values

    return Reward(reward, options.actual_kind, waves=options.waves)


def server(score: ScoreConfig, options: RewardConfig) -> Reward:
    """What an HTTP server answers, `batch_size` samples at a time.

    Request (POST): `{"samples": [{"id", "reference", "hypothesis", "finished", "duration",
    "keywords", "tags", "tokens"}, …]}`; response: `{"rewards": [number or null, …]}`. No whole
    answer within `timeout` seconds, a status other than 2xx or another shape is tried again
    `retries` times, but for a status that says that the request is wrong (4xx without 408 and 429);
    after that the samples of the batch are unscorable.
    """

    def reward(samples: Sequence[Sample]) -> list[float | None]:
        starts = range(0, len(samples), options.batch_size)
        batches = [samples[start : start + options.batch_size] for start in starts]
        return [value for batch in batches for value in _ask(batch, options)]

    return Reward(reward, options.actual_kind)


def _load(path: Path) -> Callable[[list[Sample]], Sequence[float | None]]:
    spec = importlib.util.spec_from_file_location(f"reward_file_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        raise UserError(f"{path} cannot be loaded ({_not_to_end(error)}); mend it.") from error
    except Exception as error:
        kind = type(error).__name__
        raise UserError(f"{path} cannot be loaded ({kind}: {reason(error)}); mend it.") from error
    if not callable(function := getattr(module, "reward", None)):
        raise UserError(
            f"{path} has no function reward(samples); add one that returns a number or None for "
            "each sample."
        )
    return function


def _not_to_end(error: SystemExit) -> RuntimeError:
    """What to raise instead, for a user's file must not end the run; a SIGTERM ends it."""
    if error.code == TERMINATED:
        raise error
    return RuntimeError(f"it calls exit({'' if error.code is None else repr(error.code)})")


def _ask(samples: Sequence[Sample], options: RewardConfig) -> list[float | None]:
    for attempt in range(options.retries + 1):
        if attempt:
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        try:
            return _within(options.timeout, lambda: _post(samples, options))
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = reason(error)
            code = error.code if isinstance(error, urllib.error.HTTPError) else None
            if code and 400 <= code < 500 and code not in MAY_PASS:
                break
    log.warning("%s: no rewards for %d samples (%s)", options.url, len(samples), problem)
    return [None] * len(samples)


def _within(seconds: float, work: Callable[[], list[float | None]]) -> list[float | None]:
    """What `work` returns or raises; TimeoutError if that takes longer, and nobody waits for it.

    The timeout of urllib is one of each read, which a server that drips bytes never exceeds.
    """
    answer: Future[list[float | None]] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(f"timed out, no whole answer in {seconds:g} s") from error


def _post(samples: Sequence[Sample], options: RewardConfig) -> list[float | None]:
    """One request; OSError, HTTPException or ValueError if the answer is none or no such list."""
    body = json.dumps({"samples": [_as_json(sample) for sample in samples]}).encode()
    request = urllib.request.Request(
        options.url, data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=options.timeout) as response:
        answer = json.load(response)
    values = answer.get("rewards") if isinstance(answer, dict) else None
    if not isinstance(values, list) or len(values) != len(samples):
        raise ValueError(f"the answer has no list `rewards` of {len(samples)} values")
    for value in values:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"`rewards` holds {value!r}, which is neither a number nor null")
    return values


def _as_json(sample: Sample) -> dict:
    utterance = sample.utterance
    return {
        "id": utterance.id,
        "reference": utterance.text,
        "hypothesis": sample.text,
        "finished": sample.finished,
        "duration": utterance.duration,
        "keywords": utterance.keywords,
        "tags": utterance.tags,
        "tokens": sample.tokens,
    }
