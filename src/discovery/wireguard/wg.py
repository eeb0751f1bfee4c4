"""A tunnel made with the programs `wg` and `ip`, over either kind of device."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from discovery.wireguard.addresses import DEVICE_PREFIX
from discovery.wireguard.control import is_served
from discovery.wireguard.devices import Device, remove
from discovery.wireguard.endpoints import resolve_endpoint
from discovery.wireguard.errors import CommandFailedError, PermissionNeededError, TunnelError
from discovery.wireguard.programs import Runner
from discovery.wireguard.tunnel import Peer, PeerStatus, TunnelSettings
from discovery.wireguard.waiting import until

_UP_LIMIT = 10.0
# What WireGuard devices are to `ip`: the kernel's, and wireguard-go's.
_KINDS = {"wireguard", "tun"}


class WgTunnel:
    """The Tunnel of a device that `wg` configures. It can be opened again after it was closed."""

    def __init__(
        self,
        settings: TunnelSettings,
        device: Device,
        runner: Runner,
        served: Callable[[str], bool] = is_served,
    ) -> None:
        self._settings = settings
        self._name = settings.name
        self._device = device
        self._runner = runner
        self._served = served
        self._claim: socket.socket | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The UDP port that it listens on, known once it is open."""
        return self._port

    async def open(self) -> None:
        """Make the device and set it up; see Tunnel.

        Raises:
            PermissionNeededError: this process may not make one.
            ProgramMissingError: what it takes is not installed.
            TunnelError: it cannot be made, or another process has it.
        """
        self._claim = _claim(self._name)
        try:
            await self._clear()
            await self._device.create(self._name)
            await self._set_up()
        except BaseException:
            await self.close()
            raise

    async def _clear(self) -> None:
        """Remove what a killed process of ours left: its device, or a wireguard-go that is ending."""
        if (kind := await self._kind()) is not None:
            if kind not in _KINDS or not self._name.startswith(DEVICE_PREFIX):
                raise TunnelError(
                    f"there is a device {self._name} that is not ours: ip link delete {self._name}"
                )
            await remove(self._runner, self._name)
        await self._until(self._is_free, "another program serves it, in this network or another")

    async def _kind(self) -> str | None:
        """Return what kind of device has our name, None if there is none."""
        links = json.loads(await self._runner.run("ip", "-json", "-details", "link", "show"))
        kinds = (
            link.get("linkinfo", {}).get("info_kind", "unknown")
            for link in links
            if link.get("ifname") == self._name
        )
        return next(kinds, None)

    async def _is_free(self) -> bool:
        return not self._served(self._name)

    async def _set_up(self) -> None:
        await self._add_address()
        mtu = str(self._settings.mtu)
        await self._run("ip", "link", "set", "dev", self._name, "mtu", mtu, "up")
        # A device that is up has a port. Only then is ours asked for, so that `wg` says if another program has it.
        await self._until(self._is_listening, "it does not come up")
        await self._configure()
        await self._is_listening()

    async def _add_address(self) -> None:
        address = str(self._settings.address)
        try:
            await self._run("ip", "address", "add", address, "dev", self._name)
        # We may make devices, or would not be here: EACCES is how older programs say that IPv6 is off.
        except (CommandFailedError, PermissionNeededError) as error:
            if isinstance(error, CommandFailedError) and "disabled" not in error.said:
                raise
            raise TunnelError(
                "mesh addresses need IPv6, which is off here: sysctl net.ipv6.conf.all.disable_ipv6=0"
            ) from None

    async def _configure(self) -> None:
        settings = self._settings
        config = f"[Interface]\nPrivateKey = {settings.keys.private_key}\n"
        port = f"ListenPort = {settings.port}\n" if settings.port else ""
        try:
            await self._run("wg", "setconf", self._name, "/dev/stdin", stdin=config + port)
        except CommandFailedError as error:
            if "in use" not in error.said:
                raise
            raise TunnelError(f"UDP port {settings.port} is in use: choose another") from None

    async def _is_listening(self) -> bool:
        self._port = int(await self._run("wg", "show", self._name, "listen-port"))
        return self._port != 0

    async def set_peer(self, peer: Peer) -> None:
        """Add or change a peer; see Tunnel. The first address of a host name is taken."""
        await self._set(peer)

    async def replace_peer(self, peer: Peer) -> None:
        """Remove a peer and add it anew; see Tunnel."""
        await self._set(peer, "peer", peer.pubkey, "remove")

    async def _set(self, peer: Peer, *before: str) -> None:
        endpoints = [] if peer.endpoint is None else await resolve_endpoint(peer.endpoint)
        words = [*before, "peer", peer.pubkey, *_words(peer, endpoints)]
        # An empty file is how `wg` is told to have no preshared key.
        secret = f"{peer.preshared_key}\n" if peer.preshared_key else ""
        await self._run("wg", "set", self._name, *words, stdin=secret)

    async def remove_peer(self, pubkey: str) -> None:
        """Forget a peer; see Tunnel."""
        await self._run("wg", "set", self._name, "peer", pubkey, "remove")

    async def peers(self) -> Mapping[str, PeerStatus]:
        """Return every peer by its public key."""
        dump = await self._run("wg", "show", self._name, "dump")
        # The first line is the device itself, with its private key.
        return dict(_status(line) for line in dump.splitlines()[1:])

    async def lost(self) -> str:
        """Wait until the device is lost without `close`, and return why; for ever, while all is well."""
        return await self._device.lost()

    async def close(self) -> None:
        """Remove the device and end what serves it; see Tunnel."""
        if self._claim is None:
            return
        try:
            await self._device.destroy()
        finally:
            self._claim.close()
            self._claim = None

    async def _run(self, *argv: str, stdin: str = "") -> str:
        return await self._runner.run(*argv, stdin=stdin)

    async def _until(self, ready: Callable[[], Awaitable[bool]], trouble: str) -> None:
        try:
            await until(ready, _UP_LIMIT)
        except TimeoutError:
            raise TunnelError(f"cannot use the device {self._name}: {trouble}") from None


def _claim(name: str) -> socket.socket:
    """Hold the name, in this network namespace and for as long as this process lives, however it ends."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0coral/device/{name}")
    except OSError:
        claim.close()
        raise TunnelError(f"another process has the device {name}: stop that one first") from None
    return claim


def _words(peer: Peer, endpoints: Sequence[str]) -> Iterator[str]:
    yield from ("preshared-key", "/dev/stdin")
    if endpoints:
        yield from ("endpoint", endpoints[0])
    yield from ("persistent-keepalive", str(peer.keepalive or "off"))
    yield from ("allowed-ips", ",".join(map(str, peer.allowed_ips)))


def _status(line: str) -> tuple[str, PeerStatus]:
    """Read a peer's line of `wg show DEVICE dump`: wg(8)."""
    pubkey, _preshared, endpoint, _allowed, handshake, received, sent, _keepalive = line.split("\t")
    heard_from = None if endpoint == "(none)" else endpoint
    return pubkey, PeerStatus(heard_from, int(handshake) or None, int(received), int(sent))
