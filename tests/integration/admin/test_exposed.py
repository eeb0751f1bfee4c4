"""An admin API beyond this machine, and one whose socket another server has taken over."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import trustme

from discovery.auth import Role, create_key
from discovery.clock import SystemClock
from discovery.ctl.access import Access
from discovery.errors import ConfigError, UnreachableError
from tests.integration.support import LOOPBACK, Running, running

EVERYWHERE = ":0"


@pytest.fixture
def secret(tmp_path: Path) -> str:
    return create_key(tmp_path / "keys.yaml", "admin", [Role.ADMIN], now=SystemClock().now())


@pytest.fixture
def keys(tmp_path: Path, secret: str) -> dict[str, Any]:
    return {"auth": "keys", "keys_file": tmp_path / "keys.yaml", "admin_listen": EVERYWHERE}


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, Any]:
    authority = trustme.CA()
    issued = authority.issue_cert(LOOPBACK)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    return {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}


async def version(server: Running, scheme: str, secret: str, folder: Path) -> str:
    admin = f"{scheme}://{LOOPBACK}:{server.server.admin_port}"
    ca = folder / "ca.pem" if scheme == "https" else None
    async with Access(admin=admin, api_key=secret, ca_cert=ca).admin_client() as client:
        return (await client.stats()).version


def warned(server: Running) -> bool:
    return any(entry["event"] == "admin API in clear text" for entry in server.log.entries)


async def test_beyond_this_machine_it_speaks_the_tls_of_the_public_port(
    keys: dict[str, Any], tls: dict[str, Any], secret: str, tmp_path: Path
) -> None:
    async with running(**keys, **tls) as server:
        assert await version(server, "https", secret, tmp_path)
        with pytest.raises(UnreachableError):
            await version(server, "http", secret, tmp_path)
        assert not warned(server)


async def test_on_this_machine_it_speaks_plainly(
    keys: dict[str, Any], tls: dict[str, Any], secret: str, tmp_path: Path
) -> None:
    settings = {**keys, **tls, "admin_listen": f"{LOOPBACK}:0"}
    async with running(**settings) as server:
        assert await version(server, "http", secret, tmp_path)


async def test_a_certificate_that_is_renewed_is_the_admin_apis_too(
    keys: dict[str, Any], tls: dict[str, Any], secret: str, tmp_path: Path
) -> None:
    async with running(**keys, **tls) as server:
        authority = trustme.CA()
        issued = authority.issue_cert(LOOPBACK)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
        assert server.server.reloads()["TLS files"]()
        assert await version(server, "https", secret, tmp_path)


async def test_keys_in_clear_text_are_warned_of(keys: dict[str, Any]) -> None:
    async with running(**keys) as server:
        assert warned(server)


async def test_keys_in_clear_text_are_refused_where_all_must_be_secure(
    keys: dict[str, Any],
) -> None:
    async def start() -> None:
        async with running(**keys, require_secure=True):
            raise AssertionError

    with pytest.raises(ConfigError, match=r"require-secure: the admin API .* --tls-cert"):
        await start()


async def test_with_tls_and_keys_it_is_secure(keys: dict[str, Any], tls: dict[str, Any]) -> None:
    async with running(**keys, **tls, require_secure=True) as server:
        assert server.server.admin_port


# -- A Unix socket --------------------------------------------------------------------------------


async def test_the_socket_is_gone_after_a_stop(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with running(admin_listen=f"unix:{path}"):
        assert path.is_socket()
    assert not path.exists()


async def test_a_socket_that_another_server_has_bound_since_stays(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with running(admin_listen=f"unix:{path}"):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as another:
            another.bind(str(path))
            another.listen()
            found = path.lstat()
    assert path.lstat().st_ino == found.st_ino


async def test_a_server_that_did_without_leaves_the_socket_to_the_one_that_has_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "admin.sock"
    async with running(admin_listen=f"unix:{path}"):
        with pytest.raises(ConfigError, match="cannot listen"):
            async with running(admin_listen=f"unix:{path}"):
                raise AssertionError
        assert path.is_socket()
