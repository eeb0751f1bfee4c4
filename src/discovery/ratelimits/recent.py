"""A mapping that cannot grow without bound, whatever names callers make up."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps the last `room` keys that were used, and up to as many again; others are forgotten.

    Every step takes constant time, but for the one in `room` that forgets: some milliseconds for each 100,000.
    """

    __slots__ = ("_old", "_room", "_young")

    def __init__(self, room: int) -> None:
        self._room = room
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return the key's value, if there is one. That uses it."""
        value = self._young.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Set the key's value. That uses it."""
        if len(self._young) >= self._room and key not in self._young:
            self._young, self._old = {}, self._young
        self._young[key] = value

    def __len__(self) -> int:
        # What was used again is in both.
        return len(self._young.keys() | self._old.keys())
