"""What systemd is told of the program that it runs, by the protocol of sd_notify(3): a datagram for each change.

Where nobody listens, which is wherever NOTIFY_SOCKET is not set, nothing is told, and nothing is done for it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress

from discovery.clock import MICROSECONDS

# The kernel keeps some hundred datagrams for systemd: this is for one that is stopped in a debugger.
_SEND_TIMEOUT = 1.0


class Supervisor:
    """Whoever runs this program as a service, and waits to hear how it fares."""

    def __init__(
        self,
        address: str = "",
        watchdog_seconds: float | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Tell what there is to tell at `address`, a Unix socket, or an abstract one if it begins with `@`."""
        self._address = _socket_address(address)
        self._monotonic_ns = monotonic_ns  # CLOCK_MONOTONIC, as systemd has it
        self.watchdog_interval = None if watchdog_seconds is None else watchdog_seconds / 2
        """How often, in seconds, to call `alive`; None if nobody asked for that. It is half of what is allowed."""

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Supervisor:
        """Return the supervisor that `environment` names, and take it out of there: it is none of our children's."""
        address = environment.pop("NOTIFY_SOCKET", "")
        allowed = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "")
        watched = address and allowed.isdecimal() and int(allowed) and pid in {"", str(os.getpid())}
        return cls(address, int(allowed) / MICROSECONDS if watched else None)

    def ready(self, status: str) -> None:
        """Tell that the program does what it is for, after its start or a reload; `status` is for people."""
        self._tell("READY=1", _status(status))

    def status(self, status: str) -> None:
        """Tell people something."""
        self._tell(_status(status))

    def reloading(self) -> None:
        """Tell that settings are read again. `ready` says when that is over."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_ns() // 1000}")

    def stopping(self, status: str, seconds: float = 0.0) -> None:
        """Tell that the program stops, and that it may take so many seconds, whatever the unit allows."""
        longer = (f"EXTEND_TIMEOUT_USEC={round(seconds * MICROSECONDS)}",) if seconds else ()
        self._tell("STOPPING=1", _status(status), *longer)

    def alive(self) -> None:
        """Tell the watchdog that all is well."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        # As sd_notify(3) has it: a program does not fail because nobody hears how it is.
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        ):
            sender.settimeout(_SEND_TIMEOUT)
            sender.sendto("\n".join(lines).encode(), self._address)


def _socket_address(text: str) -> str:
    """Return how the kernel names the socket; empty if that is none of the two kinds that there are."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else ""


def _status(text: str) -> str:
    """Return the assignment of a status, in one line: another line would be another assignment."""
    return "STATUS=" + " ".join(text.split())
