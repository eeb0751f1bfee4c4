"""How much of a server one connection may use."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.transport.floods import Allowance, FloodLimits
from discovery.validation import MAX_REQUEST_BYTES


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one connection may ask at once, and how long a request may take to arrive."""

    streams: int = 100
    """Calls at the same time over one HTTP/2 connection."""
    header_bytes: int = 32 * 1024
    request_bytes: int = MAX_REQUEST_BYTES
    request_seconds: float = 10.0
    """How long a client may pause within a request, or take for its headers."""

    def floods(self) -> FloodLimits:
        """Return what else a client may make this server do, which grows with the rest."""
        usual = FloodLimits()
        resets = Allowance(max(usual.resets.burst, 2 * self.streams), usual.resets.per_second)
        block = max(usual.header_block, 2 * self.header_bytes)
        return usual._replace(resets=resets, header_block=block)
