"""The endpoints that this machine registers: what its user says, or what it finds, kept current."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from discovery.client import Registered, Registration
from discovery.wireguard import address_changes, local_addresses, local_endpoints

_LOOPBACK = "127.0.0.1"
"""What a machine without any other address has: good for those on it."""


class Presence:
    """Where one end of a tunnel can be reached, at UDP `port`."""

    def __init__(
        self,
        port: int,
        given: Sequence[str],
        describe: Callable[[tuple[str, ...]], Registration],
        inside: str = "",
    ) -> None:
        """Register `given` if there are any, or else this machine's addresses; `describe` makes the registration.

        The address that this end has `inside` the tunnel leads nobody to it.
        """
        self._port = port
        self._given = tuple(given)
        self._describe = describe
        self._inside = inside
        self._observed: str | None = None
        self.endpoints = self._find()

    def registration(self) -> Registration:
        """Return what to register now."""
        return self._describe(self.endpoints)

    def observe(self, registered: Registered) -> bool:
        """Take in which address discovery saw us at; return whether that changes the endpoints."""
        observed = registered.observed_endpoint
        self._observed = observed.ip if observed is not None else None
        return self._refresh()

    async def follow(
        self, moved: Callable[[], None], update: Callable[[Registration], None]
    ) -> None:
        """Call `moved` whenever this machine's addresses change, then `update` if that changes what to register."""
        async for _ in address_changes():
            moved()
            if self._refresh():
                update(self.registration())

    def _refresh(self) -> bool:
        before, self.endpoints = self.endpoints, self._find()
        return self.endpoints != before

    def _find(self) -> tuple[str, ...]:
        outside = [address for address in local_addresses() if str(address) != self._inside]
        found = self._given or local_endpoints(self._port, self._observed, outside)
        return tuple(found) or (f"{_LOOPBACK}:{self._port}",)
