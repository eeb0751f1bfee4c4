"""What finds those of many things that have ended, without a look at the others."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from discovery.clock import Instant

GONE = -1
"""Stands for the end of what is over already, whenever that was to be."""

# How many reminders of what is gone are kept, beyond as many as there are others, before they are dropped.
_SPARE = 1024

# How many reminders are looked at for each thing that goes, while those of what is gone are dropped.
_STEP = 4


@dataclass(slots=True, eq=False)
class Ending:
    """Something that ends; its end may move. It is its own reminder: another object for each would take more memory."""

    ends_us: int
    """When, on the monotonic clock; or GONE."""
    reminder_us: int = field(init=False)
    """When to look at it: never later than `ends_us`. It stays while this waits in a heap."""

    def __lt__(self, other: Ending) -> bool:
        """Say whether to look at this one first."""
        return self.reminder_us < other.reminder_us


T = TypeVar("T", bound=Ending)


class Reminders(Generic[T]):
    """A heap of things, by the time to look at them.

    An end that moves back leaves the reminder where it is; when that comes up early, it is set anew. So moving it costs
    O(1), a new reminder O(log n), and each thing is looked at about once in its time however often its end moves.

    What goes before its time waits in the heap like the others. When there is too much of that, a new heap is begun,
    and each thing that goes takes a few others over, so that no call ever waits for all of them. They are taken from
    the end of the old list, which stays a heap without it.
    """

    def __init__(self) -> None:
        self._heap: list[T] = []
        self._old: list[T] = []
        self._gone = 0

    def __len__(self) -> int:
        return len(self._heap) + len(self._old)

    def set(self, thing: T) -> None:
        """Make a reminder of the end of `thing`, which has none."""
        thing.reminder_us = thing.ends_us
        heapq.heappush(self._heap, thing)

    def due(self, now: Instant) -> bool:
        """Say whether a reminder has come up."""
        heap = self._first()
        return bool(heap) and heap[0].reminder_us <= now.monotonic_us

    def answer(self, now: Instant) -> T | None:
        """Take the reminder that has come up, which must be one; return what has ended, if that has."""
        thing = heapq.heappop(self._first())
        if thing.ends_us == GONE:
            self._gone -= 1
            return None
        if thing.ends_us <= now.monotonic_us:
            return thing
        self.set(thing)
        return None

    def forget(self, thing: T) -> None:
        """Take in that `thing`, which has a reminder, is over."""
        thing.ends_us = GONE
        self._gone += 1
        if not self._old and 2 * self._gone > len(self._heap) + _SPARE:
            self._heap, self._old = self._old, self._heap
        for _ in range(min(_STEP, len(self._old))):
            self._take_over(self._old.pop())

    def _take_over(self, thing: T) -> None:
        if thing.ends_us == GONE:
            self._gone -= 1
        else:
            heapq.heappush(self._heap, thing)

    def _first(self) -> list[T]:
        """Return the heap with the reminder that comes first, if there is any."""
        if not self._old or (self._heap and self._heap[0] < self._old[0]):
            return self._heap
        return self._old
