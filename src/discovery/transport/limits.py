"""What one client, and all of them together, may take of this server: connections, time, and places for sockets."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from discovery.models import site_of

# Descriptors for all but clients' connections: the store's, logs, the side port, the interpreter's own.
_OTHER_FILES = 128


def _nobody(_address: str) -> bool:
    return False


def _nothing() -> None:
    """Stand in for who wants to know."""


class Place:
    """One connection's place among those that are allowed."""

    __slots__ = ("_give_back",)

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        """Give the place back. Calling it twice does not hurt."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


class ConnectionLimits:
    """Counts open connections in all and by address, an IPv6 address by its /64.

    Everything takes constant time, and memory for the connections that are open alone.
    """

    def __init__(
        self,
        total: int,
        per_address: int,
        exempt: Callable[[str], bool] = _nobody,
        on_refusal: Callable[[], object] = _nothing,
    ) -> None:
        """Allow `total` connections, and `per_address` of each address; 0 is as many as come.

        Addresses that are `exempt`, as trusted proxies are, share only the total. `on_refusal` hears of each refusal.
        """
        self._on_refusal = on_refusal
        self._total = total
        self._per_address = per_address
        self._exempt = exempt
        self._by_site: Counter[str] = Counter()
        self.open = 0
        """How many connections have a place now."""
        self.refused = 0
        """How many have been refused one so far."""

    def admit(self, address: str | None) -> Place | None:
        """Return a place for a connection from `address`, None if none is left. A unix socket has no address."""
        site = None if address is None or self._exempt(address) else site_of(address)
        if self._is_full(site):
            self.refused += 1
            self._on_refusal()
            return None
        self.open += 1
        if site is not None:
            self._by_site[site] += 1
        return Place(lambda: self._give_back(site))

    def _is_full(self, site: str | None) -> bool:
        if 0 < self._total <= self.open:
            return True
        return site is not None and 0 < self._per_address <= self._by_site[site]

    def _give_back(self, site: str | None) -> None:
        self.open -= 1
        if site is not None:
            self._by_site[site] -= 1
            if not self._by_site[site]:
                del self._by_site[site]


def make_room(connections: int) -> int:
    """Raise this process's limit on open files so that `connections` fit, as far as it may, and return how many do.

    Many systems begin with 1024 files, and a server that runs out of them can accept nobody, while the one who took
    them all keeps them.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    wanted = connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # macOS allows less than it says
            wanted = soft
    return max(1, min(connections, max(soft, wanted) - _OTHER_FILES))


# -- Clients that are slow, or gone ---------------------------------------------------------------


class Timers(Protocol):
    """What a Deadline needs of an event loop."""

    def time(self) -> float:
        """Return the present moment."""
        ...

    def call_at(self, when: float, callback: Callable[[], object], /) -> asyncio.TimerHandle:
        """Call `callback` at the moment `when`."""
        ...


class Deadline:
    """The time by which a client must have sent something whole: its first bytes, a request's headers, its body.

    It runs from `arm` and is not put off by single bytes, or else a client could send one now and then for ever
    (Slowloris). Arming and disarming for each request is cheap: the loop's timer is kept and looked at when it is due.
    """

    def __init__(self, on_late: Callable[[], None], loop: Timers | None = None) -> None:
        """Prepare to call `on_late`, once for each time that it is armed and not disarmed in time."""
        self._on_late = on_late
        self._loop: Timers = loop or asyncio.get_running_loop()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def armed(self) -> bool:
        """Whether something is awaited."""
        return self._due is not None

    def arm(self, seconds: float) -> None:
        """Await something within `seconds` from now, instead of what was awaited before."""
        self._due = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._due:
            self._wait_until(self._due)

    def disarm(self) -> None:
        """Await nothing: it came. Calling it twice does not hurt."""
        self._due = None

    def close(self) -> None:
        """Let go of the loop, when the connection ends. Calling it twice does not hurt."""
        self._due = None
        self._cancel()

    def _wait_until(self, due: float) -> None:
        self._cancel()
        self._timer = self._loop.call_at(due, self._look)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._due is None:
            return
        if self._loop.time() < self._due:
            self._wait_until(self._due)
            return
        self._due = None
        self._on_late()


def notice_dead_peers(sock: socket.socket, within: int = 30) -> None:
    """Have the system end the connection when its peer has been gone for `within` seconds, whatever protocol it speaks.

    An idle peer is asked from half that time on (RFC 1122 section 4.2.3.6). TCP_USER_TIMEOUT (RFC 5482) does the same
    while data is on its way, where the system would go on for a quarter of an hour, and ends a connection whose client
    takes nothing out of a full window for that long. Options that a system lacks are left out, and a unix socket needs
    none.
    """
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    idle, probes = within // 2, 3
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", idle),
        ("TCP_KEEPALIVE", idle),  # what macOS calls it
        ("TCP_KEEPINTVL", (within - idle) // probes),
        ("TCP_KEEPCNT", probes),
        ("TCP_USER_TIMEOUT", within * 1000),
    ):
        if (option := getattr(socket, name, None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
