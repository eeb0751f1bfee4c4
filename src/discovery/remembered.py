"""Functions whose results are remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")

ROOM = 4096


class Remembered(Generic[A, R]):
    """A function of an object that nobody changes. It remembers its results by which object that was.

    That costs less than to compare, and is right because an object that is remembered stays alive, so that no other
    takes its place.
    """

    __slots__ = ("_function", "_kept", "_room")

    def __init__(self, function: Callable[[A], R], room: int = ROOM) -> None:
        """Remember up to `room` results of `function`; what it raises is not remembered."""
        self._function = function
        self._room = room
        self._kept: dict[int, tuple[A, R]] = {}

    def __call__(self, argument: A) -> R:
        """Return the function's result."""
        try:
            return self._kept[id(argument)][1]
        except KeyError:
            pass
        result = self._function(argument)
        if len(self._kept) >= self._room:
            self._kept.clear()
        self._kept[id(argument)] = (argument, result)
        return result
