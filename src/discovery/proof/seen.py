"""Which nonces were used, so that none is used twice."""

from __future__ import annotations

import heapq
from typing import Protocol

from discovery.clock import Clock
from discovery.proof.nonces import CLOCK_TOLERANCE_MS, NONCE_LIFETIME_MS, Nonce

LARGEST_MEMORY = 500_000
"""So many nonces a server remembers, which takes about 60 MB: 4,000 calls a second while nonces are good."""


class SeenNonces(Protocol):
    """Remembers the nonces that were used. Servers with the same keys share one, or a proof is good once at each."""

    async def use(self, nonce: Nonce) -> bool:
        """Remember that `nonce` is used until its `keep_until_ms`; return whether it was not, in one step.

        It may say False of a nonce that was never used, if it can no longer tell; the caller will try another one. It
        never says True twice of the same nonce.

        Raises:
            StoreUnavailableError: it cannot tell now.
        """
        ...


class MemorySeenNonces:
    """Remembers for one process, up to `limit` nonces at once.

    Everybody can make keys, prove to hold them and so fill the memory. Refusing calls while it is full would let one
    attacker end every lease; forgetting nonces would let proofs be replayed. So what is forgotten stays refused: when
    it is full it forgets the nonces that were made first, and from then on refuses all that are as old. Whoever waited
    that long with a challenge is given a new one. Nobody can date a nonce, so an attacker who wants to see the new
    ones refused too has to use `limit` of them within a second.
    """

    def __init__(self, clock: Clock, *, limit: int = LARGEST_MEMORY) -> None:
        self._clock = clock
        self._limit = limit
        self._used: dict[int, set[bytes]] = {}
        self._seconds: list[int] = []
        self._size = 0
        # A process that ran before this one may have seen older ones.
        self._oldest_ms = self._now_ms()

    async def use(self, nonce: Nonce) -> bool:
        """See SeenNonces. It never suspends."""
        now_ms = self._now_ms()
        self._forget_ended(now_ms)
        self._follow(now_ms)
        if nonce.issued_ms < self._oldest_ms:
            return False
        used = self._used_of(nonce.issued_ms // 1000)
        if nonce.value in used:
            return False
        used.add(nonce.value)
        self._size += 1
        while self._size > self._limit:
            self._forget_oldest()
        return True

    def _used_of(self, second: int) -> set[bytes]:
        if second not in self._used:
            self._used[second] = set()
            heapq.heappush(self._seconds, second)
        return self._used[second]

    def _follow(self, now_ms: int) -> None:
        """Let the clock be set back: otherwise all would be refused until it is again where it was."""
        if self._oldest_ms > now_ms + 1000:
            self._oldest_ms = now_ms

    def _forget_ended(self, now_ms: int) -> None:
        ended = (now_ms - NONCE_LIFETIME_MS - CLOCK_TOLERANCE_MS) // 1000
        while self._seconds and self._seconds[0] < ended:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        second = heapq.heappop(self._seconds)
        self._size -= len(self._used.pop(second))
        self._oldest_ms = (second + 1) * 1000

    def _now_ms(self) -> int:
        return self._clock.now().unix_us // 1000
