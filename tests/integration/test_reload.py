"""SIGHUP: files are read again, and nothing is lost by it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from discovery.auth import Role, create_key
from discovery.client import DiscoveryClient
from discovery.clock import SystemClock
from discovery.config import ServerSettings
from discovery.errors import NotRegisteredError, UnauthenticatedError
from discovery.proof import Prover, ServerKeys
from discovery.reloading import reload_all, settings_check
from discovery.wireguard import KeyPair
from tests.integration.grpcio_client import Schema, grpcio_client
from tests.integration.support import (
    LOOPBACK,
    PATIENCE,
    Running,
    ServerProcess,
    clean_environment,
    running,
    script,
    server_process,
)
from tests.support import KEY, MESH, ManualClock, registration


class Systemd:
    """The service manager's end of the socket."""

    def __init__(self, path: Path, listening: socket.socket) -> None:
        self.path = path
        self._listening = listening

    def told(self) -> list[str]:
        """Wait for the next message."""
        return self._listening.recv(4096).decode().split("\n")


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(PATIENCE)
        yield Systemd(tmp_path / "notify", listening)


@contextmanager
def supervised(
    systemd: Systemd, directory: Path, *arguments: str, **variables: str
) -> Iterator[ServerProcess]:
    """Run a server that tells `systemd`, which has heard that it is ready."""
    variables = {"NOTIFY_SOCKET": str(systemd.path), **variables}
    with server_process(directory, *arguments, variables=variables) as server:
        assert systemd.told() == ["READY=1", f"STATUS={accepting(server)}"]
        yield server


def accepting(server: ServerProcess) -> str:
    return f"Accepting registrations on port {server.port}"


def reload(systemd: Systemd, server: ServerProcess) -> str:
    """Return the status after a reload."""
    server.signal(signal.SIGHUP)
    began, moment = systemd.told()
    assert began == "RELOADING=1"
    assert int(moment.removeprefix("MONOTONIC_USEC=")) > 0
    ready, status = systemd.told()
    assert ready == "READY=1"
    return status.removeprefix("STATUS=")


def entries(server: ServerProcess, event: str) -> list[Mapping[str, Any]]:
    lines = map(json.loads, server.log().splitlines())
    return [line for line in lines if line["event"] == event]


# -- A process, and what systemd hears ------------------------------------------------------------


def test_a_reload_loses_no_registration(systemd: Systemd, tmp_path: Path, schema: Schema) -> None:
    colony = {"mesh_id": MESH, "pubkey": KEY, "endpoints": ["192.0.2.1:1"]}
    with (
        supervised(systemd, tmp_path) as server,
        grpcio_client(schema, server.port) as client,
    ):
        client.call("RegisterColony", **colony)
        assert reload(systemd, server) == accepting(server)
        assert client.call("LookupColony", mesh_id=MESH).pubkey == KEY


def test_a_setting_that_takes_a_restart_is_named(systemd: Systemd, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("ttl: 100\n")
    with supervised(systemd, tmp_path, "--config", str(config)) as server:
        config.write_text("ttl: 200\nreserve: 5\n")
        assert reload(systemd, server) == f"{accepting(server)}; not reloaded: settings"
        config.write_text("ttl: many\n")
        reload(systemd, server)
        config.write_text("ttl: 100\n")
        assert reload(systemd, server) == accepting(server)
    changed, bad = entries(server, "not reloaded; the old stays in force")
    assert changed["why"] == "restart to change ttl, reserve"
    assert "ttl" in bad["why"]


def test_a_stop_is_told_with_the_time_that_it_may_take(systemd: Systemd, tmp_path: Path) -> None:
    arguments = ("--drain-delay", "0.5", "--drain-timeout", "60")
    with supervised(systemd, tmp_path, *arguments) as server:
        server.signal(signal.SIGTERM)
        assert systemd.told() == ["STOPPING=1", "STATUS=Draining", "EXTEND_TIMEOUT_USEC=70500000"]
        server.signal(signal.SIGHUP)  # too late to mean anything, and no reason to die
        assert server.exit_code() == 0


def test_the_watchdog_hears_of_it_again_and_again(systemd: Systemd, tmp_path: Path) -> None:
    with supervised(systemd, tmp_path, WATCHDOG_USEC="200000"):
        assert [systemd.told() for _ in range(3)] == [["WATCHDOG=1"]] * 3


def test_a_store_that_is_away_is_no_reason_to_be_killed(systemd: Systemd, tmp_path: Path) -> None:
    with closing(socket.socket()) as nobody:
        nobody.bind((LOOPBACK, 0))
        store = f"redis://{LOOPBACK}:{nobody.getsockname()[1]}/0"
        with supervised(systemd, tmp_path, "--store", store, WATCHDOG_USEC="200000"):
            assert [systemd.told() for _ in range(3)] == [["WATCHDOG=1"]] * 3


def test_the_watchdog_of_a_port_with_tls_hears_too(systemd: Systemd, tmp_path: Path) -> None:
    tls = write_certificate(tmp_path, trustme.CA())
    flags = [f"--{name.replace('_', '-')}={path}" for name, path in tls.items()]
    with supervised(systemd, tmp_path, *flags, WATCHDOG_USEC="200000"):
        assert [systemd.told() for _ in range(3)] == [["WATCHDOG=1"]] * 3


def test_a_colony_is_ready_once_it_is_registered_and_tells_that_it_leaves(
    systemd: Systemd, tmp_path: Path
) -> None:
    with server_process(tmp_path) as server:
        environment = clean_environment(
            NOTIFY_SOCKET=str(systemd.path),
            XDG_STATE_HOME=str(tmp_path),
            CORAL_DISCOVERY_ENDPOINT=server.url,
        )
        command = [script("coral"), *["colony", "start", "--mesh-id", "m", "--wireguard", "off"]]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as colony:
            assert systemd.told() == ["STATUS=Colony started"]
            ready, status = systemd.told()
            colony.terminate()
            leaving = systemd.told()
        assert ready == "READY=1"
        assert status.startswith("STATUS=Registered with discovery service via gRPC Mesh ID: m")
        assert leaving == ["STOPPING=1", "STATUS=Leaving"]
        assert colony.returncode == 0


# -- What is read again ---------------------------------------------------------------------------


def write_certificate(directory: Path, authority: trustme.CA) -> dict[str, Any]:
    """Write a certificate and its key; return the settings for them."""
    issued = authority.issue_cert(LOOPBACK)
    cert, key = directory / "cert.pem", directory / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    return {"tls_cert": str(cert), "tls_key": str(key)}


def reload_here(server: Running) -> tuple[list[str], list[str]]:
    """Reload a server in this process; return the names of what changed, and of what could not be."""
    del server.log.entries[:]
    failed = reload_all(server.server.reloads(), server.server._log)
    changed = [e["part"] for e in server.log.entries if e["event"] == "reloaded" and e["changed"]]
    return changed, list(failed)


async def test_a_new_certificate_is_shown_at_once(tmp_path: Path) -> None:
    authority = trustme.CA()
    async with running(**write_certificate(tmp_path, authority)) as server:
        tls = server.server._tls
        assert tls is not None
        before = tls.context
        assert reload_here(server) == ([], [])
        assert tls.context is before
        write_certificate(tmp_path, authority)
        assert reload_here(server) == (["TLS files"], [])
        assert tls.context is not before


async def test_a_bad_certificate_changes_nothing_and_is_told_each_time(tmp_path: Path) -> None:
    async with running(**write_certificate(tmp_path, trustme.CA())) as server:
        tls = server.server._tls
        assert tls is not None
        before = tls.context
        (tmp_path / "key.pem").write_text("no key")
        for _ in range(2):
            assert reload_here(server) == ([], ["TLS files"])
            [line] = server.log.entries
            assert "holds no private key" in line["why"]
        assert tls.context is before


async def test_the_audit_log_goes_on_in_a_new_file(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    async with running(audit_log=str(path)) as server:
        assert reload_here(server) == ([], [])
        path.rename(old)
        assert reload_here(server) == (["audit log"], [])
        assert path.exists()


async def test_an_audit_log_that_cannot_be_opened_goes_on_in_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    async with running(audit_log=str(folder / "audit.log")) as server:
        folder.rename(tmp_path / "moved")
        assert reload_here(server) == ([], ["audit log"])
    assert (tmp_path / "moved" / "audit.log").exists()


async def test_one_part_that_fails_holds_up_no_other(tmp_path: Path) -> None:
    audit = tmp_path / "audit.log"
    settings = {**write_certificate(tmp_path, trustme.CA()), "audit_log": str(audit)}
    async with running(**settings) as server:
        (tmp_path / "cert.pem").unlink()
        audit.unlink()
        assert reload_here(server) == (["audit log"], ["TLS files"])


async def test_a_key_that_is_revoked_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    now = SystemClock().now()
    secret = create_key(path, "ci", [Role.LOOKUP], now=now)
    async with (
        running(auth="keys", keys_file=path) as server,
        DiscoveryClient(server.url, api_key=secret) as client,
    ):
        await client.health()
        with pytest.raises(NotRegisteredError):
            await client.lookup_colony(MESH)
        path.write_text("keys: []\n")
        assert reload_here(server) == (["API keys"], [])
        with pytest.raises(UnauthenticatedError):
            await client.lookup_colony(MESH)
        path.write_text("keys: [\n")
        assert reload_here(server) == ([], ["API keys"])


async def test_new_proof_keys_are_published_at_once_and_the_old_ones_still_taken(
    tmp_path: Path,
) -> None:
    path = tmp_path / "proof.keys"
    path.touch(0o600)
    old, new = ServerKeys.generate().to_text(), ServerKeys.generate().to_text()
    path.write_text(old)
    keys = KeyPair.generate()
    mine = registration(pubkey=keys.public_key)
    clock = ManualClock(SystemClock().now().unix_us)
    async with (
        running(clock, ownership="proof", proof_keys=path) as server,
        DiscoveryClient(server.url, prover=Prover(keys.private_key)) as client,
    ):
        await client.register_colony(mine)
        assert reload_here(server) == ([], [])
        path.write_text(new + old)
        assert reload_here(server) == (["proof keys"], [])
        await client.register_colony(mine)  # by a challenge that the old key made
        path.write_text("no key")
        assert reload_here(server) == ([], ["proof keys"])
        await client.register_colony(mine)
        assert [line["status"] for line in server.requests()] == ["OK"]


def test_settings_that_are_as_they_were_are_no_change() -> None:
    reload = settings_check(ServerSettings(ttl=5), lambda: ServerSettings(ttl=5))
    assert reload() is False
