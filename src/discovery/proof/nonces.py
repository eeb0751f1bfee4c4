"""Nonces, which a server knows for its own without keeping them.

A nonce is 16 random bytes, the time it was made in milliseconds of Unix time (8 bytes, big-endian), and the first 16
bytes of an HMAC-SHA256 over both, under a key that comes of the server's private key. So any server with this key can
tell that another made it, and when. To everybody else it is 40 bytes without meaning.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

NONCE_BYTES = 40

NONCE_LIFETIME_MS = 120_000
"""A nonce is good for so long: twice the usual time from one renewal to the next.

So the challenge that comes with one renewal's reply still serves for the next one. Where leases, and with them the
times between renewals, are longer, a renewal costs a second round trip.
"""

CLOCK_TOLERANCE_MS = 60_000
"""Clocks may differ by so much: a registrant's from a server's, and those of two servers."""

_RANDOM = 16
_STAMPED = 24


@dataclass(frozen=True, slots=True)
class Nonce:
    """A nonce that is one of our own; `issued_ms` is Unix time in milliseconds."""

    value: bytes
    issued_ms: int

    @property
    def keep_until_ms(self) -> int:
        """Until when to remember that it was used: as long as any server may think that it is good."""
        return self.issued_ms + NONCE_LIFETIME_MS + CLOCK_TOLERANCE_MS

    def is_good(self, now_ms: int) -> bool:
        """Return whether it has not expired, nor was made in the future."""
        return -CLOCK_TOLERANCE_MS <= now_ms - self.issued_ms < NONCE_LIFETIME_MS


def make_nonce(key: bytes, random: bytes, now_ms: int) -> bytes:
    """Return the nonce of 16 `random` bytes that says it was made at `now_ms`."""
    stamped = random + now_ms.to_bytes(_STAMPED - _RANDOM, "big")
    return stamped + _seal(key, stamped)


def read_nonce(key: bytes, value: bytes) -> Nonce:
    """Return what a nonce says.

    Raises:
        ValueError: it was not made with `key`.
    """
    stamped, seal = value[:_STAMPED], value[_STAMPED:]
    if not hmac.compare_digest(seal, _seal(key, stamped)):
        raise ValueError("not a nonce of this key")
    return Nonce(value, int.from_bytes(stamped[_RANDOM:], "big"))


def _seal(key: bytes, stamped: bytes) -> bytes:
    return hmac.digest(key, stamped, "sha256")[: NONCE_BYTES - _STAMPED]
