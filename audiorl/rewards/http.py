"""A server of your own."""

from __future__ import annotations

import base64
import http.client
import io
import json
import logging
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from audiorl.config.field import key
from audiorl.errors import UserError, reason, visible
from audiorl.rewards.core.reward import Context, Reward, Sample, Unscorable
from audiorl.rewards.core.waves import WaveOptions

log = logging.getLogger(__name__)

LARGEST_ANSWER = 1 << 20  # bytes of an answer, and 1 KiB for each sample
BACKOFF = 0.5  # s before the second attempt; doubled before each one after it
SECRET = re.compile(r"key|token|secret|passw|auth|sig", re.IGNORECASE)
MAY_PASS = (408, 429)  # of the 4xx: too late, too many requests; the others blame the request


@dataclass
class Options(WaveOptions):
    """The server, and what is sent to it."""

    url: str = key("", "where samples are posted; request and answer: docs/rewards.md")
    authorization: str = key(
        "", "environment variable whose value is sent as the header Authorization: `Bearer …`"
    )
    timeout: float = key(30.0, "s to wait for a whole answer", gt=0)
    retries: int = key(2, "attempts after the first", ge=0)
    batch_size: int = key(64, "samples in one request", ge=1)

    def problems(self) -> Iterator[str]:
        if not self.url.startswith(("http://", "https://")):
            yield "http needs url, which begins with http:// or https://; name your server"
        try:
            secret = holds_secret(self.url)
        except ValueError as error:
            yield f"url is no address ({error}); correct it"
            return
        if secret:
            yield (
                "url holds a password, which would be kept with every result; put it into an "
                "environment variable, and its name into authorization"
            )
        if self.authorization and not self.authorization.isidentifier():
            yield (
                "authorization is the name of an environment variable, not what is sent; export "
                "REWARD_TOKEN='Bearer …', say, and write REWARD_TOKEN here"
            )


def holds_secret(url: str) -> bool:
    """Whether a user, a password or a key stands in an address."""
    parts = urllib.parse.urlsplit(url)
    named = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    return "@" in parts.netloc or any(SECRET.search(name) for name, _ in named)


def build(options: Options, context: Context) -> Reward:
    """Return the answers of an HTTP server, `batch_size` samples at a time.

    Request (POST): `{"samples": [{"id", "reference", "hypothesis", "finished", "duration",
    "keywords", "tags", "tokens"}, …]}`, with the option `waves` also "wave": base64 of a 16-bit
    WAV file, or null for speech without a token. Response: `{"rewards": [number or null, …]}`. No
    whole answer within `timeout` seconds, a status other than 2xx or another shape is tried again
    `retries` times, but not a status that says that the request is wrong (4xx without 408 and 429);
    after that the samples of the batch are unscorable. An answer that redirects or that is larger
    than 1 MiB and 1 KiB a sample has failed, too. UserError if `authorization` names nothing that
    a header can hold.
    """
    secret = os.environ.get(options.authorization, "")
    if options.authorization and not (secret and secret.isascii() and secret.isprintable()):
        raise UserError(
            f"{options.authorization} is not set to one line of plain letters; export it, or fix "
            "authorization of rl.rewards."
        )

    def reward(samples: Sequence[Sample]) -> list[float | None]:
        starts = range(0, len(samples), options.batch_size)
        batches = [samples[start : start + options.batch_size] for start in starts]
        return [value for batch in batches for value in _ask(batch, options)]

    return Reward(reward)


def _ask(samples: Sequence[Sample], options: Options) -> list[float | None]:
    for attempt in range(options.retries + 1):
        if attempt:
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        try:
            return _within(options.timeout, lambda end: _post(samples, options, end))
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            problem = _shown(error)
            code = error.code if isinstance(error, urllib.error.HTTPError) else None
            if code and 400 <= code < 500 and code not in MAY_PASS:
                break
    log.warning("%s: no rewards for %d samples (%s)", options.url, len(samples), problem)
    return [Unscorable(problem)] * len(samples)


def _shown(error: Exception) -> str:
    """Return why a request failed, in a line that a server cannot make long."""
    target = error.headers.get("Location") if isinstance(error, urllib.error.HTTPError) else None
    leads = f", which leads to {target}; name that in url if it is right" if target else ""
    return visible(f"{reason(error)}{leads}"[:200])


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Samples and credentials go to the address that the recipe names, and to no other."""

    def redirect_request(self, *_) -> None:
        return None


def _within(seconds: float, work: Callable[[float], list[float | None]]) -> list[float | None]:
    """Return what `work` returns, given its deadline; TimeoutError if that takes longer.

    The timeout of urllib is one of each read, which a server that drips bytes never exceeds.
    """
    answer: Future[list[float | None]] = Future()
    deadline = time.monotonic() + seconds

    def run() -> None:
        try:
            answer.set_result(work(deadline))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(f"timed out, no whole answer in {seconds:g} s") from error


def _post(samples: Sequence[Sample], options: Options, deadline: float) -> list[float | None]:
    """One request; OSError, HTTPException or ValueError if the answer is none or no such list."""
    body = json.dumps({"samples": [_as_json(sample, options.waves) for sample in samples]}).encode()
    headers = {"Content-Type": "application/json"}
    if options.authorization:
        headers["Authorization"] = os.environ[options.authorization]
    request = urllib.request.Request(options.url, data=body, headers=headers)
    opener = urllib.request.build_opener(_NoRedirects)
    with opener.open(request, timeout=options.timeout) as response:
        answer = json.loads(_read(response, LARGEST_ANSWER + 1024 * len(samples), deadline))
    values = answer.get("rewards") if isinstance(answer, dict) else None
    if not isinstance(values, list) or len(values) != len(samples):
        raise ValueError(f"the answer has no list `rewards` of {len(samples)} values")
    for value in values:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"`rewards` holds {value!r:.40}, which is neither a number nor null")
    return values


def _read(response: http.client.HTTPResponse, most: int, deadline: float) -> bytes:
    """Return the whole answer; nothing is read beyond `most` bytes or after the deadline."""
    found = bytearray()
    while part := response.read1(1 << 16):
        found += part
        if len(found) > most:
            raise ValueError(f"the answer is larger than {most} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer came too late")
    return bytes(found)


def _as_json(sample: Sample, waves: bool) -> dict:
    utterance = sample.utterance
    wave = {"wave": _as_wav(sample)} if waves else {}
    return {
        "id": utterance.id,
        "reference": utterance.text,
        "hypothesis": sample.text,
        "finished": sample.finished,
        "duration": utterance.duration,
        "keywords": utterance.keywords,
        "tags": utterance.tags,
        "tokens": sample.tokens,
        **wave,
    }


def _as_wav(sample: Sample) -> str | None:
    """Return the wave as base64 of a 16-bit WAV; None without a wave."""
    if sample.wave is None:
        return None
    import numpy as np
    import soundfile

    file = io.BytesIO()
    wave = np.asarray(sample.wave)
    soundfile.write(file, wave, sample.sample_rate, format="WAV", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode()
