"""Each store beside a model that is too simple to be wrong: whatever is done to both, they say the same."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from discovery.clock import MICROSECONDS
from discovery.errors import MeshIdTakenError, NotOwnerError
from discovery.models import Lease, Registration, WatchEvent
from discovery.stores.base import Grant
from tests.redis.rigs import REDIS_RIGS
from tests.stores.rigs import RIGS, OpenRig, Rig
from tests.support import examples, key, registration

T = TypeVar("T")

MESH_IDS = ["mesh-1", "mesh-2", "mesh-3"]
MESHES = st.sampled_from(MESH_IDS)
KEYS = st.sampled_from([key(1), key(2)])
CONTENTS = st.sampled_from([1, 2, 3])
TTLS = st.sampled_from([1, 2, 3, 10, 300])
SECONDS = st.one_of(
    st.sampled_from([0.0, 1e-6, 0.5, 1.0, 1.0, 2.0, 10.0, 300.0]),
    st.floats(min_value=0, max_value=20),
)
WALL_STEPS = st.sampled_from([-86_400.0, -10.0, -1.0, -1e-6, 1e-6, 1.0, 10.0, 86_400.0])


@dataclass
class Held:
    """What the model knows of a lease."""

    lease: Lease
    ends_us: int
    """On the monotonic clock: nothing else ends a lease."""


class StoreMachine(RuleBasedStateMachine):
    """Drives a store and the model, and compares them."""

    open_rig: ClassVar[OpenRig]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.opened = AsyncExitStack()
        self.rig: Rig = self.wait_for(self.opened.enter_async_context(type(self).open_rig()))
        self.held: dict[str, Held] = {}
        self.revisions: dict[str, int] = {}

    def teardown(self) -> None:
        self.wait_for(self.opened.aclose())
        self.loop.close()

    def wait_for(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    # What can happen to a store.

    @rule(mesh_id=MESHES, pubkey=KEYS, content=CONTENTS, ttl=TTLS)
    def register(self, mesh_id: str, pubkey: str, content: int, ttl: int) -> None:
        wanted = registration(mesh_id=mesh_id, pubkey=pubkey, public_port=content)
        held = self.live(mesh_id)
        if held is None or held.lease.registration.pubkey == pubkey:
            self.check_grant(self.wait_for(self.rig.register(wanted, ttl)), wanted, ttl, held)
            return
        with pytest.raises(MeshIdTakenError) as refusal:
            self.wait_for(self.rig.register(wanted, ttl))
        assert refusal.value.expires_at_us == held.lease.expires_at_us

    @rule(pubkey=KEYS, ttl=TTLS)
    def register_all(self, pubkey: str, ttl: int) -> None:
        """Make leases that end together."""
        for mesh_id in MESH_IDS:
            self.register(mesh_id, pubkey, 1, ttl)

    @rule(mesh_id=MESHES, ttl=TTLS)
    def renew(self, mesh_id: str, ttl: int) -> None:
        if mesh_id in self.held:
            held, wanted = self.live(mesh_id), self.held[mesh_id].lease.registration
            self.check_grant(self.wait_for(self.rig.register(wanted, ttl)), wanted, ttl, held)

    @rule(mesh_id=MESHES, pubkey=KEYS)
    def deregister(self, mesh_id: str, pubkey: str) -> None:
        held = self.live(mesh_id)
        if held is None:
            assert self.wait_for(self.rig.deregister(mesh_id, pubkey)) is False
        elif held.lease.registration.pubkey == pubkey:
            assert self.wait_for(self.rig.deregister(mesh_id, pubkey)) is True
            del self.held[mesh_id]
        else:
            with pytest.raises(NotOwnerError):
                self.wait_for(self.rig.deregister(mesh_id, pubkey))

    @rule(mesh_id=MESHES)
    def current(self, mesh_id: str) -> None:
        held, state = self.live(mesh_id), self.wait_for(self.rig.current(mesh_id))
        if held is not None:
            assert state == WatchEvent(mesh_id, held.lease.revision, held.lease)
            return
        assert state == WatchEvent(mesh_id, state.revision, None)
        assert state.revision > self.revisions.get(mesh_id, 0)
        assert self.wait_for(self.rig.current(mesh_id)) == state

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
        assert self.wait_for(self.rig.count()) == len(self.all_live())

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
        for mesh_id in MESH_IDS:
            held = self.live(mesh_id)
            found = self.wait_for(self.rig.lookup(mesh_id))
            assert found == (held.lease if held else None)

    @invariant()
    def events_have_growing_revisions_and_each_changes_something(self) -> None:
        last: dict[str, WatchEvent] = {}
        for event in self.events():
            before = last.get(event.mesh_id)
            assert before is None or before.revision < event.revision
            assert _content(before) != _content(event)
            last[event.mesh_id] = event

    @invariant()
    def events_tell_all_but_the_expiries_that_nobody_noticed(self) -> None:
        told = self.replayed()
        for mesh_id, held in self.all_live().items():
            assert told[mesh_id].revision == held.lease.revision
            assert told[mesh_id].registration == held.lease.registration
        for mesh_id in told.keys() - self.all_live().keys():
            assert self.held[mesh_id].ends_us <= self.monotonic_us

    # The model.

    @property
    def monotonic_us(self) -> int:
        return self.rig.now().monotonic_us

    def live(self, mesh_id: str) -> Held | None:
        return self.all_live().get(mesh_id)

    def all_live(self) -> dict[str, Held]:
        return {mesh: held for mesh, held in self.held.items() if self.monotonic_us < held.ends_us}

    def check_grant(self, grant: Grant, wanted: Registration, ttl: int, held: Held | None) -> None:
        """Check what was granted, and hold it: the lease of `wanted`'s mesh was `held` before."""
        now, span_us = self.rig.now(), ttl * MICROSECONDS
        expires_at_us, ends_us = now.unix_us + span_us, now.monotonic_us + span_us
        if held is not None and held.ends_us >= ends_us:
            expires_at_us, ends_us = held.lease.expires_at_us, held.ends_us
        self.check_revision(grant, wanted, held)
        lease = Lease(wanted, grant.lease.revision, now.unix_us, expires_at_us)
        assert grant == Grant(lease, renewed=held is not None)
        self.held[wanted.mesh_id] = Held(lease, ends_us)

    def check_revision(self, grant: Grant, wanted: Registration, held: Held | None) -> None:
        revision, before = grant.lease.revision, self.revisions.get(wanted.mesh_id, 0)
        same = held is not None and held.lease.registration == wanted
        assert revision == before if same else revision > before
        self.revisions[wanted.mesh_id] = revision

    def events(self) -> list[WatchEvent]:
        return self.wait_for(self.rig.seen())

    def replayed(self) -> dict[str, Lease]:
        """Return the leases that somebody believes in who has only heard the events."""
        last = {event.mesh_id: event.lease for event in self.events()}
        return {mesh_id: lease for mesh_id, lease in last.items() if lease is not None}


def _content(event: WatchEvent | None) -> Registration | None:
    return None if event is None or event.lease is None else event.lease.registration


class MemoryMachine(StoreMachine):
    open_rig = staticmethod(RIGS["memory"])


# A failure is made as small as it gets before it is shown, which takes hypothesis up to five minutes.
TestMemoryStore = pytest.mark.timeout(400)(MemoryMachine.TestCase)
TestMemoryStore.settings = examples(100)


class FakeRedisMachine(StoreMachine):
    open_rig = staticmethod(REDIS_RIGS["fakeredis"])


TestFakeRedis = pytest.mark.timeout(400)(FakeRedisMachine.TestCase)
TestFakeRedis.settings = examples(20)


class RedisMachine(StoreMachine):
    open_rig = staticmethod(REDIS_RIGS["server"])


TestRedis = pytest.mark.timeout(400)(RedisMachine.TestCase)
TestRedis.settings = examples(20)
