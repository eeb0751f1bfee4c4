"""The guards that the settings ask for, and what they stand on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from discovery.auth import KeysFile
from discovery.clock import Clock
from discovery.config import ServerSettings
from discovery.errors import ConfigError
from discovery.guards import (
    AddressLimits,
    AdminGuard,
    KeyGuard,
    MisplacedKeys,
    NameLimits,
    ProofGuard,
)
from discovery.models import Terms, is_this_machine
from discovery.proof import (
    MemorySeenNonces,
    Nonce,
    SeenNonces,
    ServerKeys,
    Verifier,
    load_server_keys,
)
from discovery.ratelimits import Limiter, MemoryMeter, RateLimiter, parse_rules
from discovery.reloading import Reload
from discovery.stores.base import OnceStore
from discovery.transport.pipeline import Guard

Close = Callable[[], Awaitable[None]]


class Gatekeeper:
    """Makes the guards of a server, and closes what they have opened."""

    def __init__(
        self,
        settings: ServerSettings,
        shared: OnceStore | None,
        clock: Clock,
        log: FilteringBoundLogger,
        undecided: Callable[[], None],
    ) -> None:
        """`shared` is what replicas share, if they share anything; `undecided` counts calls without their limits.

        Raises:
            ConfigError: a setting cannot work.
        """
        self._settings = settings
        self._shared = shared
        self._clock = clock
        self._log = log
        self._undecided = undecided
        self._closers: list[Close] = []
        self._reloads: dict[str, Reload] = {}
        self._keys = self._open_keys()
        self.guards: Sequence[Guard] = self._make_guards()
        """Those of the public port."""

    def admin_guards(self, *, trusted: bool) -> Sequence[Guard]:
        """Return those of the admin API; it is `trusted` to be asked only by who may.

        Raises:
            ConfigError: it is not, and there are no API keys.
        """
        if trusted:
            return ()
        if self._keys is None:
            raise ConfigError(
                "admin-listen beyond this machine needs auth keys, and a key with the role admin"
            )
        return (AdminGuard(self._keys, self._clock),)

    def terms(self) -> Terms:
        """Return on what terms leases are granted."""
        settings = self._settings
        return Terms(
            reserve=settings.reserve_seconds,
            most_of_owner=settings.quota_meshes_per_key,
            most_agents=settings.quota_agents_per_mesh,
            most_in_all=settings.quota_registrations,
        )

    def reloads(self) -> Mapping[str, Reload]:
        """Return what can be read again while the server runs."""
        return self._reloads

    async def close(self) -> None:
        """Let go of connections."""
        for close in self._closers:
            await close()

    def _open_keys(self) -> KeysFile | None:
        file = self._settings.keys_file
        if file is None:
            return None
        keys = KeysFile(file, self._log, self._clock)
        self._reloads["API keys"] = keys.reload
        return keys

    def _make_guards(self) -> Sequence[Guard]:
        limiter = self._make_limiter()
        first, last = ([AddressLimits(limiter)], [NameLimits(limiter)]) if limiter else ([], [])
        guards: list[Guard] = [*first, MisplacedKeys()]
        if self._keys is not None:
            guards.append(KeyGuard(self._keys, self._clock))
        if self._settings.ownership == "proof":
            guards.append(ProofGuard(self._make_verifier()))
        return (*guards, *last)

    def _make_limiter(self) -> Limiter | None:
        settings, clock = self._settings, self._clock
        rules = parse_rules(settings.rate_limit)
        if not rules:
            return None
        own = RateLimiter(rules, lambda rule: MemoryMeter(rule.rate, clock))
        if self._shared is None:
            return own
        # What it takes to share is slow to import, and most servers do not.
        from discovery.ratelimits.circuit import Circuit
        from discovery.ratelimits.redis import RedisWindows
        from discovery.ratelimits.shared import SharedMeter
        from discovery.ratelimits.tolerant import TolerantLimiter

        windows = RedisWindows(settings.store, settings.redis_prefix)
        self._closers.append(windows.close)
        circuit = Circuit(windows, clock, self._log)
        shared = RateLimiter(rules, lambda rule: SharedMeter(rule, circuit, clock))
        instead = own if settings.rate_limit_fault == "open" else None
        return TolerantLimiter(shared, instead, self._undecided)

    def _make_verifier(self) -> Callable[[], Awaitable[Verifier]]:
        """Return what provides the verifier. Replicas share the key that the first of them has made."""
        clock, shared, file = self._clock, self._shared, self._settings.proof_keys
        seen = MemorySeenNonces(clock) if shared is None else SharedNonces(shared)
        if file is not None:
            given = FileVerifier(file, seen, clock)
            self._reloads["proof keys"] = given.reload
            return given.get
        if shared is None:
            return _always(Verifier(ServerKeys.generate(), seen, clock))
        return SharedVerifier(shared, clock).get


class FileVerifier:
    """The verifier of a server whose keys are in a file."""

    def __init__(self, file: Path, seen: SeenNonces, clock: Clock) -> None:
        """Read the file.

        Raises:
            ConfigError: it holds no keys.
        """
        self._file = file
        self._seen = seen
        self._clock = clock
        self._take(load_server_keys(file))

    async def get(self) -> Verifier:
        """Return the verifier."""
        return self._verifier

    def reload(self) -> bool:
        """Read the file again; return whether its keys are others. Challenges of keys that are gone are good no more.

        Raises:
            ConfigError: it holds no keys. The old ones stay.
        """
        before = self._keys.to_text()
        self._take(load_server_keys(self._file))
        return self._keys.to_text() != before

    def _take(self, keys: ServerKeys) -> None:
        self._keys = keys
        self._verifier = Verifier(keys, self._seen, self._clock)


class SharedVerifier:
    """The verifier of servers that share a store: their keys, which the first of them has made, and used nonces."""

    def __init__(self, shared: OnceStore, clock: Clock) -> None:
        self._shared = shared
        self._clock = clock
        self._verifier: Verifier | None = None
        # Now and not at the first proof: it takes what is slow to import.
        self._made = ServerKeys.generate()

    async def get(self) -> Verifier:
        """Return the verifier.

        Raises:
            StoreUnavailableError: the keys cannot be read now.
        """
        if self._verifier is None:
            keys = await self._shared_keys()
            self._verifier = Verifier(keys, SharedNonces(self._shared), self._clock)
        return self._verifier

    async def _shared_keys(self) -> ServerKeys:
        found = await self._shared.once("proof-keys", self._made.to_text())
        return self._made if found is None else ServerKeys.from_text(found)


class SharedNonces:
    """The SeenNonces of servers that share a store."""

    def __init__(self, shared: OnceStore) -> None:
        self._shared = shared

    async def use(self, nonce: Nonce) -> bool:
        """See SeenNonces."""
        name = f"nonce:{nonce.value.hex()}"
        return await self._shared.once(name, "1", until_ms=nonce.keep_until_ms) is None


def dangers(settings: ServerSettings) -> Sequence[str]:
    """Return what strangers can do where the public port listens: nothing, if only this machine can reach it."""
    if is_this_machine(settings.host):
        return ()
    found = []
    if settings.tls_cert is None:
        found.append("listen in to calls (--tls-cert)")
    if settings.auth == "off" and settings.tls_client_ca is None:
        found.append("register, look up and watch (--auth keys)")
    return found


def _always(verifier: Verifier) -> Callable[[], Awaitable[Verifier]]:
    async def get() -> Verifier:
        return verifier

    return get
