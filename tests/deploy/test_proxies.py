"""The configurations of HAProxy and nginx in docs/deployment.md, before a real server: .ci/proxies.sh brings both."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trustme
from websockets.asyncio.client import connect

from tests.deploy.test_guide import MESH, titled
from tests.integration.support import LOOPBACK, PATIENCE, running, script
from tests.redis.servers import eventually, free_port


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy in front of a server, and what its callers need."""

    port: int
    ca: Path

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a proxy finds the server, and its files."""

    folder: Path
    port: int
    upstream: int
    side_port: int


def certificate(folder: Path) -> Mapping[str, Path]:
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", LOOPBACK)
    files = {name: folder / f"discovery.{name}" for name in ("crt", "key", "pem", "ca")}
    leaf.private_key_and_cert_chain_pem.write_to_path(str(files["pem"]))
    leaf.private_key_pem.write_to_path(str(files["key"]))
    leaf.cert_chain_pems[0].write_to_path(str(files["crt"]))
    authority.cert_pem.write_to_path(str(files["ca"]))
    return files


def adapted(text: str, scene: Scene, changes: Mapping[str, str]) -> str:
    """Return a configuration of the guide for this place: the second server of two is away."""
    common = {
        "10.0.0.11:8080": f"{LOOPBACK}:{scene.upstream}",
        "10.0.0.12:8080": f"{LOOPBACK}:{free_port()}",
        "/etc/haproxy/": f"{scene.folder}/",
        "/etc/nginx/": f"{scene.folder}/",
    }
    for old, new in {**common, **changes}.items():
        assert old in text or old in common, old
        text = text.replace(old, new)
    return text


def haproxy(scene: Scene) -> list[str]:
    [block] = titled("# /etc/haproxy/haproxy.cfg")
    changes = {
        "bind :::443 v4v6": f"bind {LOOPBACK}:{scene.port}",
        "port 9090": f"port {scene.side_port}",
        "maxconn 10000": "maxconn 100",
    }
    file = scene.folder / "haproxy.cfg"
    file.write_text(adapted(block.text, scene, changes))
    return ["haproxy", "-db", "-f", str(file)]


_NGINX = """daemon off;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


def nginx(scene: Scene) -> list[str]:
    [block] = titled("# /etc/nginx/conf.d/coral-discovery.conf")
    changes = {
        "listen 443": f"listen {LOOPBACK}:{scene.port}",
        "listen [::]:443 ssl http2;": "",
    }
    (scene.folder / "site.conf").write_text(adapted(block.text, scene, changes))
    file = scene.folder / "nginx.conf"
    file.write_text(_NGINX.format(folder=scene.folder))
    return ["nginx", "-e", "stderr", "-c", str(file)]


PROXIES = {"haproxy": haproxy, "nginx": nginx}


@asynccontextmanager
async def ran(command: list[str], port: int) -> AsyncIterator[None]:
    """Run a proxy, from when it listens."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )

    async def listens() -> bool:
        assert process.returncode is None, f"{command[0]} has ended"
        with socket.socket() as caller:
            return caller.connect_ex((LOOPBACK, port)) == 0

    try:
        await eventually(listens)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@pytest.fixture(params=PROXIES)
async def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Proxy]:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    files = certificate(tmp_path)
    side_port = free_port()
    async with running(trusted_proxy=[f"{LOOPBACK}/32"], metrics_port=side_port) as server:
        scene = Scene(tmp_path, free_port(), server.port, side_port)
        async with ran(PROXIES[request.param](scene), scene.port):
            yield Proxy(scene.port, files["ca"])


async def test_a_server_behind_it_keeps_its_promises(proxy: Proxy) -> None:
    """gRPC with its streams, Connect and REST: all that `check` calls."""
    process = await asyncio.create_subprocess_exec(
        script("coral-discoveryctl"),
        *("check", f"https://localhost:{proxy.port}", "--ca-cert", str(proxy.ca)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(PATIENCE):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert b" 0 failed" in said


@pytest.mark.parametrize("http2", [False, True], ids=["http/1.1", "http/2"])
async def test_the_caller_is_who_calls_the_proxy(proxy: Proxy, http2: bool) -> None:
    transport = httpx.AsyncHTTPTransport(verify=proxy.tls, http2=http2, local_address="127.0.0.2")
    colony = {
        "mesh_id": MESH,
        "pubkey": "dFWrnF+3QjKjSbgCnHDFxVzrbiKS6T5zWbJ1mwGxpGo=",
        "endpoints": ["203.0.113.42:41820"],
    }
    async with httpx.AsyncClient(
        transport=transport, base_url=f"https://localhost:{proxy.port}", timeout=PATIENCE
    ) as caller:
        invented = {"x-forwarded-for": "198.51.100.1"}
        reply = await caller.post("/v1/colony/register", json=colony, headers=invented)
    assert reply.status_code == 200
    assert reply.json()["observedEndpoint"]["ip"] == "127.0.0.2"


async def test_a_websocket_gets_through_after_other_calls(proxy: Proxy) -> None:
    """An upstream connection that has spoken HTTP/2 must not be used again for a WebSocket."""
    async with httpx.AsyncClient(verify=proxy.tls, http2=True, timeout=PATIENCE) as caller:
        for _ in range(4):
            reply = await caller.get(f"https://localhost:{proxy.port}/health")
            assert reply.status_code == 200
    for _ in range(4):
        url = f"wss://localhost:{proxy.port}/v1/colony/watch/{MESH}"
        async with asyncio.timeout(PATIENCE), connect(url, ssl=proxy.tls) as watch:
            assert "ABSENT" in str(await watch.recv())
