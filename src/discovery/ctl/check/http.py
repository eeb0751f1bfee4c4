"""HTTP/1.1 as any program speaks it: nothing here is shared with the gRPC client."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from discovery.ctl.access import TIMEOUT, Access
from discovery.errors import UnreachableError

_MOST_BYTES = 1024 * 1024


class Answer(NamedTuple):
    """A status and a JSON object; an empty one, if there was something else."""

    status: int
    body: Mapping[str, object]


class HttpClient:
    """Makes requests, each over a connection of its own."""

    def __init__(self, access: Access) -> None:
        url = urlsplit(access.server)
        self._server = access.server
        self._host, self._port = url.hostname or "", url.port
        self._tls: ssl.SSLContext | None = access.tls() if url.scheme == "https" else None
        secret = access.secret()
        self._headers = {"authorization": f"Bearer {secret}"} if secret else {}

    async def get(self, path: str) -> Answer:
        """Return the answer to a GET.

        Raises:
            UnreachableError: there was none.
        """
        return await asyncio.to_thread(self._request, "GET", path, None)

    async def post(self, path: str, message: Mapping[str, object]) -> Answer:
        """Return the answer to a POST of JSON.

        Raises:
            UnreachableError: there was none.
        """
        return await asyncio.to_thread(self._request, "POST", path, json.dumps(message).encode())

    def _request(self, method: str, path: str, body: bytes | None) -> Answer:
        headers = {**self._headers, **({"content-type": "application/json"} if body else {})}
        connection = self._connect()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, _object_in(response.read(_MOST_BYTES)))
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"no HTTP/1.1 answer from {self._server}: {error}") from error
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=TIMEOUT, context=self._tls
        )


def _object_in(body: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
