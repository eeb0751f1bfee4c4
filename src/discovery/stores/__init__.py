"""Where registrations live. `open_store` is the only place that knows which stores there are."""

from __future__ import annotations

from discovery.errors import ConfigError
from discovery.stores.base import RegistryStore
from discovery.stores.memory import MemoryStore


def open_store(url: str) -> RegistryStore:
    """Return the store that `url` names.

    Raises:
        ConfigError: there is no such store.
    """
    if url == "memory":
        return MemoryStore()
    raise ConfigError(f"unknown store {url!r}: use --store memory")
