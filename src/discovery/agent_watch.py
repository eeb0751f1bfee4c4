"""Following the agents of meshes: what `watch` does for colonies, where the state is that of many.

A subscription holds at most one unread state of each agent, the latest. States are read in the order of their
revisions, and none while something may have been missed: whoever has read one revision has missed nothing before it,
and can go on from there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager

from discovery.bell import Bell
from discovery.clock import Clock
from discovery.errors import DiscoveryError
from discovery.look import Look
from discovery.models import Synced, WatchEvent
from discovery.stores.base import RegistryStore

_PAGE = 256
_NEVER = 2**64


class AgentSubscription:
    """The changes of a mesh's agents, for one reader."""

    def __init__(self) -> None:
        self._unread: dict[str, WatchEvent] = {}
        self._newest = 0
        self._held = False
        self._ending: DiscoveryError | None = None
        self._bell = Bell()

    def offer(self, event: WatchEvent) -> None:
        """Add `event` to what is to read; an unread state of the same agent need not be read any more."""
        self._unread.pop(event.agent_id, None)
        late = event.revision < self._newest and bool(self._unread)
        self._newest = event.revision
        self._unread[event.agent_id] = event
        if late:
            self._unread = dict(sorted(self._unread.items(), key=lambda item: item[1].revision))
            self._newest = next(reversed(self._unread.values())).revision
        self._bell.ring()

    def skip(self, revision: int) -> None:
        """Forget what is unread up to a revision: the reader has it."""
        self._unread = {
            agent_id: event for agent_id, event in self._unread.items() if event.revision > revision
        }

    def hold(self) -> None:
        """Let nothing be read: something before it may have been missed."""
        self._held = True

    def release(self) -> None:
        """Let everything be read again."""
        self._held = False
        self._bell.ring()

    def close(self, ending: DiscoveryError) -> None:
        """End the reading with `ending`, at once."""
        self._ending = ending
        self._bell.ring()

    def check(self) -> None:
        """Raise what `close` was given, if it was called.

        Raises:
            DiscoveryError: that.
        """
        if self._ending is not None:
            raise self._ending

    async def read(self) -> WatchEvent:
        """Return the earliest unread change, when there is one.

        Raises:
            DiscoveryError: what `close` was given.
        """
        while True:
            self.check()
            if self._unread and not self._held:
                return self._unread.pop(next(iter(self._unread)))
            await self._bell.heard()


class _Mesh:
    """One watched mesh: who follows it, and the state of each agent as far as it is known."""

    def __init__(self, mesh_id: str, store: RegistryStore, clock: Clock) -> None:
        self._mesh_id = mesh_id
        self._store = store
        self._clock = clock
        self.subscriptions: set[AgentSubscription] = set()
        self.states: dict[str, WatchEvent] = {}
        self.look = Look(self._look)
        self._next_end_us = _NEVER
        self._notes: list[dict[str, int]] = []
        self._misses = 0

    def changed(self, event: WatchEvent) -> None:
        """Take in the state of an agent, new or not."""
        for changes in self._notes:
            changes[event.agent_id] = event.revision
        self._take(event)
        self._expect_end(_end_us(event))

    async def refresh(self) -> int:
        """Ask the store for every agent; return the revision that is known now, at least.

        What was reported meanwhile counts if it is later. Where nothing was, the store is right even if it has gone
        back: it may have lost its latest writes.

        Raises:
            StoreUnavailableError: it cannot answer.
        """
        known, misses = set(self.states), self._misses
        with self._noting_changes() as changes:
            listed, revision = await self._read(changes)
        for agent_id in known - listed - changes.keys():
            self._drop(agent_id)
        if misses == self._misses:
            for subscription in self.subscriptions:
                subscription.release()
        self._next_end_us = _NEVER
        self._expect_end(min(map(_end_us, self.states.values()), default=_NEVER))
        return revision

    async def _read(self, changes: Mapping[str, int]) -> tuple[AbstractSet[str], int]:
        """Take in every agent that the store has; return who that was, and the revision when it began."""
        listed, revision, after = set[str](), None, ""
        while revision is None or after:
            page = await self._store.agents(
                self._mesh_id, after=after, limit=_PAGE, now=self._clock.now()
            )
            for lease in page.leases:
                agent_id = lease.registration.agent_id
                listed.add(agent_id)
                if lease.revision > changes.get(agent_id, -1):
                    self._take(WatchEvent(self._mesh_id, lease.revision, lease, agent_id))
            revision, after = page.revision if revision is None else revision, page.after
        return listed, revision

    @contextmanager
    def _noting_changes(self) -> Iterator[Mapping[str, int]]:
        """Collect the revision of each change that is reported while the store is read."""
        changes: dict[str, int] = {}
        self._notes.append(changes)
        try:
            yield changes
        finally:
            self._notes = [others for others in self._notes if others is not changes]

    async def _look(self) -> None:
        await self.refresh()

    def _expect_end(self, end_us: int) -> None:
        """Ask again when the first lease ends: no store reports renewals, and not every store an expiry at once."""
        if end_us < self._next_end_us:
            self._next_end_us = end_us
            self.look.at(end_us, self._clock.now())

    def missed(self) -> None:
        """Ask for every agent: changes may have been lost. What comes now is not read before that is known."""
        self._misses += 1
        for subscription in self.subscriptions:
            subscription.hold()
        self.look.now()

    def _drop(self, agent_id: str) -> None:
        """Take in that an agent is gone, at a revision that nobody was told.

        It is no later than the real one, so nobody who is told of it passes over a change that they were not told of.
        """
        if (known := self.states.get(agent_id)) is not None:
            self._take(WatchEvent(self._mesh_id, known.revision + 1, None, agent_id))

    def _take(self, event: WatchEvent) -> None:
        """Note the state of an agent, and spread it if it is news."""
        known = self.states.get(event.agent_id)
        if event.lease is not None:
            self.states[event.agent_id] = event
        elif known is None:  # gone, and nobody was told of it
            return
        else:
            del self.states[event.agent_id]
        if known is None or known.revision != event.revision:
            for subscription in self.subscriptions:
                subscription.offer(event)


class AgentHub:
    """Spreads what the store reports of agents to those who watch their mesh."""

    def __init__(self, store: RegistryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._meshes: dict[str, _Mesh] = {}

    @property
    def watching(self) -> int:
        """How many watch."""
        return sum(len(mesh.subscriptions) for mesh in self._meshes.values())

    async def watch(self, mesh_id: str, known_revision: int) -> AsyncGenerator[WatchEvent | Synced]:
        """Yield the state of each agent of `mesh_id`, then Synced, then each change, without end.

        The states are left out if nothing has changed since `known_revision`.

        Raises:
            StoreUnavailableError: the store cannot tell the present state.
            DiscoveryError: what `close` was given.
        """
        mesh = self._meshes.setdefault(mesh_id, _Mesh(mesh_id, self._store, self._clock))
        subscription = AgentSubscription()
        mesh.subscriptions.add(subscription)
        try:
            revision = await mesh.refresh()
            if revision == known_revision:
                states = []
                subscription.skip(revision)
            else:
                states = sorted(mesh.states.items())
                subscription.skip(_NEVER)
            for _, event in states:
                subscription.check()
                yield event
            states.clear()  # the watch may last for days
            yield Synced(mesh_id, revision)
            while True:
                yield await subscription.read()
        finally:
            mesh.subscriptions.discard(subscription)
            if not mesh.subscriptions:
                del self._meshes[mesh_id]
                mesh.look.close()

    def changed(self, event: WatchEvent) -> None:
        """Take in the state of an agent, new or not."""
        mesh = self._meshes.get(event.mesh_id)
        if mesh is not None:
            mesh.changed(event)

    def missed(self) -> None:
        """Ask for the agents of every watched mesh: changes may have been lost."""
        for mesh in self._meshes.values():
            mesh.missed()

    def close(self, ending: Callable[[], DiscoveryError]) -> None:
        """End everybody's watching, with an error of their own."""
        for mesh in self._meshes.values():
            for subscription in mesh.subscriptions:
                subscription.close(ending())


def _end_us(event: WatchEvent) -> int:
    return _NEVER if event.lease is None else event.lease.expires_at_us
