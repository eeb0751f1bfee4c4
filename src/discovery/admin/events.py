"""What happened lately: a short history of each name, and a stream for whoever follows.

The store says what changed, on whichever replica; the accounts of calls say what this one refused. Everything is
bounded: old events, names that nothing happened to for long, and readers who are slow.
"""

from __future__ import annotations

import asyncio
import enum
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, count
from operator import itemgetter

from discovery.clock import Clock
from discovery.errors import Code, DiscoveryError, ProofRequiredError
from discovery.models import WatchEvent, lease_name
from discovery.transport.pipeline import Account, Call
from discovery.transport.redaction import holds_secret, redacted
from discovery.validation import check_agent, check_id, check_pubkey

_PER_NAME = 20
_NAMES = 10_000
_UNREAD = 1_000
_LONGEST = 512

# What may be registered, or ended, without anybody being at fault is no refusal.
_NOT_REFUSED = frozenset({Code.UNAVAILABLE, Code.CANCELLED, Code.DEADLINE_EXCEEDED})
_MUTATIONS = frozenset({"RegisterColony", "DeregisterColony", "RegisterAgent", "DeregisterAgent"})


class Kind(enum.IntEnum):
    """What happened, with the numbers of coral.discovery.admin.v1.EventKind."""

    REGISTERED = 1
    CHANGED = 2
    GONE = 3
    CONFLICT = 4
    REFUSED = 5
    EVICTED = 6
    EXPIRED = 7


_ENDS = frozenset({Kind.GONE, Kind.EXPIRED})


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, at a time by this replica's clock (microseconds, Unix time)."""

    at_us: int
    kind: Kind
    mesh_id: str
    agent_id: str = ""
    pubkey: str = ""
    key_name: str = ""
    address: str = ""
    reason: str = ""
    message: str = ""
    revision: int = 0


class Reader:
    """The events for one reader: those that it has not read, and how many it has missed."""

    def __init__(self, prefix: str, kinds: frozenset[int]) -> None:
        self._prefix = prefix
        self._kinds = kinds
        self._unread: deque[Event] = deque()
        self._missed = 0
        self._ending: DiscoveryError | None = None
        self._wake = asyncio.Event()

    def offer(self, event: Event) -> None:
        """Let the reader have an event that it asks for; the oldest unread one goes if there are too many."""
        if not event.mesh_id.startswith(self._prefix) or (
            self._kinds and event.kind not in self._kinds
        ):
            return
        if len(self._unread) >= _UNREAD:
            self._unread.popleft()
            self._missed += 1
        self._unread.append(event)
        self._wake.set()

    def close(self, ending: DiscoveryError) -> None:
        """End the reading with `ending`."""
        self._ending = ending
        self._wake.set()

    async def read(self) -> tuple[Event, int]:
        """Return the next event, and how many were missed before it.

        Raises:
            DiscoveryError: what `close` was given.
        """
        while not self._unread:
            if self._ending is not None:
                raise self._ending
            self._wake.clear()
            await self._wake.wait()
        missed, self._missed = self._missed, 0
        return self._unread.popleft(), missed


class _Histories:
    """The latest events of each name, and of the names only those that something happened to lately."""

    def __init__(self, per_name: int) -> None:
        self._per_name = per_name
        self._by_name: OrderedDict[str, deque[tuple[int, Event]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_name)

    def add(self, number: int, event: Event) -> None:
        name = lease_name(event.mesh_id, event.agent_id)
        self._by_name.setdefault(name, deque(maxlen=self._per_name)).append((number, event))
        self._by_name.move_to_end(name)
        if len(self._by_name) > _NAMES:
            self._by_name.popitem(last=False)

    def forget(self, mesh_id: str, agent_id: str, pubkey: str) -> None:
        """Forget a name if the latest that is known of it is about `pubkey`."""
        if (known := self.of(mesh_id, agent_id)) and known[-1][1].pubkey == pubkey:
            del self._by_name[lease_name(mesh_id, agent_id)]

    def of(self, mesh_id: str, agent_id: str) -> Sequence[tuple[int, Event]]:
        return tuple(self._by_name.get(lease_name(mesh_id, agent_id), ()))


class EventLog:
    """Remembers what happened, and tells readers.

    What was refused is remembered apart: strangers make any number of that, and must not push out the rest with it.
    A call without a proof is how each honest client asks for a challenge: it is remembered until that proves, and no
    reader is told.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changes = _Histories(_PER_NAME)
        self._refusals = _Histories(_PER_NAME)
        self._unproved = _Histories(1)
        self._numbers = count()
        self._readers: set[Reader] = set()
        self.since_us = clock.now().unix_us
        """Since when it remembers."""

    def changed(self, event: WatchEvent) -> None:
        """Take in what a store reports."""
        lease = event.lease
        if lease is None:
            kind = Kind.EXPIRED if event.expired else Kind.GONE
            gone = self._event(kind, event.mesh_id, event.agent_id, event.revision)
            self._add(gone, self._changes)
            return
        known = lease.granted_at_us < lease.last_seen_us or self._was_live(event)
        kind = Kind.CHANGED if known else Kind.REGISTERED
        happened = self._event(kind, event.mesh_id, event.agent_id, event.revision)
        pubkey = lease.registration.pubkey
        self._add(replace(happened, pubkey=pubkey, key_name=lease.owner), self._changes)

    def witness(self, account: Account) -> None:
        """Take in a call that is over: what was refused."""
        error = account.error
        if error is None and not self._unproved:
            return
        method = account.call.path.rpartition("/")[2]
        if method not in _MUTATIONS or account.code in _NOT_REFUSED:
            return
        if error is not None and error.reason == ProofRequiredError.reason:
            self._remember(self._told(Kind.REFUSED, account, error), self._unproved)
            return
        if self._unproved:
            self._unproved.forget(*_named(account.message), getattr(account.message, "pubkey", ""))
        if error is not None:
            kind = Kind.CONFLICT if error.code is Code.ALREADY_EXISTS else Kind.REFUSED
            self._add(self._told(kind, account, error), self._refusals)

    def evicted(self, mesh_id: str, agent_id: str, by: Call) -> None:
        """Take in that an administrator ended a lease."""
        event = self._event(Kind.EVICTED, mesh_id, agent_id, 0)
        named = replace(event, key_name=by.caller.key_name, address=by.peer or "")
        self._add(named, self._changes)

    def history(self, mesh_id: str, agent_id: str) -> Sequence[Event]:
        """Return what happened to a name lately, the latest last."""
        kept = (self._changes, self._refusals, self._unproved)
        known = chain.from_iterable(histories.of(mesh_id, agent_id) for histories in kept)
        return tuple(event for _, event in sorted(known, key=itemgetter(0)))

    @contextmanager
    def reader(self, prefix: str, kinds: frozenset[int]) -> Iterator[Reader]:
        """Provide a reader of the events of meshes that begin with `prefix`, and of `kinds` if there are any."""
        reader = Reader(prefix, kinds)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    def close(self, ending: DiscoveryError) -> None:
        """End everybody's reading."""
        for reader in self._readers:
            reader.close(ending)

    def _was_live(self, event: WatchEvent) -> bool:
        """Return whether the latest change of a name that is remembered left it registered."""
        changes = reversed(self._changes.of(event.mesh_id, event.agent_id))
        kinds = (change.kind for _, change in changes if change.revision)
        return next(kinds, Kind.GONE) not in _ENDS

    def _event(self, kind: Kind, mesh_id: str, agent_id: str, revision: int) -> Event:
        return Event(self._clock.now().unix_us, kind, mesh_id, agent_id, revision=revision)

    def _told(self, kind: Kind, account: Account, error: DiscoveryError) -> Event:
        """Return what happened, with what a stranger may have written cut to what is valid or short."""
        message, caller = account.message, account.call.caller
        mesh_id, agent_id = _named(message)
        pubkey = str(getattr(message, "pubkey", ""))
        return Event(
            self._clock.now().unix_us,
            kind,
            mesh_id,
            agent_id,
            pubkey="" if any(check_pubkey(pubkey)) else pubkey,
            key_name=caller.key_name,
            address=account.call.peer or "",
            reason=error.reason,
            message=redacted(error.message)[:_LONGEST],
        )

    def _add(self, event: Event, histories: _Histories) -> None:
        self._remember(event, histories)
        for reader in self._readers:
            reader.offer(event)

    def _remember(self, event: Event, histories: _Histories) -> None:
        if event.mesh_id:
            histories.add(next(self._numbers), event)


def _named(message: object) -> tuple[str, str]:
    """Return whom a message names; nobody unless it does so validly: a bad agent_id is not the colony."""
    mesh_id: str = getattr(message, "mesh_id", "")
    agent_id: str | None = getattr(message, "agent_id", None)
    if holds_secret(f"{mesh_id} {agent_id}"):
        return "", ""
    if agent_id is None:
        return ("", "") if any(check_id("", mesh_id)) else (mesh_id, "")
    return ("", "") if any(check_agent(mesh_id, agent_id)) else (mesh_id, agent_id)
