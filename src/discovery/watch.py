"""Following meshes: one hub for the process, and a bounded subscription for each watcher.

A subscription holds at most one state, the latest. A reader that stalls skips the states between and costs nothing
more, and whoever reads on always ends on the latest (promise 3 of the design).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

from discovery.clock import MICROSECONDS, Clock
from discovery.errors import DiscoveryError, StoreUnavailableError
from discovery.models import WatchEvent
from discovery.stores.base import RegistryStore

# In seconds: when to ask again a store that could not answer, and a lease that should have ended by now.
_ASK_AGAIN = 0.5
_SHORTEST_WAIT = 0.01
_LONGEST_WAIT = 1.0


class Subscription:
    """The states of one mesh, for one reader."""

    def __init__(self, known_revision: int) -> None:
        """Leave out the state whose revision is `known_revision`: the reader has it."""
        self._known = known_revision
        self._newest = -1
        self._unread: WatchEvent | None = None
        self._ending: DiscoveryError | None = None
        self._wake = asyncio.Event()

    def offer(self, event: WatchEvent, *, certain: bool = False) -> None:
        """Make `event` the next state to read, unless it is known or a later one was offered before.

        One that is `certain` counts as later than all before it: a store that lost its latest writes goes back.
        """
        if event.revision == self._newest or (event.revision < self._newest and not certain):
            return
        self._newest = event.revision
        # Only the very same revision is known: a lower one means that the store, or its clock, was set back.
        self._unread = None if event.revision == self._known else event
        self._wake.set()

    def close(self, ending: DiscoveryError) -> None:
        """End the reading with `ending`, at once."""
        self._ending = ending
        self._wake.set()

    async def read(self) -> WatchEvent:
        """Return the latest state, when there is one that was not read.

        Raises:
            DiscoveryError: what `close` was given.
        """
        while True:
            if self._ending is not None:
                raise self._ending
            if (event := self._unread) is not None:
                self._unread = None
                return event
            self._wake.clear()
            await self._wake.wait()


class _Topic:
    """One watched mesh."""

    def __init__(self) -> None:
        self.subscriptions: set[Subscription] = set()
        self.timer: asyncio.TimerHandle | None = None
        """Rings when the lease should have ended."""
        self.look: asyncio.Task[None] | None = None
        self.look_again = False
        self.told = 0
        """How often a state came: tells whether one came while another was asked for."""
        self.overdue = _SHORTEST_WAIT

    def close(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.look is not None:
            self.look.cancel()


class WatchHub:
    """Spreads what the store reports to those who watch, and looks itself for what stores report late: expiries."""

    def __init__(self, store: RegistryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._topics: dict[str, _Topic] = {}
        store.listen(self.changed, self.missed)

    async def watch(self, mesh_id: str, known_revision: int) -> AsyncGenerator[WatchEvent]:
        """Yield the state of `mesh_id` now and whenever it changes, without end.

        The present state is left out if its revision is `known_revision`.

        Raises:
            StoreUnavailableError: the store cannot tell the present state.
            DiscoveryError: what `close` was given.
        """
        with self._subscribe(mesh_id, known_revision) as subscription:
            self.changed(await self._store.current(mesh_id, now=self._clock.now()))
            while True:
                yield await subscription.read()

    def changed(self, event: WatchEvent) -> None:
        """Take in the state of a mesh, new or not."""
        topic = self._topics.get(event.mesh_id)
        if topic is not None:
            topic.told += 1
            self._spread(topic, event)

    def _spread(self, topic: _Topic, event: WatchEvent, *, certain: bool = False) -> None:
        for subscription in topic.subscriptions:
            subscription.offer(event, certain=certain)
        self._set_timer(topic, event)

    def missed(self) -> None:
        """Ask for the state of every watched mesh: changes may have been lost."""
        for mesh_id, topic in self._topics.items():
            self._start_look(mesh_id, topic)

    def close(self, ending: Callable[[], DiscoveryError]) -> None:
        """End everybody's watching, with an error of their own."""
        for topic in self._topics.values():
            for subscription in topic.subscriptions:
                subscription.close(ending())

    @contextmanager
    def _subscribe(self, mesh_id: str, known_revision: int) -> Iterator[Subscription]:
        subscription = Subscription(known_revision)
        topic = self._topics.setdefault(mesh_id, _Topic())
        topic.subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            topic.subscriptions.discard(subscription)
            if not topic.subscriptions:
                del self._topics[mesh_id]
                topic.close()

    def _set_timer(self, topic: _Topic, event: WatchEvent) -> None:
        """Look again when the lease ends: no store reports renewals, and not every store an expiry at once."""
        if event.lease is not None:
            left = (event.lease.expires_at_us - self._clock.now().unix_us) / MICROSECONDS
            if left > 0:
                topic.overdue = _SHORTEST_WAIT
                self._look_in(max(left, _SHORTEST_WAIT), event.mesh_id, topic)
            else:  # by this clock; the store's is behind it, by a little or by hours
                self._look_in(topic.overdue, event.mesh_id, topic)
                topic.overdue = min(2 * topic.overdue, _LONGEST_WAIT)
        elif topic.timer is not None:
            topic.timer.cancel()

    def _look_in(self, seconds: float, mesh_id: str, topic: _Topic) -> None:
        if topic.timer is not None:
            topic.timer.cancel()
        loop = asyncio.get_running_loop()
        topic.timer = loop.call_later(seconds, self._start_look, mesh_id, topic)

    def _start_look(self, mesh_id: str, topic: _Topic) -> None:
        topic.look_again = True
        if topic.look is None or topic.look.done():
            topic.look = asyncio.create_task(self._look(mesh_id, topic))

    async def _look(self, mesh_id: str, topic: _Topic) -> None:
        """Ask for the state until nothing came meanwhile: then what the store says is all there is to know."""
        while topic.look_again:
            topic.look_again, told = False, topic.told
            try:
                event = await self._store.current(mesh_id, now=self._clock.now())
            except StoreUnavailableError:
                self._look_in(_ASK_AGAIN, mesh_id, topic)
                return
            undisturbed = topic.told == told
            topic.look_again = topic.look_again or not undisturbed
            self._spread(topic, event, certain=undisturbed)
