"""The client library, for colonies, agents and other people's programs.

    async with DiscoveryClient("https://discovery.example.com") as client:
        lease = await client.lookup_colony("my-app-prod")
        print(lease.registration.endpoints)

Every error is a `discovery.errors.DiscoveryError`.

A call is one call. What goes on in the background is done by `ColonyRegistrar` and `AgentRegistrar`, which keep a
registration alive, `ColonyResolver`, which knows where a colony is, and `AgentDirectory`, which knows a mesh's agents.
"""

from discovery.client.client import DiscoveryClient
from discovery.client.directory import AgentDirectory
from discovery.client.pacing import Pacing
from discovery.client.registrar import AgentRegistrar, ColonyRegistrar
from discovery.client.resolver import ColonyResolver
from discovery.client.state import (
    DirectoryPhase,
    DirectoryState,
    RegistrarPhase,
    RegistrarState,
    ResolverPhase,
    ResolverState,
)
from discovery.client.targets import tls_context
from discovery.models import HealthReport, Lease, Registered, Registration, Synced, WatchEvent

__all__ = [
    "AgentDirectory",
    "AgentRegistrar",
    "ColonyRegistrar",
    "ColonyResolver",
    "DirectoryPhase",
    "DirectoryState",
    "DiscoveryClient",
    "HealthReport",
    "Lease",
    "Pacing",
    "Registered",
    "RegistrarPhase",
    "RegistrarState",
    "Registration",
    "ResolverPhase",
    "ResolverState",
    "Synced",
    "WatchEvent",
    "tls_context",
]
