"""Knowing the agents of a mesh: for a colony that accepts them as peers, and for agents that look for each other.

async with AgentDirectory(client, "my-app-prod") as directory:
    async for state in directory.states():
        for agent_id, lease in state.agents.items():
            print(agent_id, lease.registration.pubkey)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Protocol

from discovery.client.pacing import Pacing
from discovery.client.sound import require_agent
from discovery.client.state import DirectoryPhase, DirectoryState
from discovery.client.watching import keep_watching
from discovery.client.worker import Worker
from discovery.errors import DiscoveryError, MalformedMessageError
from discovery.models import Lease, Synced, WatchEvent


class DirectoryCalls(Protocol):
    """What a directory needs of a `DiscoveryClient`."""

    def watch_agents(
        self, mesh_id: str, after_revision: int, /
    ) -> AsyncGenerator[WatchEvent | Synced]:
        """Yield the state of each agent, then `Synced`, then each change."""
        ...


class AgentDirectory(Worker[DirectoryState]):
    """Follows the agents of one mesh while its `async with` block runs.

    An agent is there from when discovery says so until discovery says otherwise: while discovery is away, nobody goes.
    What a new watch begins with counts once it is complete. Agents whose registration is not valid are left out.
    """

    def __init__(
        self,
        client: DirectoryCalls,
        mesh_id: str,
        *,
        refused_pause: float = 300.0,
        pacing: Pacing | None = None,
    ) -> None:
        """Prepare to follow the agents of `mesh_id`.

        A server that refuses, perhaps as it does not know agents yet, is asked again after `refused_pause` seconds.
        """
        pacing = pacing or Pacing()
        super().__init__(DirectoryState(DirectoryPhase.UNKNOWN, pacing.clock.now().unix_us), pacing)
        self._client = client
        self._mesh_id = mesh_id
        self._refused_pause = refused_pause
        self._revision = 0
        self._begun: dict[str, Lease] = {}

    @property
    def agents(self) -> Mapping[str, Lease]:
        """The agents by their agent_id, as last known."""
        return self.state.agents

    @property
    def synced(self) -> bool:
        """Whether these are all, as far as discovery knows."""
        return self.state.synced

    async def _run(self) -> None:
        await keep_watching(
            self._watch,
            self._take,
            self._lost,
            pacing=self._pacing,
            refused_pause=self._refused_pause,
        )

    def _watch(self) -> AsyncGenerator[WatchEvent | Synced]:
        self._begun = {}
        return self._client.watch_agents(self._mesh_id, self._revision)

    def _take(self, event: WatchEvent | Synced) -> None:
        if isinstance(event, Synced):
            self._complete(event)
        elif self.synced:
            agents = dict(self.agents)
            self._apply(event, agents)
            self._revision = max(self._revision, event.revision)
            self._show(MappingProxyType(agents))
        else:
            self._apply(event, self._begun)

    def _complete(self, synced: Synced) -> None:
        """End the beginning of a watch. If it is at the revision asked for, it named nobody, and nobody has gone."""
        unchanged = synced.revision == self._revision and not self._begun
        # Not the greater of both: a server that lost its memory may count from anywhere.
        self._revision = synced.revision
        self._show(self.agents if unchanged else MappingProxyType(self._begun))

    def _apply(self, event: WatchEvent, agents: dict[str, Lease]) -> None:
        agents.pop(event.agent_id, None)
        if event.lease is not None:
            with suppress(MalformedMessageError):
                require_agent(event.lease, self._mesh_id, event.agent_id)
                agents[event.agent_id] = event.lease

    def _show(self, agents: Mapping[str, Lease]) -> None:
        self._become(DirectoryPhase.CURRENT, error=None, agents=agents)

    def _lost(self, error: DiscoveryError) -> None:
        unknown = self.state.phase is DirectoryPhase.UNKNOWN
        self._become(DirectoryPhase.UNKNOWN if unknown else DirectoryPhase.STALE, error=error)
