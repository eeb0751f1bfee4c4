"""What is made of one thing for many, and only once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Thing = TypeVar("Thing")
Made = TypeVar("Made")


class Once(Generic[Thing, Made]):
    """A function that remembers what it made of the last thing, for whoever comes with the very same one.

    Ten thousand watchers of a mesh are told of one event: it becomes one message, and that the same bytes for all.
    """

    __slots__ = ("_last", "_make")

    def __init__(self, make: Callable[[Thing], Made]) -> None:
        """`make` depends on its argument alone, which nobody changes afterwards."""
        self._make = make
        self._last: tuple[Thing, Made] | None = None

    def __call__(self, thing: Thing) -> Made:
        """Return what is made of `thing`; raises what `make` does."""
        last = self._last
        if last is None or last[0] is not thing:
            last = self._last = (
                thing,
                self._make(thing),
            )  # at once: servers may run in several threads
        return last[1]
