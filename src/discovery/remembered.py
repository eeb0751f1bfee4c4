"""Results that are kept, as many as there is room for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")
K = TypeVar("K")
V = TypeVar("V")

ROOM = 4096


class Latest(Generic[K, V]):
    """The latest that were added, up to `room`: one more takes the place of the earliest.

    To forget all at once would keep callers waiting: 4096 messages take 5 ms.
    """

    __slots__ = ("_order", "_room", "kept")

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._order = deque[K]()
        self.kept: dict[K, V] = {}
        """What is there, to be read: a dict is read faster than any class of ours."""

    def add(self, key: K, value: V) -> None:
        """Add a key, or give it another value."""
        if key not in self.kept:
            if len(self.kept) >= self._room:
                del self.kept[self._order.popleft()]
            self._order.append(key)
        self.kept[key] = value


class Remembered(Generic[A, R]):
    """A function of an object that nobody changes. It remembers its results by which object that was.

    That costs less than to compare, and is right because an object that is remembered stays alive, so that no other
    takes its place.
    """

    __slots__ = ("_function", "_kept", "_latest")

    def __init__(self, function: Callable[[A], R], room: int = ROOM) -> None:
        """Remember up to `room` results of `function`; what it raises is not remembered."""
        self._function = function
        self._latest = Latest[int, tuple[A, R]](room)
        self._kept = self._latest.kept

    def __call__(self, argument: A) -> R:
        """Return the function's result."""
        try:
            return self._kept[id(argument)][1]
        except KeyError:
            pass
        result = self._function(argument)
        self._latest.add(id(argument), (argument, result))
        return result
