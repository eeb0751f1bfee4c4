"""What finds those of many things that have ended, without a look at the others."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Protocol

from discovery.clock import Instant

# How many more reminders than things are kept before those that were left behind are dropped.
_SPARE = 1024


class Ending(Protocol):
    """Something that ends; its end may move."""

    ends_us: int
    """When, on the monotonic clock."""
    reminder_us: int
    """The time of the one reminder of it that counts: never later than `ends_us`."""


class Reminders:
    """A heap of reminders of things that have names.

    An end that moves back leaves the reminder where it is; when that comes up early, it is set anew. So moving it costs
    O(1), a new reminder O(log n), and each thing is looked at about once in its time however often its end moves.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, name: str, thing: Ending) -> None:
        """Make a reminder of the end of `thing`, in place of that it may have."""
        thing.reminder_us = thing.ends_us
        heapq.heappush(self._heap, (thing.ends_us, name))

    def due(self, now: Instant) -> bool:
        """Say whether a reminder has come up."""
        return bool(self._heap) and self._heap[0][0] <= now.monotonic_us

    def answer(self, things: Mapping[str, Ending], now: Instant) -> str | None:
        """Take the reminder that has come up, which must be one; return what of `things` has ended, if that has."""
        due_us, name = heapq.heappop(self._heap)
        thing = things.get(name)
        if thing is None or thing.reminder_us != due_us:
            return None
        if thing.ends_us <= now.monotonic_us:
            return name
        self.set(name, thing)
        return None

    def drop_spare(self, things: Mapping[str, Ending]) -> None:
        """Drop reminders of what is no longer among `things`, if there are many."""
        if len(self._heap) > 2 * len(things) + _SPARE:
            self._heap = [(thing.reminder_us, name) for name, thing in things.items()]
            heapq.heapify(self._heap)
