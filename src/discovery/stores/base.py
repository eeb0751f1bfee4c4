"""The contract that every store keeps. `tests/stores/` holds each store to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from discovery.clock import Instant
from discovery.errors import QuotaError
from discovery.models import Counts, Lease, Registration, Reservation, Terms, WatchEvent

Listener = Callable[[WatchEvent], None]


class Grant(NamedTuple):
    """The lease that a registration was given; `renewed` tells a renewal from a first grant."""

    registration: Registration
    revision: int
    last_seen_us: int
    expires_at_us: int
    granted_at_us: int
    owner: str
    renewed: bool

    @property
    def lease(self) -> Lease:
        """The lease, for whoever needs all of it."""
        return Lease(*self[:-1])


@dataclass(frozen=True, slots=True)
class AgentsPage:
    """Some of a mesh's agents. `after` is where the next page begins, empty if there is none."""

    revision: int
    leases: tuple[Lease, ...]
    after: str


@dataclass(frozen=True, slots=True)
class LeasesPage:
    """Some of all leases. `after` says where the next page begins, and is empty if there is none."""

    leases: tuple[Lease, ...]
    after: str


NO_TERMS = Terms()


class Quotas(NamedTuple):
    """Numbers of live leases: how many there are, or may be at most; 0 is any number, or one that does not matter."""

    of_owner: int
    """Colonies of one owner."""
    of_mesh: int
    """Agents of one mesh."""
    in_all: int


def quotas(registration: Registration, terms: Terms) -> Quotas:
    """Return the most that there may be with `registration`: those of the terms that are about its kind."""
    if registration.agent_id:
        return Quotas(0, terms.most_agents, terms.most_in_all)
    return Quotas(terms.most_of_owner if terms.owner else 0, 0, terms.most_in_all)


def quota_error(most: Quotas, there_are: Quotas) -> QuotaError | None:
    """Return the error of one lease more than `there_are`, if that is more than `most`."""
    for whose, allowed, number in zip(_WHOSE, most, there_are, strict=True):
        if 0 < allowed <= number:
            message = f"{whose} {allowed} already, which is as many as there may be"
            return QuotaError(message, retry_after=_QUOTA_WAIT)
    return None


_QUOTA_WAIT = 60.0  # in seconds: a lease may end any time, and mostly none does
_WHOSE = (
    "this API key has colonies registered:",
    "this mesh has agents:",
    "this server has leases:",
)


@runtime_checkable
class OnceStore(Protocol):
    """What replicas that share a store agree on, beside leases: values that are set once, by whoever is first."""

    async def once(self, name: str, value: str, until_ms: int | None = None) -> str | None:
        """Set `name` to `value`, until a Unix time in milliseconds if one is given, unless it has a value already.

        Return the value that it had; None if it is `value` from now on.

        Raises:
            StoreUnavailableError: the store has not answered; it may be set, or not.
        """
        ...


class RegistryStore(Protocol):
    """Holds at most one live lease for each mesh_id, its colony's, and one for each agent_id within a mesh.

    A colony's lease is named by mesh_id alone, an agent's by mesh_id and agent_id. Neither kind has anything to do with
    the other: a mesh may have agents and no colony, and each has revisions of its own. The revisions of all agents of
    a mesh are one row, in which each change of any of them has a number greater than all before.

    A lease is live until the moment its `expires_at_us` names and not after: no method ever shows a lease that has
    ended, whether or not `sweep` has run. Every method is atomic: of two that run at once, on one replica or two,
    one happens wholly before the other.

    `now` is the caller's clock. A store with a clock that all replicas share uses that instead.

    Every method may raise StoreUnavailableError. It then has not answered: a mutation may or may not have happened,
    and repeating it is safe.
    """

    @property
    def expired(self) -> int:
        """How many leases ended because nobody renewed them, as far as this object has noticed.

        Each is counted once, and by one replica only, so that the replicas' numbers add up. It never goes down.
        """
        ...

    def holds(self, registration: Registration) -> bool:
        """Return whether it is known here, without asking anybody, that this very content was granted a lease before.

        False says nothing.
        """
        ...

    async def register(
        self, registration: Registration, *, ttl: int, now: Instant, terms: Terms = NO_TERMS
    ) -> Grant:
        """Grant or renew the lease on the colony or agent that `registration` names, for `ttl` seconds from `now`.

        The key that holds a live lease owns it: it renews, and may change everything else. Repeating a call is safe.
        A renewal never ends a lease sooner than was acknowledged before. The revision grows if the content changed or
        there was no live lease, also beyond every revision there was before; it stays if the content is the same.

        With `terms.old_pubkey`, what that key holds or has reserved is treated as this key's: a live lease goes on as a
        renewal whose content changed. A reservation, if the terms have one, begins with the lease and lasts until its
        end and `reserve` more, also across a deregistration. Quotas are of live leases; they are looked at before a
        grant and never before a renewal. Where several replicas grant at once, they may be passed by a few.

        Raises:
            MeshIdTakenError: another key holds a live lease. Nothing was changed.
            MeshReservedError: there is none, but the name is reserved for another key. Nothing was changed.
            QuotaError: as many as may be are registered already. Nothing was changed.
        """
        ...

    async def lookup(self, mesh_id: str, *, now: Instant, agent_id: str = "") -> Lease | None:
        """Return the live lease of the colony of `mesh_id`, or of its agent `agent_id`; None if there is none.

        It sees every `register` and `deregister` that was answered before it was called.
        """
        ...

    async def deregister(
        self, mesh_id: str, pubkey: str, *, now: Instant, agent_id: str = ""
    ) -> bool:
        """End the lease that `pubkey` holds on the colony of `mesh_id`, or on its agent `agent_id`.

        Return whether there was one.

        Repeating a call is safe: the second finds nothing and returns False.

        Raises:
            NotOwnerError: another key holds a live lease. Nothing was changed.
        """
        ...

    async def evict(self, mesh_id: str, *, now: Instant, agent_id: str = "") -> bool:
        """End a lease and its reservation, whoever holds them; return whether there was either. Repeatable."""
        ...

    async def reservation(
        self, mesh_id: str, *, now: Instant, agent_id: str = ""
    ) -> Reservation | None:
        """Return for whom a name is reserved, if it is; that may be who holds the live lease."""
        ...

    async def leases(
        self, *, agents: bool, prefix: str, after: str, limit: int, now: Instant
    ) -> LeasesPage:
        """Return live leases of agents, or of colonies, whose mesh_id begins with `prefix`, in no particular order.

        It looks at about `limit` leases, so a page may hold fewer, or none, and not be the last; it holds up nobody,
        however many there are. `after` is empty for the first page, then what the page before says. What is registered
        from the first page to the last is in at least one of them.

        Raises:
            ValueError: `after` is none that a page has said.
        """
        ...

    async def agents(self, mesh_id: str, *, after: str, limit: int, now: Instant) -> AgentsPage:
        """Return the live leases of up to `limit` agents of `mesh_id`, in the order of their agent_id.

        The page holds agents that come behind `after`, which need not exist; empty begins at the first. An agent that
        is registered while one page after the other is read is in exactly one of them. A page may hold fewer than
        `limit`, or none, and not be the last.

        Its revision is that of the latest change of any of the mesh's agents that was answered or reported before the
        call. It is the same if asked again soon after and nothing changed; asked much later, it may be greater.
        """
        ...

    async def count(self, *, now: Instant) -> Counts:
        """Return the numbers of live leases."""
        ...

    async def sweep(self, *, now: Instant, limit: int) -> bool:
        """Look at up to `limit` leases that may have ended and free those that have; return whether more are due.

        Nothing but memory, and the time at which an expiry is reported to the listener, depends on when this runs.
        """
        ...

    async def current(self, mesh_id: str, *, now: Instant) -> WatchEvent:
        """Return the state of the colony of `mesh_id`: its live lease, or that it is absent, and the revision of that.

        The revision of an absent mesh is greater than every one it had while registered. Asked again soon after, it is
        the same; asked much later, it may be greater though nothing happened.
        """
        ...

    def listen(self, changed: Listener, missed: Callable[[], None] | None = None) -> None:
        """Call `changed` with each change of a colony's or agent's content: registered, changed, absent.

        For one colony, and for all agents of one mesh, events come in the order of their revisions and each revision at
        most once; a renewal that changes nothing makes none. An expiry is reported when it is noticed. A store that may
        have lost events on the way calls `missed`: whoever follows something must then ask for its state. Both are
        called from the event loop, must return at once and must not raise. They replace those before them.
        """
        ...

    async def close(self) -> None:
        """Let go of connections. Idempotent; no other method may be called afterwards."""
        ...
