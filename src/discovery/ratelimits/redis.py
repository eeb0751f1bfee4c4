"""The counters in Redis: those of the library `limits`, on the servers that a store's URL names.

Its script for sliding windows goes by the lifetimes of two keys, so replicas' clocks do not matter, and both have one
hash tag, the whole name, so a cluster spreads names over its nodes:

    <prefix>:limits:{address/LookupColony,.../60000/minute/203.0.113.5}      and the same with /-1

They end by themselves, twice the rate's period after the last call at most.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

from limits.aio.storage import RedisClusterStorage, RedisSentinelStorage, RedisStorage
from limits.errors import ConfigurationError, StorageError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from discovery.errors import ConfigError, StoreUnavailableError

T = TypeVar("T")

_URL = re.compile(
    r"(?P<kind>unix|redis)(?P<tls>s?)(?:\+(?P<mode>sentinel|cluster))?://"
    r"(?:(?P<user>[^:@/?]*)(?::(?P<password>[^/?]*))?@)?(?P<hosts>[^@/?]*)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?"
)
_STORAGES = {None: RedisStorage, "sentinel": RedisSentinelStorage, "cluster": RedisClusterStorage}
_PORTS = {None: 6379, "sentinel": 26379, "cluster": 6379}
_PORT = re.compile(r":\d+$")
_YES = {"yes", "true", "1"}
# Of redis-py, for one read or write; who asks has a limit for all of it.
_SOCKET_TIMEOUT = 1.0
# redis-py raises an error when its pool, which has 100, is empty; here callers wait for their turn.
_CONNECTIONS = 32


class RedisWindows:
    """Windows on Redis. It connects when it is first used; Redis may come and go."""

    def __init__(self, url: str, prefix: str) -> None:
        """Count on the servers of a store's `url`, in keys that start with `prefix`.

        Raises:
            ConfigError: the URL cannot work. The message shows nothing of it.
        """
        parts = _URL.fullmatch(url)
        if parts is None:
            raise ConfigError(
                "rate limits need a store's URL as in redis://user:password@host:6379/0"
            )
        try:
            self._storage = _STORAGES[parts["mode"]](
                _uri(parts),
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix=f"{prefix}:limits",
                **_options(parts),
            )
        except (ConfigurationError, ValueError):
            raise ConfigError("rate limits cannot use the store's URL") from None
        self._turns = asyncio.Semaphore(_CONNECTIONS)

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int
    ) -> bool:
        """See Windows."""
        async with self._turns:
            return await _translated(
                self._storage.acquire_sliding_window_entry(key, limit, expiry, amount)
            )

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """See Windows."""
        async with self._turns:
            return await _translated(self._storage.get_sliding_window(key, expiry))

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        for client in (self._client, *self._sentinels):
            await client.aclose()
            # Pools that redis-py was handed it does not close.
            if (pool := getattr(client, "connection_pool", None)) is not None:
                await pool.disconnect()

    @property
    def _client(self) -> Any:  # noqa: ANN401 - redis-py's, of one kind or another
        return self._storage.bridge.get_connection()

    @property
    def _sentinels(self) -> Any:  # noqa: ANN401 - as above
        return getattr(getattr(self._storage.bridge, "sentinel", None), "sentinels", ())


async def _translated(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except (StorageError, OSError) as error:
        cause = getattr(error, "storage_error", error)
        # The text of such errors may name hosts and users.
        raise StoreUnavailableError(f"Redis failed: {type(cause).__name__}") from error


def _uri(parts: re.Match[str]) -> str:
    """Return the URI in the notation of `limits`, without what goes as options: it would take a password as it is."""
    path = parts["path"] or ""
    if parts["kind"] == "unix":
        return f"async+redis+unix://{path}"
    port = _PORTS[parts["mode"]]
    hosts = ",".join(h if _PORT.search(h) else f"{h}:{port}" for h in parts["hosts"].split(","))
    if parts["mode"] is None:
        return f"async+redis{parts['tls']}://{hosts}"
    service = f"/{path.split('/')[1]}" if parts["mode"] == "sentinel" else ""
    return f"async+redis+{parts['mode']}://{hosts}{service}"


def _options(parts: re.Match[str]) -> dict[str, Any]:
    """Return what redis-py's clients are told, however they find their servers."""
    query = dict(parse_qsl(parts["query"] or ""))
    common = {
        "protocol": 2,
        "socket_timeout": _SOCKET_TIMEOUT,
        "socket_connect_timeout": _SOCKET_TIMEOUT,
        # A connection that died while it was idle is made anew.
        "retry": Retry(NoBackoff(), 1),
        **_tls(parts, query),
    }
    login = _login(unquote(parts["user"] or ""), unquote(parts["password"] or ""))
    options = {**common, **login, **_database(parts, query)}
    if parts["mode"] == "sentinel":
        # Named even if there are none, or else it would show the Sentinels the servers' password.
        guides = {"username": None, "password": None}
        guides |= _login(query.get("sentinel_username", ""), query.get("sentinel_password", ""))
        options["sentinel_kwargs"] = {**common, **guides}
    return options


def _login(username: str, password: str) -> dict[str, Any]:
    named = {"username": username, "password": password}
    return {name: value for name, value in named.items() if value}


def _database(parts: re.Match[str], query: dict[str, str]) -> dict[str, int]:
    if parts["mode"] == "cluster":
        return {}
    path = "" if parts["kind"] == "unix" else (parts["path"] or "")
    place = 2 if parts["mode"] == "sentinel" else 1
    named = "".join(path.split("/")[place : place + 1]) or query.get("db", "0")
    return {"db": int(named)}


def _tls(parts: re.Match[str], query: dict[str, str]) -> dict[str, Any]:
    if not parts["tls"]:
        return {}
    files = {name: query[name] for name in query if name in _TLS_FILES}
    check = query.get("ssl_check_hostname", "yes").lower() in _YES
    # The scheme says so to a single server's client, to the others this does.
    switch = {"ssl": True} if parts["mode"] else {}
    return {**switch, **files, "ssl_check_hostname": check}


_TLS_FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
