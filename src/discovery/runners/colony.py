"""`coral colony start`: a colony's end of the tunnel, registered for as long as it runs."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from discovery.client import (
    AgentDirectory,
    ColonyRegistrar,
    DiscoveryClient,
    Registered,
    Registration,
)
from discovery.runners import place
from discovery.runners.failures import giving_up
from discovery.runners.peering import Admission, Peering
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
    with_port,
)
from discovery.runners.settings import WIREGUARD_PORT, CoralSettings
from discovery.wireguard import (
    KeyPair,
    PermissionNeededError,
    ProgramMissingError,
    Tunnel,
    mesh_address,
)

_LEASE = 300.0
"""Seconds that an agent that is gone keeps its connection, before the server said how long a lease is."""


async def run_colony(settings: CoralSettings, report: Report) -> None:
    """Run a colony until cancelled; then it leaves, and its tunnel ends.

    Raises:
        ConfigError: a setting cannot work.
        GivenUpError: the tunnel cannot be made, or is lost. Discovery is never a reason.
    """
    keys = load_keys(settings, place.colony_key(settings.mesh_id))
    async with make_client(settings, keys) as client:
        colony = Colony(settings, report, keys, client, tunnel_maker(settings))
        with giving_up():
            await colony.run()


class Colony:
    """One colony, as its settings say."""

    def __init__(
        self,
        settings: CoralSettings,
        report: Report,
        keys: KeyPair,
        client: DiscoveryClient,
        make_tunnel: MakeTunnel | None,
    ) -> None:
        """Prepare to run, with the colony's `keys`.

        Raises:
            ConfigError: a setting cannot work.
        """
        self._settings = settings
        self._report = report
        self._client = client
        self._make_tunnel = make_tunnel
        self._keys = keys
        self._address = str(mesh_address(settings.mesh_id, self._keys.public_key))
        self._admission = Admission(settings.mesh_id, self._keys.public_key, load_token(settings))

    async def run(self) -> None:
        """Run until cancelled.

        Raises:
            TunnelError: the tunnel cannot be made, or is lost; within an ExceptionGroup.
        """
        async with AsyncExitStack() as stack:
            tunnel = await self._open_tunnel(stack)
            self._report.say(
                "started",
                "Colony started",
                mesh_id=self._settings.mesh_id,
                pubkey=self._keys.public_key,
                address=self._address,
                tunnel=tunnel is not None,
            )
            presence = self._presence(tunnel)
            registrar = await stack.enter_async_context(
                ColonyRegistrar(
                    self._client,
                    presence.registration(),
                    interval=self._settings.discovery.register_interval,
                )
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(presence.follow(self._client.reconnect, registrar.update))
                tasks.create_task(self._tell(registrar, presence))
                if tunnel is not None:
                    tasks.create_task(until_lost(tunnel))
                    tasks.create_task(self._accept_agents(tunnel, registrar))

    async def _open_tunnel(self, stack: AsyncExitStack) -> Tunnel | None:
        """Open the tunnel, if there is to be one. Where it is only wished for, registering alone is of use too."""
        if self._make_tunnel is None:
            return None
        tunnel = self._make_tunnel(
            tunnel_settings(self._settings, "colony", self._keys, WIREGUARD_PORT)
        )
        stack.push_async_callback(tunnel.close)
        try:
            await tunnel.open()
        except (PermissionNeededError, ProgramMissingError) as error:
            if self._settings.wireguard.backend != "auto":
                raise
            text = f"no tunnel, only the registration: {error}"
            self._report.warn("no-tunnel", text)
            return None
        return tunnel

    def _presence(self, tunnel: Tunnel | None) -> Presence:
        port = self._settings.wireguard.port or WIREGUARD_PORT if tunnel is None else tunnel.port
        given = [with_port(endpoint, port) for endpoint in self._settings.colony.endpoint]
        return Presence(port, given, self._registration, self._address)

    def _registration(self, endpoints: tuple[str, ...]) -> Registration:
        return Registration(
            mesh_id=self._settings.mesh_id,
            pubkey=self._keys.public_key,
            endpoints=endpoints,
            mesh_ipv6=self._address,
        )

    async def _tell(self, registrar: ColonyRegistrar, presence: Presence) -> None:
        first = True

        def announce(registered: Registered) -> None:
            nonlocal first
            self._announce(registered, presence.endpoints, first=first)
            first = False

        await follow_registration(registrar, presence, self._report, announce)

    def _announce(self, registered: Registered, endpoints: tuple[str, ...], *, first: bool) -> None:
        listed = f"Endpoints: [{', '.join(endpoints)}]"
        text = (
            "Registered with discovery service via gRPC\n"
            f"Mesh ID: {self._settings.mesh_id}\n"
            f"{listed}"
        )
        self._report.say(
            "registered" if first else "endpoints-changed",
            text if first else listed,
            mesh_id=self._settings.mesh_id,
            endpoints=endpoints,
            ttl=registered.ttl,
        )

    async def _accept_agents(self, tunnel: Tunnel, registrar: ColonyRegistrar) -> None:
        if not (self._settings.colony.accept_agents or self._admission.token):
            return

        def grace() -> float:
            registered = registrar.state.registered
            return _LEASE if registered is None else registered.ttl

        async with AgentDirectory(self._client, self._settings.mesh_id) as directory:
            peering = Peering(directory, tunnel, self._admission, self._report, grace)
            await peering.run()
