"""Each store beside a model that is too simple to be wrong: whatever is done to both, they say the same."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from discovery.clock import MICROSECONDS
from discovery.errors import MeshIdTakenError, MeshReservedError, NotOwnerError, QuotaError
from discovery.models import Counts, Lease, Registration, Reservation, Terms, WatchEvent
from discovery.stores.base import Grant
from tests.redis.rigs import REDIS_RIGS
from tests.stores.rigs import RIGS, OpenRig, Rig
from tests.support import examples, key, registration

T = TypeVar("T")


class Name(NamedTuple):
    """A colony's, or an agent's."""

    mesh_id: str
    agent_id: str = ""


NAMES = [Name("m"), Name("n"), Name("m", "a"), Name("m", "m"), Name("n", "a")]
MESHES = st.sampled_from(["m", "n"])
AGENTS = st.sampled_from(["", "a", "m"])
NAMED = st.sampled_from(NAMES)
KEYS = st.sampled_from([key(1), key(2)])
CONTENTS = st.sampled_from([1, 2, 3])
TTLS = st.sampled_from([1, 2, 3, 10, 300])
RESERVES = st.sampled_from([0, 0, 1, 10, 300])
OLD_KEYS = st.sampled_from(["", "", key(1), key(2)])
OWNERS = st.sampled_from(["", "one", "two"])
QUOTAS = st.sampled_from(
    [
        Terms(),
        *(Terms(most_of_owner=number) for number in (1, 2, 4)),
        *(Terms(most_agents=number) for number in (1, 2, 4)),
        *(Terms(most_in_all=number) for number in (1, 2, 4)),
    ]
)
SECONDS = st.one_of(
    st.sampled_from([0.0, 1e-6, 0.5, 1.0, 1.0, 2.0, 10.0, 300.0]),
    st.floats(min_value=0, max_value=20),
)
LIMITS = st.sampled_from([1, 2, 100])
WALL_STEPS = st.sampled_from([-86_400.0, -10.0, -1.0, -1e-6, 1e-6, 1.0, 10.0, 86_400.0])


@dataclass
class Held:
    """What the model knows of a lease."""

    lease: Lease
    ends_us: int
    """On the monotonic clock: nothing else ends a lease."""


@dataclass
class Kept:
    """What the model knows of a reservation."""

    reservation: Reservation
    ends_us: int
    """On the monotonic clock."""


class StoreMachine(RuleBasedStateMachine):
    """Drives a store and the model, and compares them."""

    open_rig: ClassVar[OpenRig]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.opened = AsyncExitStack()
        self.rig: Rig = self.wait_for(self.opened.enter_async_context(type(self).open_rig()))
        self.held: dict[Name, Held] = {}
        self.kept: dict[Name, Kept] = {}
        self.revisions: dict[Name, int] = {}

    def teardown(self) -> None:
        self.wait_for(self.opened.aclose())
        self.loop.close()

    def wait_for(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    # What can happen to a store.

    @rule(name=NAMED, pubkey=KEYS, content=CONTENTS, ttl=TTLS)
    def register(self, name: Name, pubkey: str, content: int, ttl: int) -> None:
        wanted = registration(**name._asdict(), pubkey=pubkey, public_port=content)
        self.register_on(wanted, ttl, Terms())

    @rule(
        name=NAMED,
        pubkey=KEYS,
        ttl=TTLS,
        quota=QUOTAS,
        reserve=RESERVES,
        old_pubkey=OLD_KEYS,
        owner=OWNERS,
    )
    def register_on_terms(
        self,
        name: Name,
        pubkey: str,
        ttl: int,
        quota: Terms,
        reserve: int,
        old_pubkey: str,
        owner: str,
    ) -> None:
        wanted = registration(**name._asdict(), pubkey=pubkey, public_port=1)
        terms = replace(quota, reserve=reserve, old_pubkey=old_pubkey, owner=owner)
        self.register_on(wanted, ttl, terms)

    @rule(pubkey=KEYS, ttl=TTLS)
    def register_all(self, pubkey: str, ttl: int) -> None:
        """Make leases that end together."""
        for name in NAMES:
            self.register(name, pubkey, 1, ttl)

    @rule(name=NAMED, ttl=TTLS)
    def renew(self, name: Name, ttl: int) -> None:
        if name in self.held:
            self.register_on(self.held[name].lease.registration, ttl, Terms())

    @rule(name=NAMED)
    def evict(self, name: Name) -> None:
        there_was = self.live(name) is not None or self.reserved(name) is not None
        assert self.wait_for(self.rig.evict(*name)) is there_was
        self.held.pop(name, None)
        self.kept.pop(name, None)

    @rule(name=NAMED, pubkey=KEYS)
    def deregister(self, name: Name, pubkey: str) -> None:
        held = self.live(name)
        leaving = self.rig.deregister(name.mesh_id, pubkey, name.agent_id)
        if held is None:
            assert self.wait_for(leaving) is False
        elif held.lease.registration.pubkey == pubkey:
            assert self.wait_for(leaving) is True
            del self.held[name]
        else:
            with pytest.raises(NotOwnerError):
                self.wait_for(leaving)

    @rule(mesh_id=MESHES)
    def current(self, mesh_id: str) -> None:
        held, state = self.live(Name(mesh_id)), self.wait_for(self.rig.current(mesh_id))
        if held is not None:
            assert state == WatchEvent(mesh_id, held.lease.revision, held.lease)
            return
        assert state == WatchEvent(mesh_id, state.revision, None)
        assert state.revision > self.revisions.get(Name(mesh_id), 0)
        assert self.wait_for(self.rig.current(mesh_id)) == state

    @rule(mesh_id=MESHES, after=AGENTS, limit=st.sampled_from([1, 2]))
    def agents(self, mesh_id: str, after: str, limit: int) -> None:
        """Go through the pages behind `after`."""
        row, begin = Name(mesh_id, "*"), after
        found: list[Lease] = []
        page = None
        while page is None or page.after:
            page = self.wait_for(self.rig.agents(mesh_id, after, limit))
            assert len(page.leases) <= limit
            assert page.revision == (self.last_told(row) or page.revision)
            again = self.wait_for(self.rig.agents(mesh_id, after, limit))
            # It stays, unless only now an end is noticed that was due.
            assert again.revision == (self.last_told(row) or page.revision)
            found += page.leases
            after = page.after
        live = [name for name in sorted(self.all_live()) if name > Name(mesh_id, begin)]
        assert found == [self.held[name].lease for name in live if name.mesh_id == mesh_id]
        self.revisions[row] = again.revision

    @rule(agents=st.booleans(), prefix=st.sampled_from(["", "m", "n/"]), limit=LIMITS)
    def leases(self, agents: bool, prefix: str, limit: int) -> None:
        page = self.wait_for(self.rig.leases(prefix, limit=limit, agents=agents))
        found = [*page.leases]
        while page.after:
            page = self.wait_for(self.rig.leases(prefix, page.after, limit, agents=agents))
            found += page.leases
        for name, held in self.all_live().items():
            wanted = bool(name.agent_id) is agents and name.mesh_id.startswith(prefix)
            assert found.count(held.lease) == wanted
        assert len(found) <= len(self.all_live())

    @rule(limit=st.sampled_from([1, 2]))
    def sweep(self, limit: int) -> None:
        before = len(self.events())
        more_are_due = self.wait_for(self.rig.sweep(limit))
        assert more_are_due or self.replayed().keys() == self.all_live().keys()
        noticed = self.events()[before:]
        assert len(noticed) <= limit
        assert all(event.lease is None for event in noticed)

    @rule()
    def sweep_all(self) -> None:
        self.wait_for(self.rig.sweep_all())
        assert self.replayed().keys() == self.all_live().keys()

    @rule()
    def count(self) -> None:
        agents = sum(bool(name.agent_id) for name in self.all_live())
        colonies = len(self.all_live()) - agents
        assert self.wait_for(self.rig.counts()) == Counts(colonies, agents)

    @rule(seconds=SECONDS)
    def advance(self, seconds: float) -> None:
        self.wait_for(self.rig.advance(seconds))

    @rule(short_of=st.sampled_from([0, 1]))
    def advance_to_the_next_end(self, short_of: int) -> None:
        """Go to where mistakes are: the moment a lease ends, and the last tick before."""
        ends = [held.ends_us for held in self.all_live().values()]
        left_us = min(ends, default=self.monotonic_us) - self.monotonic_us
        left = max(0.0, left_us / MICROSECONDS - short_of * self.rig.tick)
        self.wait_for(self.rig.advance(left))

    @rule(seconds=WALL_STEPS)
    def step_wall(self, seconds: float) -> None:
        self.rig.step_wall(seconds)

    # What must hold after each of them.

    @invariant()
    def lookups_show_live_leases_and_no_others(self) -> None:
        for name in NAMES:
            held = self.live(name)
            found = self.wait_for(self.rig.lookup(*name))
            assert found == (held.lease if held else None)
            assert found is None or _whose(found) == _whose(self.held[name].lease)

    @invariant()
    def names_are_reserved_for_their_last_holders_and_no_others(self) -> None:
        for name in NAMES:
            assert self.wait_for(self.rig.reservation(*name)) == self.reserved(name)

    @invariant()
    def events_have_growing_revisions_and_each_changes_something(self) -> None:
        last: dict[Name, WatchEvent] = {}
        revisions: dict[Name, int] = {}
        for event in self.events():
            name, row = _name(event), _row(event)
            assert revisions.get(row, 0) < event.revision
            assert _content(last.get(name)) != _content(event)
            last[name], revisions[row] = event, event.revision

    @invariant()
    def events_tell_all_but_the_expiries_that_nobody_noticed(self) -> None:
        told = self.replayed()
        for name, held in self.all_live().items():
            assert told[name].revision == held.lease.revision
            assert told[name].registration == held.lease.registration
        for name in told.keys() - self.all_live().keys():
            assert self.held[name].ends_us <= self.monotonic_us

    # The model.

    @property
    def monotonic_us(self) -> int:
        return self.rig.now().monotonic_us

    def live(self, name: Name) -> Held | None:
        return self.all_live().get(name)

    def all_live(self) -> dict[Name, Held]:
        return {name: held for name, held in self.held.items() if self.monotonic_us < held.ends_us}

    def reserved(self, name: Name) -> Reservation | None:
        kept = self.kept.get(name)
        return kept.reservation if kept is not None and self.monotonic_us < kept.ends_us else None

    def full(self, name: Name, terms: Terms) -> bool:
        live = self.all_live()
        agents = [other for other in live if other.agent_id and other.mesh_id == name.mesh_id]
        owned = [n for n, h in live.items() if not n.agent_id and h.lease.owner == terms.owner]
        return (
            0 < terms.most_in_all <= len(live)
            or bool(name.agent_id and 0 < terms.most_agents <= len(agents))
            or bool(not name.agent_id and terms.owner and 0 < terms.most_of_owner <= len(owned))
        )

    def register_on(self, wanted: Registration, ttl: int, terms: Terms) -> None:
        name, agreed = _name(wanted), (wanted.pubkey, terms.old_pubkey)
        held, reserved = self.live(name), self.reserved(name)
        call = self.rig.register(wanted, ttl, terms)
        if held is not None and held.lease.registration.pubkey not in agreed:
            with pytest.raises(MeshIdTakenError) as taken:
                self.wait_for(call)
            assert taken.value.expires_at_us == held.lease.expires_at_us
        elif held is None and reserved is not None and reserved.pubkey not in agreed:
            with pytest.raises(MeshReservedError) as refusal:
                self.wait_for(call)
            assert refusal.value.reserved_until_us == reserved.until_us
        elif held is None and self.full(name, terms):
            with pytest.raises(QuotaError):
                self.wait_for(call)
        else:
            self.check_grant(self.wait_for(call), wanted, ttl, held, terms.owner)
            self.reserve(name, terms)

    def reserve(self, name: Name, terms: Terms) -> None:
        """Hold what was reserved with the lease that is held now."""
        held, reserved = self.held[name], self.reserved(name)
        pubkey, spare_us = held.lease.registration.pubkey, terms.reserve * MICROSECONDS
        if terms.reserve:
            reservation = Reservation(pubkey, held.lease.expires_at_us + spare_us)
            self.kept[name] = Kept(reservation, held.ends_us + spare_us)
        elif reserved is not None:
            self.kept[name].reservation = replace(reserved, pubkey=pubkey)

    def check_grant(
        self, grant: Grant, wanted: Registration, ttl: int, held: Held | None, owner: str
    ) -> None:
        """Check what was granted, and hold it: what `wanted` names `held` this before."""
        now, span_us = self.rig.now(), ttl * MICROSECONDS
        expires_at_us, ends_us = now.unix_us + span_us, now.monotonic_us + span_us
        if held is not None and held.ends_us >= ends_us:
            expires_at_us, ends_us = held.lease.expires_at_us, held.ends_us
        self.check_revision(grant, wanted, held)
        granted_at_us = now.unix_us if held is None else held.lease.granted_at_us
        lease = Lease(
            wanted, grant.lease.revision, now.unix_us, expires_at_us, granted_at_us, owner
        )
        assert (grant.lease, grant.renewed) == (lease, held is not None)
        assert _whose(grant.lease) == _whose(lease)
        self.held[_name(wanted)] = Held(lease, ends_us)

    def check_revision(self, grant: Grant, wanted: Registration, held: Held | None) -> None:
        revision, row = grant.lease.revision, _row(wanted)
        if held is not None and held.lease.registration == wanted:
            assert revision == held.lease.revision
            return
        assert revision > self.revisions.get(row, 0)
        self.revisions[row] = revision

    def events(self) -> list[WatchEvent]:
        return self.wait_for(self.rig.seen())

    def last_told(self, row: Name) -> int:
        """Return the revision of the last event of a row, or 0."""
        return max((event.revision for event in self.events() if _row(event) == row), default=0)

    def replayed(self) -> dict[Name, Lease]:
        """Return the leases that somebody believes in who has only heard the events."""
        last = {_name(event): event.lease for event in self.events()}
        return {name: lease for name, lease in last.items() if lease is not None}


def _name(whose: WatchEvent | Registration) -> Name:
    return Name(whose.mesh_id, whose.agent_id)


def _whose(lease: Lease) -> tuple[int, str]:
    """Return what two leases may differ in and still be equal."""
    return lease.granted_at_us, lease.owner


def _row(whose: WatchEvent | Registration) -> Name:
    """Return with whom it shares its revisions: a colony with nobody, an agent with all those of its mesh."""
    return Name(whose.mesh_id, "*" if whose.agent_id else "")


def _content(event: WatchEvent | None) -> Registration | None:
    return None if event is None or event.lease is None else event.lease.registration


class MemoryMachine(StoreMachine):
    open_rig = staticmethod(RIGS["memory"])


# A failure is made as small as it gets before it is shown, which takes hypothesis up to five minutes.
TestMemoryStore = pytest.mark.timeout(400)(MemoryMachine.TestCase)
TestMemoryStore.settings = examples(50)


class FakeRedisMachine(StoreMachine):
    open_rig = staticmethod(REDIS_RIGS["fakeredis"])


TestFakeRedis = pytest.mark.timeout(400)(FakeRedisMachine.TestCase)
TestFakeRedis.settings = examples(5)


class RedisMachine(StoreMachine):
    open_rig = staticmethod(REDIS_RIGS["server"])


TestRedis = pytest.mark.timeout(400)(RedisMachine.TestCase)
TestRedis.settings = examples(12)
