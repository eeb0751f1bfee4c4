"""`coral connect`: an agent finds its colony, connects, and stays connected and registered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from discovery.client import (
    AgentRegistrar,
    ColonyResolver,
    DiscoveryClient,
    Registered,
    Registration,
)
from discovery.client.state import RegistrarPhase
from discovery.errors import ConfigError
from discovery.models import NO_METADATA
from discovery.runners import place
from discovery.runners.connection import Connection
from discovery.runners.dialing import Dialer
from discovery.runners.failures import ExitCode, GivenUpError, giving_up
from discovery.runners.presence import Presence
from discovery.runners.registering import follow_registration
from discovery.runners.report import Report
from discovery.runners.setting_up import (
    MakeTunnel,
    load_keys,
    load_token,
    make_client,
    tunnel_maker,
    tunnel_settings,
    until_lost,
)
from discovery.runners.settings import WIREGUARD_PORT, CoralSettings
from discovery.runners.whereabouts import (
    DiscoveredColony,
    Finder,
    GivenColony,
    Whereabouts,
    noticing_changes,
)
from discovery.settings import parse_duration
from discovery.validation import check_id, check_registration
from discovery.wireguard import (
    KEEPALIVE,
    PROOF_NAME,
    JoinToken,
    KeyPair,
    Peer,
    Tunnel,
    mesh_address,
    mesh_prefix,
    wg_quick_config,
)

_REGISTRATION_PATIENCE = 2.0
"""Seconds that a first handshake waits for the agent to be registered: a colony knows it from there."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the user wants of one `coral connect`."""

    agent_id: str
    timeout: float
    """Seconds to be connected within."""
    once: bool = False
    """Whether to leave once connected."""
    colony: Whereabouts | None = None
    """Where the colony is, if discovery shall not be asked."""


def make_plan(
    agent_id: str,
    timeout: str,
    *,
    once: bool = False,
    endpoints: Sequence[str] = (),
    pubkey: str | None = None,
) -> Plan:
    """Return the plan that the user's words mean.

    `endpoints` and `pubkey` are the colony's, if discovery shall not be asked.

    Raises:
        ConfigError: a word cannot be used.
    """
    problems = [f"NAME {problem}" for _, problem in check_id("agent_id", agent_id)]
    if bool(endpoints) != bool(pubkey):
        problems.append("--colony-endpoint and --colony-pubkey go together: give both, or neither")
    elif pubkey:
        given = Registration(mesh_id="given", pubkey=pubkey, endpoints=tuple(endpoints))
        problems += [
            f"--colony-{'pubkey' if field == 'pubkey' else 'endpoint'} {text}"
            for field, text in check_registration(given)
        ]
    try:
        seconds = parse_duration(timeout)
    except ValueError as error:
        problems.append(f"--timeout {error}")
    if problems:
        raise ConfigError("; ".join(problems))
    colony = Whereabouts(pubkey, tuple(endpoints)) if pubkey else None
    return Plan(agent_id, seconds, once, colony)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an agent is."""

    mesh_id: str
    agent_id: str
    keys: KeyPair
    token: JoinToken | None = None

    @property
    def address(self) -> str:
        """The agent's address in the mesh."""
        return str(mesh_address(self.mesh_id, self.keys.public_key))

    def registration(self, endpoints: tuple[str, ...]) -> Registration:
        """Return what the agent says of itself, and proves if it knows the join token."""
        pubkey = self.keys.public_key
        proof = {PROOF_NAME: self.token.proof(self.agent_id, pubkey)} if self.token else NO_METADATA
        return Registration(
            mesh_id=self.mesh_id,
            agent_id=self.agent_id,
            pubkey=pubkey,
            endpoints=endpoints,
            metadata=proof,
            mesh_ipv6=self.address,
        )

    def colony(self, pubkey: str, endpoint: str) -> Peer:
        """Return the colony as a peer: the hub, through which the whole mesh is reached."""
        own = self.keys.public_key
        return Peer(
            pubkey,
            allowed_ips=(mesh_prefix(self.mesh_id),),
            endpoint=endpoint,
            preshared_key=self.token.preshared_key(pubkey, own) if self.token else None,
            keepalive=KEEPALIVE,
        )


async def run_agent(settings: CoralSettings, plan: Plan, report: Report) -> None:
    """Connect an agent to its colony and keep it so until cancelled; then it leaves, and its tunnel ends.

    Raises:
        ConfigError: a setting cannot work.
        GivenUpError: it is not connected within the plan's time, or cannot be.
    """
    keys = _load_keys(settings, plan)
    async with make_client(settings, keys) as client:
        agent = Agent(settings, plan, report, keys, client, tunnel_maker(settings))
        with giving_up():
            await agent.run()


async def find_config(settings: CoralSettings, plan: Plan, report: Report) -> str:
    """Return the file for `wg-quick` that connects this agent to its colony.

    Raises:
        ConfigError: a setting cannot work.
        GivenUpError: the colony is not found within the plan's time.
    """
    keys = _load_keys(settings, plan)
    async with make_client(settings, keys) as client:
        return await Agent(settings, plan, report, keys, client, None).config()


def _load_keys(settings: CoralSettings, plan: Plan) -> KeyPair:
    return load_keys(settings, place.agent_key(settings.mesh_id, plan.agent_id))


class Agent:
    """One agent, as its settings and its plan say."""

    def __init__(
        self,
        settings: CoralSettings,
        plan: Plan,
        report: Report,
        keys: KeyPair,
        client: DiscoveryClient,
        make_tunnel: MakeTunnel | None,
    ) -> None:
        """Prepare to run, with the agent's `keys`.

        Raises:
            ConfigError: a setting cannot work.
        """
        self._identity = Identity(settings.mesh_id, plan.agent_id, keys, load_token(settings))
        self._settings = settings
        self._plan = plan
        self._report = report
        self._client = client
        self._make_tunnel = make_tunnel

    async def config(self) -> str:
        """Return the file for `wg-quick`; see `find_config`."""
        async with self._finding() as (finder, _):
            where = await self._find(finder, self._deadline())
        own = tunnel_settings(self._settings, "agent", self._identity.keys, port=0)
        return wg_quick_config(own, [self._identity.colony(where.pubkey, where.endpoints[0])])

    async def run(self) -> None:
        """Run until cancelled, or once connected if that is the plan.

        Raises:
            GivenUpError: see `run_agent`.
            TunnelError: the tunnel cannot be made, or is lost; then perhaps within an ExceptionGroup.
        """
        deadline = self._deadline()
        async with AsyncExitStack() as stack:
            finder, news = await stack.enter_async_context(self._finding())
            await self._find(finder, deadline)
            tunnel = await self._open_tunnel(stack)
            presence = self._presence(tunnel)
            registrar = await stack.enter_async_context(self._registrar(presence))
            async with asyncio.TaskGroup() as tasks:
                telling = tasks.create_task(self._tell(registrar, presence))
                following = tasks.create_task(
                    presence.follow(self._client.reconnect, registrar.update)
                )
                await _until_heard_of(registrar)
                await self._connect_and_stay(tunnel, finder, news, deadline)
                telling.cancel()
                following.cancel()

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._plan.timeout

    @asynccontextmanager
    async def _finding(self) -> AsyncIterator[tuple[Finder, asyncio.Event]]:
        """Provide what knows where the colony is, and an event that is set when it may know better."""
        if (given := self._plan.colony) is not None:
            yield GivenColony(given), asyncio.Event()
            return
        mesh_id, wanted = self._settings.mesh_id, self._settings.discovery
        resolver = ColonyResolver(
            self._client,
            mesh_id,
            cache_ttl=wanted.cache_ttl,
            lookup_interval=wanted.lookup_interval,
            cache_file=place.known_colony(mesh_id, self._plan.agent_id),
        )
        async with resolver, noticing_changes(resolver) as news:
            yield DiscoveredColony(resolver, self._report), news

    async def _find(self, finder: Finder, deadline: float) -> Whereabouts:
        mesh_id = self._settings.mesh_id
        self._report.say("looking-up", f"Looking up colony {mesh_id}...", mesh_id=mesh_id)
        # Where it is known from before where the colony was, half of the time is left to try there.
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at((now + deadline) / 2 if finder.knows() else deadline):
                where = await finder.find()
        except TimeoutError:
            where = finder.give_up()
        text = f"Found colony at {where.endpoints[0]}"
        self._report.say("found", text, pubkey=where.pubkey, endpoints=where.endpoints)
        return where

    async def _open_tunnel(self, stack: AsyncExitStack) -> Tunnel | None:
        if self._make_tunnel is None:
            return None
        own = tunnel_settings(self._settings, "agent", self._identity.keys, port=0)
        tunnel = self._make_tunnel(own)
        stack.push_async_callback(tunnel.close)
        await tunnel.open()
        return tunnel

    def _presence(self, tunnel: Tunnel | None) -> Presence:
        port = self._settings.wireguard.port or WIREGUARD_PORT if tunnel is None else tunnel.port
        return Presence(port, (), self._identity.registration, self._identity.address)

    def _registrar(self, presence: Presence) -> AgentRegistrar:
        interval = self._settings.discovery.register_interval
        return AgentRegistrar(self._client, presence.registration(), interval=interval)

    async def _tell(self, registrar: AgentRegistrar, presence: Presence) -> None:
        def announce(_registered: Registered) -> None:
            """Nobody waits for that: the connection is what counts."""

        await follow_registration(registrar, presence, self._report, announce)

    async def _connect_and_stay(
        self, tunnel: Tunnel | None, finder: Finder, news: asyncio.Event, deadline: float
    ) -> None:
        if tunnel is None:
            if not self._plan.once:
                await asyncio.Event().wait()
            return
        make_peer, mesh = self._identity.colony, mesh_prefix(self._settings.mesh_id)
        connection = Connection(Dialer(tunnel, make_peer, mesh), finder, news, self._report)
        await self._connect(connection, finder, deadline)
        if not self._plan.once:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(connection.keep())
                tasks.create_task(until_lost(tunnel))

    async def _connect(self, connection: Connection, finder: Finder, deadline: float) -> None:
        self._report.say("connecting", "Connecting...")
        try:
            async with asyncio.timeout_at(deadline):
                endpoint = await connection.connect()
        except TimeoutError:
            tried = ", ".join(finder.latest().endpoints)
            raise GivenUpError(
                f"no answer from {tried} within {self._plan.timeout:g} s: does UDP get there, and does the colony"
                " accept this agent (--accept-agents, and the same --join-token or none)?",
                ExitCode.NO_CONNECTION,
            ) from None
        address = self._identity.address
        self._report.say("connected", "Connected successfully", endpoint=endpoint, address=address)


async def _until_heard_of(registrar: AgentRegistrar) -> None:
    """Wait until discovery knows the agent, if that does not take long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_REGISTRATION_PATIENCE):
            async for state in registrar.states():
                if state.phase is not RegistrarPhase.STARTING:
                    return
