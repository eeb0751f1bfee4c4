"""What each call means, on a store and a clock of the test's."""

from __future__ import annotations

import pytest

from discovery.errors import InvalidFieldError, MeshIdTakenError, NotOwnerError, NotRegisteredError
from discovery.models import Endpoint, HealthReport, Registered
from discovery.service import DiscoveryService
from discovery.stores.memory import MemoryStore
from tests.support import KEY, MESH, OTHER_KEY, ManualClock, registration

CALLER = "203.0.113.5"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def service(clock: ManualClock) -> DiscoveryService:
    return DiscoveryService(MemoryStore(), clock, ttl=300, version="1.2.3", spread=lambda: 0.0)


async def test_a_colony_is_told_of_its_lease(service: DiscoveryService, clock: ManualClock) -> None:
    registered = await service.register_colony(registration(), CALLER)

    assert registered == Registered(
        revision=registered.revision,
        ttl=300,
        expires_at_us=clock.now().unix_us + 300_000_000,
        refresh_after=54,
        observed_endpoint=Endpoint(CALLER, 0, "tcp"),
    )


async def test_a_caller_without_an_address_is_told_none(service: DiscoveryService) -> None:
    registered = await service.register_colony(registration(), None)

    assert registered.observed_endpoint is None


async def test_the_address_a_call_came_from_is_not_given_to_agents(
    service: DiscoveryService,
) -> None:
    await service.register_colony(registration(), CALLER)

    lease = (await service.lookup_colony(MESH)).lease
    assert lease.registration == registration()
    assert lease.registration.observed_endpoint is None


async def test_a_lookup_finds_what_was_registered_until_it_ends(
    service: DiscoveryService, clock: ManualClock
) -> None:
    registered = await service.register_colony(registration(), CALLER)
    clock.advance(299.999999)
    lease = (await service.lookup_colony(MESH)).lease
    assert (lease.revision, lease.expires_at_us) == (registered.revision, registered.expires_at_us)
    clock.advance(0.000001)

    with pytest.raises(NotRegisteredError) as error:
        await service.lookup_colony(MESH)
    assert error.value.mesh_id == MESH


@pytest.mark.parametrize("times", [1, 2])
async def test_what_is_held_of_a_colony_makes_no_agent_without_an_id(
    service: DiscoveryService, times: int
) -> None:
    for _ in range(times):
        await service.register_colony(registration(), CALLER)

    with pytest.raises(InvalidFieldError) as error:
        await service.register_agent(registration(), CALLER)
    assert [violation.field for violation in error.value.violations] == ["agent_id"]


async def test_what_breaks_the_rules_is_refused_each_time_and_beside_what_is_held(
    service: DiscoveryService,
) -> None:
    await service.register_colony(registration(), CALLER)

    for _ in range(2):
        with pytest.raises(InvalidFieldError):
            await service.register_colony(registration(endpoints=("nowhere",)), CALLER)
    assert (await service.lookup_colony(MESH)).lease.registration == registration()


async def test_another_key_is_refused(service: DiscoveryService) -> None:
    registered = await service.register_colony(registration(), CALLER)

    with pytest.raises(MeshIdTakenError) as error:
        await service.register_colony(registration(pubkey=OTHER_KEY), CALLER)
    assert error.value.expires_at_us == registered.expires_at_us


async def test_only_the_owner_leaves_and_only_once(service: DiscoveryService) -> None:
    await service.register_colony(registration(), CALLER)

    with pytest.raises(NotOwnerError):
        await service.deregister_colony(MESH, OTHER_KEY)
    assert await service.deregister_colony(MESH, KEY) is True
    assert await service.deregister_colony(MESH, KEY) is False


async def test_what_breaks_a_rule_is_refused_and_changes_nothing(
    service: DiscoveryService,
) -> None:
    with pytest.raises(InvalidFieldError) as error:
        await service.register_colony(registration(pubkey="x", public_port=70_000), CALLER)

    assert [violation.field for violation in error.value.violations] == ["pubkey", "public_port"]
    assert (await service.health()).registered_colonies == 0


async def test_a_lookup_has_its_mesh_id_checked(service: DiscoveryService) -> None:
    with pytest.raises(InvalidFieldError) as error:
        await service.lookup_colony(".")

    assert [violation.field for violation in error.value.violations] == ["mesh_id"]


async def test_a_deregistration_has_all_of_it_checked(service: DiscoveryService) -> None:
    with pytest.raises(InvalidFieldError) as error:
        await service.deregister_colony("", "")

    assert [violation.field for violation in error.value.violations] == ["mesh_id", "pubkey"]


async def test_health_counts_live_leases_and_whole_seconds_of_uptime(
    service: DiscoveryService, clock: ManualClock
) -> None:
    await service.register_colony(registration(), CALLER)
    await service.register_colony(registration(mesh_id="mesh-2"), CALLER)
    clock.step_wall(86_400)
    clock.advance(61.9)
    assert await service.health() == HealthReport("ok", "1.2.3", 61, 2)
    clock.advance(238.1)

    assert await service.health() == HealthReport("ok", "1.2.3", 300, 0)
