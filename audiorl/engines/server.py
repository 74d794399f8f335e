"""Calls of a worker that serves over HTTP: on other GPUs, or another machine.

The protocol is described in `workers/serving.py`.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from safetensors.torch import load, save
from torch import Tensor

from audiorl.errors import UserError, shortened

ENGINE_TOKEN = "AUDIORL_ENGINE_TOKEN"
CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


class Server:
    """Asks like a `LineServer`; no other host than that of `url` is ever asked."""

    def __init__(self, name: str, url: str, timeout: float) -> None:
        """`timeout`: of every answer or sign of life, in s. Raises UserError for a wrong `url`."""
        self.name, self.timeout = f"{name} at {url}", timeout
        parts = urlsplit(url)
        if parts.scheme not in CONNECTIONS or not parts.hostname or parts.path.strip("/"):
            raise UserError(f"rl.engine_url: {url} is no address; set http://HOST:PORT.")
        if not os.environ.get(ENGINE_TOKEN):
            raise UserError(f"rl.engine_url: set the secret of that server in ${ENGINE_TOKEN}.")
        self.connect, self.address = CONNECTIONS[parts.scheme], (parts.hostname, parts.port)

    def call(
        self, op: str, tensors: Mapping[str, Tensor] | None = None, **arguments: Any
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the answer to a request and the tensors that came with it.

        Raises UserError if the server refuses, ends, or gives no sign of life.
        """
        line = json.dumps({"op": op, **arguments}).encode() + b"\n"
        made = save({name: tensor.contiguous() for name, tensor in (tensors or {}).items()})
        headers = {
            "Authorization": f"Bearer {os.environ[ENGINE_TOKEN]}",
            "X-Tensors": str(len(made)),
        }
        connection = self.connect(*self.address, timeout=self.timeout)
        try:
            connection.request("POST", "/", line + made, headers)
            found, made = self._read(connection.getresponse())
        except TimeoutError as error:
            raise UserError(
                f"{self.name} gave no answer within {self.timeout:g} s; look after it, then "
                "run the same command again to continue."
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise UserError(
                f"{self.name} does not answer ({error}); start it, then run the same command again "
                "to continue."
            ) from error
        finally:
            connection.close()
        answer = json.loads(found)
        if not answer["ok"]:
            raise UserError(
                f"{self.name} could not {op}: {shortened(answer['error'], 600)}; fix it there."
            )
        return answer, load(made)

    def _read(self, response: http.client.HTTPResponse) -> tuple[bytes, bytes]:
        """Return the line of an answer, and what follows it."""
        if response.status != http.client.OK:
            raise UserError(
                f"{self.name} refuses the call ({response.status} {response.reason}); set "
                f"${ENGINE_TOKEN} to its secret."
            )
        while (line := response.readline()) == b"\n":
            pass  # it is alive
        if not line.endswith(b"\n"):
            raise http.client.HTTPException("it ended")
        return line, response.read()

    def close(self) -> None:
        """Do nothing: it goes on."""
