"""An admin API behind a proxy that speaks TLS: such proxies go by ALPN alone (RFC 7540 section 3.3)."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import trustme
from grpclib.server import Server

from discovery._gen.coral.discovery.admin import v1 as pb
from discovery.ctl.access import Access

LOOPBACK = "127.0.0.1"


class StatsOnly(pb.AdminServiceBase):
    async def stats(self, stats_request: pb.StatsRequest) -> pb.StatsResponse:
        return pb.StatsResponse(version="9")


def tls_of_a_server(authority: trustme.CA, seen: list[str | None]) -> ssl.SSLContext:
    class Recording(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            seen.append(self.selected_alpn_protocol())

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = Recording
    context.set_alpn_protocols(["http/1.1", "h2"])
    authority.issue_cert(LOOPBACK).configure_cert(context)
    return context


async def test_an_admin_api_behind_tls_is_asked_in_http_2(tmp_path: Path) -> None:
    authority, seen = trustme.CA(), list[str | None]()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = Server([StatsOnly()])
    await server.start(LOOPBACK, 0, ssl=tls_of_a_server(authority, seen))
    assert isinstance(server._server, asyncio.Server)
    port = server._server.sockets[0].getsockname()[1]
    try:
        access = Access(admin=f"https://{LOOPBACK}:{port}", ca_cert=tmp_path / "ca.pem")
        async with access.admin_client() as client:
            assert (await client.stats()).version == "9"
    finally:
        server.close()
        await server.wait_closed()
    assert seen == ["h2"]
