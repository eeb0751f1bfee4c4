"""HTTP clients of both versions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.integration.support import PATIENCE, Running


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
async def http(server: Running, request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    """A client that speaks one version of HTTP, the second with prior knowledge."""
    http2 = request.param == "HTTP/2"
    async with httpx.AsyncClient(
        base_url=server.url, http1=not http2, http2=http2, timeout=PATIENCE
    ) as client:
        yield client
