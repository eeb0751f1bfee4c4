"""Following meshes: one hub for the process, and a bounded subscription for each watcher.

A subscription holds at most one state, the latest. A reader that stalls skips the states between and costs nothing
more, and whoever reads on always ends on the latest (promise 3 of the design).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Self

from discovery.agent_watch import AgentHub
from discovery.bell import Bell
from discovery.clock import Clock
from discovery.errors import DiscoveryError
from discovery.look import Look
from discovery.models import Synced, WatchEvent
from discovery.stores.base import Listener, RegistryStore


class Subscription:
    """The states of one mesh, for one reader: iterate over it, then close it.

    It does what a generator would, which takes three times as much while it waits.
    """

    __slots__ = ("_bell", "_ending", "_hub", "_known", "_newest", "_unread", "mesh_id", "topic")

    def __init__(self, hub: WatchHub, mesh_id: str, known_revision: int) -> None:
        """Leave out the state whose revision is `known_revision`: the reader has it."""
        self._hub = hub
        self.mesh_id = mesh_id
        self.topic: _Topic | None = None
        """What it is told by, from its first reading to its end."""
        self._known = known_revision
        self._newest = -1
        self._unread: WatchEvent | None = None
        self._ending: DiscoveryError | None = None
        self._bell = Bell()

    def offer(self, event: WatchEvent, *, certain: bool = False) -> None:
        """Make `event` the next state to read, unless it is known or a later one was offered before.

        One that is `certain` counts as later than all before it: a store that lost its latest writes goes back.
        """
        if event.revision == self._newest or (event.revision < self._newest and not certain):
            return
        self._newest = event.revision
        # Only the very same revision is known: a lower one means that the store, or its clock, was set back.
        self._unread = None if event.revision == self._known else event
        self._bell.ring()

    def end(self, ending: DiscoveryError) -> None:
        """End the reading with `ending`, at once."""
        self._ending = ending
        self._bell.ring()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        """Return the latest state, when there is one that was not read.

        Raises:
            StoreUnavailableError: the store cannot tell the present state.
            DiscoveryError: what `end` was given.
        """
        await self.join()
        while True:
            if self._ending is not None:
                raise self._ending
            if (event := self._unread) is not None:
                self._unread = None
                return event
            await self._bell.heard()

    async def join(self) -> None:
        """Ask for the present state, if that was not done before, and hear of each change from now on.

        Raises:
            StoreUnavailableError: the store cannot tell it.
        """
        if self.topic is None:
            await self._hub.join(self)

    def wait(self, wake: Callable[[], object]) -> bool:
        """Have `wake` called once, when there is something to read; return False if there is already."""
        idle = self.topic is not None and self._unread is None and self._ending is None
        if idle:
            self._bell.call(wake)
        return idle

    async def aclose(self) -> None:
        """Read no more."""
        self._hub.leave(self)


class _Topic:
    """One watched mesh."""

    __slots__ = ("look", "newest", "subscriptions", "told")

    look: Look

    def __init__(self) -> None:
        self.subscriptions: set[Subscription] | tuple[Subscription, ...] = ()
        """A tuple while there is but one, as of most meshes: a set of one takes four times as much."""
        self.newest = -1
        """The revision that everybody was offered last."""
        self.told = 0
        """How often a state came: tells whether one came while another was asked for."""

    def add(self, subscription: Subscription) -> None:
        """Take in one more."""
        if isinstance(self.subscriptions, set):
            self.subscriptions.add(subscription)
        elif self.subscriptions:
            self.subscriptions = {*self.subscriptions, subscription}
        else:
            self.subscriptions = (subscription,)

    def remove(self, subscription: Subscription) -> None:
        """Take one out that was taken in."""
        if isinstance(self.subscriptions, set):
            self.subscriptions.remove(subscription)
        else:
            self.subscriptions = tuple(one for one in self.subscriptions if one is not subscription)


class WatchHub:
    """Spreads what the store reports to those who watch, and looks itself for what stores report late: expiries."""

    def __init__(self, store: RegistryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.tell: Listener = _nobody
        """Is told as well of each change that the store reports."""
        self._topics: dict[str, _Topic] = {}
        self._agents = AgentHub(store, clock)
        # One object for all topics: a method is another each time that it is asked for.
        self._ask = self._look
        store.listen(self._reported, self.missed)

    @property
    def watching(self) -> int:
        """How many watch."""
        colonies = sum(len(topic.subscriptions) for topic in self._topics.values())
        return colonies + self._agents.watching

    def watch(self, mesh_id: str, known_revision: int) -> Subscription:
        """Return the state of the colony of `mesh_id` now and whenever it changes, without end.

        The present state is left out if its revision is `known_revision`.
        """
        return Subscription(self, mesh_id, known_revision)

    def watch_agents(
        self, mesh_id: str, known_revision: int
    ) -> AsyncGenerator[WatchEvent | Synced]:
        """Yield the states of the agents of `mesh_id` and their changes: see AgentHub."""
        return self._agents.watch(mesh_id, known_revision)

    def _reported(self, event: WatchEvent) -> None:
        self.tell(event)
        self.changed(event)

    def changed(self, event: WatchEvent) -> None:
        """Take in the state of a colony or an agent, new or not."""
        if event.agent_id:
            self._agents.changed(event)
        elif (topic := self._topics.get(event.mesh_id)) is not None:
            topic.told += 1
            self._spread(topic, event)

    def missed(self) -> None:
        """Ask for the state of all that is watched: changes may have been lost."""
        for topic in self._topics.values():
            topic.look.now()
        self._agents.missed()

    def close(self, ending: Callable[[], DiscoveryError]) -> None:
        """End everybody's watching, with an error of their own."""
        for topic in self._topics.values():
            for subscription in topic.subscriptions:
                subscription.end(ending())
        self._agents.close(ending)

    async def join(self, subscription: Subscription) -> None:
        """Tell a subscription the present state, and from then on each change."""
        mesh_id = subscription.mesh_id
        topic = self._topics.get(mesh_id)
        if topic is None:
            topic = self._topics[mesh_id] = _Topic()
            topic.look = Look(self._ask, mesh_id, topic)
        subscription.topic = topic
        topic.add(subscription)
        event = await self._store.current(mesh_id, now=self._clock.now())
        if event.revision == topic.newest:
            topic.told += (
                1  # the others have it: 10,000 that come at once shall not tell each other
            )
            subscription.offer(event)
        else:
            self.changed(event)

    def leave(self, subscription: Subscription) -> None:
        """Tell a subscription nothing more. Idempotent."""
        topic, subscription.topic = subscription.topic, None
        if topic is None:
            return
        topic.remove(subscription)
        if not topic.subscriptions:
            del self._topics[subscription.mesh_id]
            topic.look.close()

    def _spread(self, topic: _Topic, event: WatchEvent, *, certain: bool = False) -> None:
        """Tell the watchers; look again when the lease ends: no store reports renewals, nor each an expiry at once."""
        topic.newest = event.revision
        for subscription in topic.subscriptions:
            subscription.offer(event, certain=certain)
        if event.lease is not None:
            topic.look.at(event.lease.expires_at_us, self._clock.now())
        else:
            topic.look.never()

    async def _look(self, mesh_id: str, topic: _Topic) -> None:
        """Ask for the state until nothing came meanwhile: then what the store says is all there is to know."""
        told = topic.told
        event = await self._store.current(mesh_id, now=self._clock.now())
        undisturbed = topic.told == told
        if not undisturbed:
            topic.look.now()
        self._spread(topic, event, certain=undisturbed)


def _nobody(_event: WatchEvent) -> None:
    """Stand in for a listener where nobody listens."""
