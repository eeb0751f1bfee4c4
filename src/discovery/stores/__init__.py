"""Where registrations live. `open_store` is the only place that knows which stores there are."""

from __future__ import annotations

import re

from discovery.errors import ConfigError
from discovery.stores.base import RegistryStore
from discovery.stores.memory import MemoryStore

DEFAULT_PREFIX = "coral"


def open_store(url: str, *, prefix: str = DEFAULT_PREFIX) -> RegistryStore:
    """Return the store that `url` names. It need not be reachable yet. `prefix` starts the names of its keys in Redis.

    Raises:
        ConfigError: there is no such store, or the URL or the prefix cannot work.
    """
    if never_waits(url):
        return MemoryStore()
    if url.startswith(("redis", "unix:")):
        from discovery.stores.redis import open_redis

        return open_redis(url, prefix)
    raise ConfigError(
        f"unknown store {public_name(url)!r}: use --store memory, redis://host:6379/0, rediss://, unix://,"
        " redis+sentinel:// or redis+cluster://"
    )


def never_waits(url: str) -> bool:
    """Return whether the store that `url` names answers without waiting for anything."""
    return url == "memory"


def public_name(url: str) -> str:
    """Return `url` without user, password and options: this may be shown and logged."""
    return re.sub(r"//.*@", "//", url).partition("?")[0]
