"""What may be observed of the library's background work.

Each state is a value of its own that never changes; the next one is another.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, TypeVar

from discovery.errors import DiscoveryError
from discovery.models import Lease, Registered

P = TypeVar("P")

_NO_AGENTS: Mapping[str, Lease] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class State(Generic[P]):
    """How things are.

    `since_us` is when `phase` began (microseconds, Unix time, by this machine's clock). `error` is what the last
    attempt failed with, None if it did not.
    """

    phase: P
    since_us: int
    error: DiscoveryError | None = None


class RegistrarPhase(enum.Enum):
    """Whether others can find what is registered."""

    STARTING = "starting"
    """Nothing was answered yet."""
    REGISTERED = "registered"
    """There is a lease. If there is an error too, the last renewal failed, and is being tried again meanwhile.

    That a lease has run out is noticed when the next attempt fails.
    """
    RETRYING = "retrying"
    """There is no lease, or it has ended. Registering failed, and is tried again until it succeeds."""
    REFUSED = "refused"
    """The server will not have it, as the error says. Nothing more is tried before `update`."""
    STOPPED = "stopped"
    """The block was left. An error is that of the farewell, or the last before it if there was none to say."""


@dataclass(frozen=True, slots=True)
class RegistrarState(State[RegistrarPhase]):
    """How a registration is.

    `registered` is what the server last granted, None if it never did. Its `expires_at_us` is when the lease ends, by
    the server's clock; it may be over.
    """

    registered: Registered | None = None


class ResolverPhase(enum.Enum):
    """How sure it is where the colony is."""

    UNKNOWN = "unknown"
    """Discovery was not reached yet, and nothing was remembered."""
    CURRENT = "current"
    """Discovery says so."""
    STALE = "stale"
    """It was so when discovery was last reached, perhaps by an earlier run of the program."""
    ABSENT = "absent"
    """Discovery says that no colony is registered, or said so when it was last reached. A lease is the last known."""


@dataclass(frozen=True, slots=True)
class ResolverState(State[ResolverPhase]):
    """What is known of a colony.

    `lease` is the last that was known, and None only if none ever was; its end may be over. `following` tells whether a
    watch is open, so that a change will be known at once. `cache_problem` says why the cache file was not read or
    written, and is empty if all is well.
    """

    lease: Lease | None = None
    following: bool = False
    cache_problem: str = ""


class DirectoryPhase(enum.Enum):
    """How sure it is who the agents are."""

    UNKNOWN = "unknown"
    """They were never heard of, so that an empty directory means nothing."""
    CURRENT = "current"
    """These are all, and a change will be known at once."""
    STALE = "stale"
    """These were all when discovery was last heard; the error says why it is not any more."""


@dataclass(frozen=True, slots=True)
class DirectoryState(State[DirectoryPhase]):
    """The agents of a mesh by their agent_id; the mapping never changes, the next state has another."""

    agents: Mapping[str, Lease] = field(default_factory=lambda: _NO_AGENTS)

    @property
    def synced(self) -> bool:
        """Whether these are all, as far as discovery knows."""
        return self.phase is DirectoryPhase.CURRENT
