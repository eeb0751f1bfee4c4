"""A tunnel whose network a test scripts, and a report that is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from discovery.runners.whereabouts import Whereabouts
from discovery.wireguard import Peer, PeerStatus, TunnelError

RTT = 0.02


@dataclass(slots=True)
class Told:
    """One thing that a report was told."""

    event: str
    text: str
    data: Mapping[str, object]
    warning: bool


class FakeReport:
    def __init__(self) -> None:
        self.told: list[Told] = []
        self.more = asyncio.Event()

    def say(self, event: str, text: str, **data: object) -> None:
        self._note(Told(event, text, data, warning=False))

    def warn(self, event: str, text: str, **data: object) -> None:
        self._note(Told(event, text, data, warning=True))

    def _note(self, told: Told) -> None:
        self.told.append(told)
        self.more.set()

    def events(self) -> list[str]:
        return [told.event for told in self.told]

    def texts(self, event: str) -> list[str]:
        return [told.text for told in self.told if told.event == event]

    async def until(self, event: str, times: int = 1) -> Told:
        """Wait until `event` was told so often."""
        async with asyncio.timeout(600):
            while self.events().count(event) < times:
                self.more.clear()
                await self.more.wait()
        return [told for told in self.told if told.event == event][times - 1]


@dataclass
class FakeTunnel:
    """Shakes hands with who answers at an endpoint; hears of a peer for as long as that goes on."""

    port: int = 41820
    answering: set[tuple[str, str]] = field(default_factory=set)
    """Public keys and endpoints."""
    trouble: TunnelError | None = None
    is_open: bool = False
    dialed: list[tuple[float, str, str | None]] = field(default_factory=list)
    known: dict[str, Peer] = field(default_factory=dict)
    added_at: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.why_lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        self._check()
        self.is_open = True

    async def set_peer(self, peer: Peer) -> None:
        self._check()
        self.known[peer.pubkey] = peer
        self.added_at.setdefault(peer.pubkey, self._now())

    async def replace_peer(self, peer: Peer) -> None:
        await self.remove_peer(peer.pubkey)
        self.dialed.append((self._now(), peer.pubkey, peer.endpoint))
        await self.set_peer(peer)

    async def remove_peer(self, pubkey: str) -> None:
        self._check()
        self.known.pop(pubkey, None)
        self.added_at.pop(pubkey, None)

    async def peers(self) -> Mapping[str, PeerStatus]:
        self._check()
        return {pubkey: self._status(peer) for pubkey, peer in self.known.items()}

    async def lost(self) -> str:
        return await asyncio.shield(self.why_lost)

    async def close(self) -> None:
        self.is_open = False
        self.known.clear()

    def _status(self, peer: Peer) -> PeerStatus:
        age = self._now() - self.added_at[peer.pubkey]
        if age < RTT or (peer.pubkey, peer.endpoint) not in self.answering:
            return PeerStatus(peer.endpoint, None, 0, 148)
        return PeerStatus(peer.endpoint, 1_800_000_000, int(self._now()), 148)

    def _check(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class FakeFinder:
    """Knows what the test says."""

    def __init__(self, pubkey: str, *endpoints: str) -> None:
        self.where = Whereabouts(pubkey, endpoints)
        self.winners: list[str] = []
        self.failures = 0

    async def find(self) -> Whereabouts:
        return self.where

    def knows(self) -> bool:
        return True

    def give_up(self) -> Whereabouts:
        return self.where

    def latest(self) -> Whereabouts:
        return self.where

    def connected(self, endpoint: str) -> None:
        self.winners.append(endpoint)

    def failed(self) -> None:
        self.failures += 1
