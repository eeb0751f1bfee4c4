"""Names that are their last holders' although the leases may have ended."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.clock import MICROSECONDS, Instant
from discovery.models import Registration, Reservation, lease_name
from discovery.stores.memory.reminders import Ending, Reminders


@dataclass(slots=True, eq=False)
class _Reserved(Ending):
    name: str
    pubkey: str
    until_us: int
    """Unix time, for telling people."""


class Reservations:
    """One of each name at most, until it is over."""

    def __init__(self) -> None:
        self._reserved: dict[str, _Reserved] = {}  # by lease_name
        self._reminders = Reminders[_Reserved]()

    def __len__(self) -> int:
        return len(self._reserved)

    def get(self, name: str, now: Instant) -> Reservation | None:
        """Return that of `name`, if it is not over."""
        held = self._reserved.get(name)
        if held is None or held.ends_us <= now.monotonic_us:
            return None
        return Reservation(held.pubkey, held.until_us)

    def keep(self, whose: Registration, expires_at_us: int, ends_us: int, reserve: int) -> None:
        """Reserve the name of a lease for its key, for `reserve` seconds more.

        It ends at `expires_at_us` of Unix time, and at `ends_us` on the monotonic clock.
        """
        spare_us = reserve * MICROSECONDS
        name, until_us = lease_name(whose.mesh_id, whose.agent_id), expires_at_us + spare_us
        ends_us += spare_us
        held = self._reserved.get(name)
        if held is not None and held.reminder_us <= ends_us:
            held.pubkey, held.until_us, held.ends_us = whose.pubkey, until_us, ends_us
            return
        self.free(name)
        held = self._reserved[name] = _Reserved(ends_us, name, whose.pubkey, until_us)
        self._reminders.set(held)

    def pass_on(self, name: str, old_pubkey: str, pubkey: str) -> None:
        """Make what is reserved for `old_pubkey` that of `pubkey`."""
        held = self._reserved.get(name)
        if held is not None and held.pubkey == old_pubkey:
            held.pubkey = pubkey

    def free(self, name: str) -> None:
        """End that of `name`, if there is one."""
        held = self._reserved.pop(name, None)
        if held is not None:
            self._reminders.forget(held)

    def sweep(self, now: Instant, limit: int) -> bool:
        """Look at up to `limit` that may be over and free those that are; return whether more are due."""
        while limit and self._reminders.due(now):
            over = self._reminders.answer(now)
            if over is not None:
                del self._reserved[over.name]
            limit -= 1
        return self._reminders.due(now)
