"""The agents of a mesh as peers of its colony's tunnel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network

from discovery.client import AgentDirectory, Lease, Registration
from discovery.client.state import DirectoryState
from discovery.runners.report import Report
from discovery.runners.waiting import now
from discovery.wireguard import (
    KEEPALIVE,
    PROOF_NAME,
    JoinToken,
    Peer,
    Tunnel,
    mesh_address,
)

_SWEEP = 5.0
"""Seconds between two looks for agents that have been gone for long."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may join a colony's mesh: every agent that registers, or with a token who proves to know it."""

    mesh_id: str
    pubkey: str
    """The colony's."""
    token: JoinToken | None = None

    def admits(self, agent: Registration) -> bool:
        """Return whether this agent may join."""
        if agent.pubkey == self.pubkey:
            return False
        if self.token is None:
            return True
        return self.token.verify(agent.agent_id, agent.pubkey, agent.metadata.get(PROOF_NAME, ""))

    def peer(self, agent: Registration) -> Peer:
        """Return an agent as a peer: with its one address in the mesh, and no endpoint, because it calls us."""
        psk = self.token.preshared_key(self.pubkey, agent.pubkey) if self.token else None
        return Peer(
            agent.pubkey,
            allowed_ips=(IPv6Network(mesh_address(self.mesh_id, agent.pubkey)),),
            preshared_key=psk,
            keepalive=KEEPALIVE,
        )


class Peering:
    """Adds agents as they register, and removes those that have been gone for long.

    An agent that is gone keeps its connection for a grace: discovery may only have lost its memory, and then it is
    back within a heartbeat. While discovery is away nobody goes.
    """

    def __init__(
        self,
        directory: AgentDirectory,
        tunnel: Tunnel,
        admission: Admission,
        report: Report,
        grace: Callable[[], float],
    ) -> None:
        """Keep the peers of `tunnel` to what `directory` says; `grace` is how many seconds who is gone may stay."""
        self._directory = directory
        self._tunnel = tunnel
        self._admission = admission
        self._report = report
        self._grace = grace
        self._peers: dict[str, str] = {}
        """The agent_id of each peer, by its public key."""
        self._gone: dict[str, float] = {}
        """Since when who is gone is gone, on the event loop's clock."""
        self._turned_away: set[str] = set()
        self._at_work = asyncio.Lock()
        """Who comes back while others are removed is not removed after."""

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            TunnelError: the tunnel is broken.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._sweep())

    async def _follow(self) -> None:
        async for state in self._directory.states():
            async with self._at_work:
                await self._apply(state)

    async def _apply(self, state: DirectoryState) -> None:
        agents = self._admitted(state.agents)
        for pubkey in agents.keys() - self._peers.keys():
            await self._add(agents[pubkey])
        since = now()
        self._gone = {
            pubkey: self._gone.get(pubkey, since)
            for pubkey in self._peers.keys() - agents.keys()
            if state.synced
        }

    def _admitted(self, agents: Mapping[str, Lease]) -> Mapping[str, Registration]:
        """Return those that may join, by their public key."""
        admitted: dict[str, Registration] = {}
        others: dict[str, Registration] = {}
        for lease in agents.values():
            agent = lease.registration
            known = agent.pubkey in self._peers or self._admission.admits(agent)
            (admitted if known else others)[agent.pubkey] = agent
        self._turn_away(others)
        return admitted

    def _turn_away(self, others: Mapping[str, Registration]) -> None:
        for pubkey in others.keys() - self._turned_away:
            agent_id = others[pubkey].agent_id
            text = f"agent {agent_id} is not admitted: it does not know the join token"
            self._report.warn("agent-refused", text, agent_id=agent_id, pubkey=pubkey)
        self._turned_away = set(others)

    async def _add(self, agent: Registration) -> None:
        peer = self._admission.peer(agent)
        await self._tunnel.set_peer(peer)
        self._peers[agent.pubkey] = agent.agent_id
        address = mesh_address(agent.mesh_id, agent.pubkey)
        text = f"Agent {agent.agent_id} joined as {address}"
        self._report.say("agent-joined", text, agent_id=agent.agent_id, address=str(address))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            async with self._at_work:
                long_ago = now() - self._grace()
                for pubkey in [key for key, since in self._gone.items() if since <= long_ago]:
                    await self._remove(pubkey)

    async def _remove(self, pubkey: str) -> None:
        await self._tunnel.remove_peer(pubkey)
        agent_id = self._peers.pop(pubkey)
        del self._gone[pubkey]
        self._report.say("agent-left", f"Agent {agent_id} left", agent_id=agent_id)
