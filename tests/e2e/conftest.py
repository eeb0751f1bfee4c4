"""A small internet: a discovery server, and hosts for colonies and agents, each in a network namespace of its own.

These tests need root and Debian's iproute2, iputils-ping, nftables, wireguard-tools and wireguard-go: `pytest --e2e`.
Where one is missing they fail, and are never skipped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.network import Host, Network, network
from tests.e2e.programs import Program, Programs, until

TOOLS = ("ip", "ping", "nft", "setpriv", "sysctl", "wg", "wg-quick", "wireguard-go")
MESH = "my-app-prod"


@pytest.fixture(autouse=True, scope="session")
def _tools() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    assert not missing, f"not installed: {', '.join(missing)}"
    assert os.geteuid() == 0, "network namespaces need root"


@dataclass
class World:
    """One switch that stands for the internet, and who is on it. What starts here knows where the server is."""

    network: Network
    programs: Programs
    internet: Host
    server_host: Host
    server_options: tuple[str, ...] = ()
    url: str = "http://203.0.113.10:8080"

    def host(self, number: int, *, v4: bool = True, v6: bool = True) -> Host:
        """Return a new host at 203.0.113.`number`, 2001:db8::`number` or both."""
        addresses = [f"203.0.113.{number}/24"] * v4 + [f"2001:db8::{number}/64"] * v6
        return self.network.on(self.internet, *addresses)

    def start_server(self, *options: str) -> Program:
        """Start the discovery server, with options that its next start has too."""
        self.server_options = options or self.server_options
        program = self.programs.start(
            self.server_host,
            "coral-discovery",
            *("--port", "8080", "--metrics-port", "0"),
            *self.server_options,
        )
        program.wait_for("Ready to accept registrations")
        return program

    def start_colony(
        self,
        host: Host,
        *options: str,
        mesh_id: str = MESH,
        accepting: bool = True,
        run_by: Sequence[str] = (),
    ) -> Program:
        """Start a colony, and wait until it is registered."""
        accept = ["--accept-agents"] if accepting else []
        words = "coral", "colony", "start", "--mesh-id", mesh_id, *accept, *options
        program = self._start(host, words, run_by)
        program.wait_for("Endpoints: ")
        return program

    def connect(
        self,
        host: Host,
        *options: str,
        mesh_id: str = MESH,
        name: str = "api",
        run_by: Sequence[str] = (),
    ) -> Program:
        """Start an agent."""
        words = "coral", "connect", name, "--mesh-id", mesh_id, *options
        return self._start(host, words, run_by)

    def _start(self, host: Host, words: Sequence[str], run_by: Sequence[str]) -> Program:
        variables = {"CORAL_DISCOVERY_ENDPOINT": self.url}
        return self.programs.start(host, *words, run_by=run_by, **variables)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with network() as net:
        internet = net.switch()
        server_host = net.on(internet, "203.0.113.10/24", "2001:db8::10/64")
        programs = Programs(tmp_path)
        try:
            yield World(net, programs, internet, server_host)
        finally:
            programs.end()


@pytest.fixture
def server(world: World) -> Program:
    return world.start_server("--ttl", "5")


def _interface(host: Host) -> list[str]:
    """Return what a host's one tunnel is called, its state, and its address in the mesh."""
    said = host.run("ip", "-brief", "-6", "address", "show", "scope", "global")
    [line] = [line for line in said.splitlines() if line.startswith("coral-")]
    return line.split()


def mesh_address(host: Host) -> str:
    """Return the address that a host has in its mesh."""
    return _interface(host)[2].partition("/")[0]


def public_key(host: Host) -> str:
    """Return the key of a host's tunnel: by its name, as wireguard-go shows `wg` those of all hosts."""
    return host.run("wg", "show", _interface(host)[0], "public-key").strip()


def wait_for_ping(host: Host, address: str, patience: float = 10.0) -> float:
    """Wait until a ping is answered; return how many seconds that took."""
    return until(lambda: host.pings(address, 0.3), patience)
