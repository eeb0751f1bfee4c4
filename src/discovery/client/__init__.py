"""The client library, for colonies, agents and other people's programs.

    async with DiscoveryClient("https://discovery.example.com") as client:
        lease = await client.lookup_colony("my-app-prod")
        print(lease.registration.endpoints)

Every error is a `discovery.errors.DiscoveryError`.
"""

from discovery.client.client import DiscoveryClient
from discovery.models import HealthReport, Lease, Registered, Registration, WatchEvent

__all__ = ["DiscoveryClient", "HealthReport", "Lease", "Registered", "Registration", "WatchEvent"]
