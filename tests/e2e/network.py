"""Hosts on networks of their own: network namespaces, joined by veth pairs to a switch, and routers between them.

Addresses are those that are set aside for documentation (RFC 5737, RFC 3849), so that nothing is ever met outside.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

_numbers = itertools.count()


def _run(*argv: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Host:
    """A network namespace."""

    name: str

    def command(self, *argv: str) -> list[str]:
        """Return what runs `argv` there; it becomes the process itself, so that signals reach it."""
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, *argv: str, stdin: str | None = None) -> str:
        """Run something there, to its end and without an error, and return what it printed."""
        return _run(*self.command(*argv), stdin=stdin)

    def try_to_run(self, *argv: str) -> bool:
        """Return whether it ran without an error."""
        done = subprocess.run(
            self.command(*argv),
            capture_output=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return done.returncode == 0

    def add_address(self, address: str, device: str = "eth0") -> None:
        # An IPv6 address would be of no use for a second, while it is looked for elsewhere.
        flags = ["nodad"] if ":" in address else []
        self.run("ip", "address", "add", address, "dev", device, *flags)

    def drop_address(self, address: str, device: str = "eth0") -> None:
        self.run("ip", "address", "delete", address, "dev", device)

    def route(self, gateway: str) -> None:
        """Send everything else through `gateway`."""
        family = "-6" if ":" in gateway else "-4"
        self.run("ip", family, "route", "add", "default", "via", gateway)

    def devices(self) -> set[str]:
        """Return the network devices, without what each host has."""
        lines = self.run("ip", "-brief", "link", "show").splitlines()
        return {line.split()[0].partition("@")[0] for line in lines} - {"lo", "eth0", "eth1"}

    def pings(self, address: str, seconds: float = 1.0) -> bool:
        """Return whether an answer comes within so many seconds."""
        return self.try_to_run("ping", "-c", "1", "-W", str(seconds), address)


class Network:
    """Makes hosts, and removes them all when its block is left."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._prefix = f"coral{os.getpid()}"

    def host(self) -> Host:
        """Return a new host that has nothing but a loopback."""
        host = Host(f"{self._prefix}-{next(_numbers)}")
        _run("ip", "netns", "add", host.name)
        self._stack.callback(_run, "ip", "netns", "delete", host.name)
        host.run("ip", "link", "set", "lo", "up")
        return host

    def switch(self) -> Host:
        """Return a new network that hosts can be attached to."""
        switch = self.host()
        switch.run("ip", "link", "add", "br0", "type", "bridge")
        switch.run("ip", "link", "set", "br0", "up")
        return switch

    def attach(self, host: Host, switch: Host, *addresses: str, device: str = "eth0") -> None:
        """Give a host a device on a network, with addresses as `192.0.2.1/24`."""
        port = f"port{next(_numbers)}"
        host.run("ip", "link", "add", device, "type", "veth", "peer", port, "netns", switch.name)
        switch.run("ip", "link", "set", port, "master", "br0", "up")
        host.run("ip", "link", "set", device, "up")
        for address in addresses:
            host.add_address(address, device)

    def on(self, switch: Host, *addresses: str) -> Host:
        """Return a new host on a network."""
        host = self.host()
        self.attach(host, switch, *addresses)
        return host

    def nat(self, outside: Host, inside: Host, outer: str, inner: str) -> Host:
        """Return a new router from the network `inside` to `outside`, which hides who is behind it."""
        router = self.host()
        self.attach(router, outside, outer)
        self.attach(router, inside, inner, device="eth1")
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        router.run("nft", "-f", "-", stdin=_MASQUERADE)
        return router

    @staticmethod
    def forward(router: Host, port: int, to: str) -> None:
        """Let a router pass on UDP packets to its `port` to an inner address."""
        rule = f'add rule ip nat in iifname "eth0" udp dport {port} dnat to {to}:{port}'
        router.run("nft", "-f", "-", stdin=rule)


_MASQUERADE = """
table ip nat {
  chain in { type nat hook prerouting priority dstnat; }
  chain out { type nat hook postrouting priority srcnat; oifname "eth0" masquerade; }
}
"""


@contextmanager
def network() -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network(stack)
