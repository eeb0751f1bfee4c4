"""What the side port answers. It is imported when that is first asked."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from discovery.errors import DiscoveryError
from discovery.sideport import Check

# In seconds. A Kubernetes probe waits for one: it is to be told which check failed before it gives up.
CHECK_TIMEOUT = 0.8


def application(registry: CollectorRegistry, checks: Mapping[str, Check]) -> Starlette:
    """Return the ASGI application."""
    answers = _Answers(registry, checks)
    return Starlette(
        routes=[
            Route("/metrics", answers.metrics),
            Route("/healthz", _alive),
            Route("/readyz", answers.ready),
        ],
        exception_handlers={HTTPException: _not_here},
    )


class _Answers:
    def __init__(self, registry: CollectorRegistry, checks: Mapping[str, Check]) -> None:
        self._registry = registry
        self._checks = checks

    async def metrics(self, request: Request) -> Response:
        encode, content_type = _encoder(request.headers.get("accept", ""))
        body = encode(self._registry)
        headers = {"content-type": content_type, "vary": "accept, accept-encoding"}
        if gzip_accepted(request.headers.get("accept-encoding", "")):
            body = gzip.compress(body)
            headers["content-encoding"] = "gzip"
        return Response(body, headers=headers)

    async def ready(self, _request: Request) -> Response:
        results: dict[str, str] = {}
        for name, check in self._checks.items():
            if (problem := await _problem(check)) is not None:
                return _json({"ready": False, "checks": {**results, name: problem}}, 503)
            results[name] = "ok"
        return _json({"ready": True, "checks": results})


async def _problem(check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await check()
    except DiscoveryError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {CHECK_TIMEOUT} s"
    return None


async def _alive(_request: Request) -> Response:
    """Answer, which is all there is to say: the process lives, and its event loop turns."""
    return _json({"alive": True})


async def _not_here(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    headers = error.headers if isinstance(error, HTTPException) else None
    return _json(
        {"error": "there is nothing here but GET /metrics, /healthz and /readyz"}, status, headers
    )


def _json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(content)
    return Response(
        body, status, {"cache-control": "no-store", **(headers or {})}, "application/json"
    )


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return how to write what `accept` asks for, and its content type."""
    try:
        return choose_encoder(accept)
    except TypeError:  # from a version that is no number
        return choose_encoder("")
