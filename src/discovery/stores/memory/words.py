"""What leases hold, in no more memory than it takes."""

from __future__ import annotations

from dataclasses import replace

from discovery.models import Registration

# How many strings are shared at a time: those of a fleet are few; those that somebody makes up to fill this go again.
_MOST = 1024


class Words:
    """Knows the keys and values of metadata lately seen: regions, versions, names of teams.

    `sys.intern` would do the same, but in CPython 3.12 it lets go of nothing.
    """

    def __init__(self) -> None:
        self._words: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._words)

    def shared_by(self, registration: Registration) -> Registration:
        """Return a registration equal to this one that shares the words of its metadata with others."""
        if not registration.metadata:
            return registration
        word = self._word
        metadata = {word(key): word(value) for key, value in registration.metadata.items()}
        return replace(registration, metadata=metadata)

    def _word(self, word: str) -> str:
        if len(self._words) >= _MOST:
            self._words.clear()
        return self._words.setdefault(word, word)


def tight(number: int) -> int:
    """Return the same number in no more memory than it takes: CPython makes sums and quotients with room to spare.

    Of a time that is 16 bytes, and a lease has up to five.
    """
    return number | 0
