"""Leases in no order, to be read page by page while they come and go."""

from __future__ import annotations

import re
from typing import Generic, Protocol, TypeVar


class Placed(Protocol):
    """What a roster lists."""

    block: int
    """Where the block begins in which it stands there."""


T = TypeVar("T", bound=Placed)

_PLACE = re.compile("[1-9][0-9]{0,17}")

# Items know their places to within so many: a number for each item would take 32 bytes, and a block shares one.
_BLOCK = 8


class Roster(Generic[T]):
    """A list out of which anything is taken at once: the last takes its place.

    It is read from its end to its start. So what moves, moves to where the reader has not been, or was read before.
    """

    def __init__(self) -> None:
        self._listed: list[T] = []

    def __len__(self) -> int:
        return len(self._listed)

    def add(self, item: T) -> None:
        """List it: whoever reads already will not come by."""
        place = len(self._listed)
        item.block = self._listed[-1].block if place % _BLOCK else place
        self._listed.append(item)

    def remove(self, item: T) -> None:
        """Take it out."""
        last = self._listed.pop()
        if last is not item:
            place = self._listed.index(item, item.block, item.block + _BLOCK)
            self._listed[place], last.block = last, item.block

    def page(self, after: str, limit: int) -> tuple[list[T], str]:
        """Return up to `limit`, and the `after` of the next page, as `leases` of RegistryStore has it.

        Raises:
            ValueError: `after` is none that a page has said.
        """
        if after and not _PLACE.fullmatch(after):
            raise ValueError("a page of a list cannot begin there")
        end = min(int(after), len(self._listed)) if after else len(self._listed)
        start = max(end - limit, 0)
        return self._listed[start:end], str(start or "")
