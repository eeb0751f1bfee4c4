"""The contract of `discovery.stores.base`, which every store keeps; files beside this one go on."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from discovery.errors import MeshIdTakenError, NotOwnerError
from discovery.models import (
    CertificateFingerprint,
    Endpoint,
    Lease,
    PublicEndpoint,
    Registration,
)
from discovery.stores.base import Grant
from tests.stores.rigs import TTL, Rig
from tests.support import KEY, MESH, OTHER_KEY, key, registration

EVERYTHING = registration(
    metadata={"": "an empty key", "name": "Zoë ☂ 🪸", "lines": "a\nb\r\n\0"},
    mesh_ipv4="10.0.0.1",
    mesh_ipv6="fd00::1",
    connect_port=9000,
    public_port=8443,
    observed_endpoint=Endpoint("198.51.100.7", 41820, "udp", via_relay=True),
    public_endpoint=PublicEndpoint(
        enabled=True,
        url="https://colony.example.org:8443",
        ca_cert="-----BEGIN CERTIFICATE-----\n",
        ca_fingerprint=CertificateFingerprint(1, bytes(range(32))),
        updated_at_us=1_699_999_999_123_456,
    ),
)


@pytest.fixture(params=["", "agent-1"], ids=["colony", "agent"])
def agent_id(request: pytest.FixtureRequest) -> str:
    """All of this holds for a colony and for an agent."""
    name: str = request.param
    return name


async def test_a_grant_lasts_for_its_ttl_from_now(store: Rig) -> None:
    grant = await store.register(registration(), ttl=TTL)

    now_us = store.now().unix_us
    wanted = replace(registration(), agent_id=store.agent_id)
    expected = Lease(wanted, grant.lease.revision, now_us, now_us + TTL * 1_000_000)
    assert (grant.lease, grant.renewed) == (expected, False)


async def test_a_lookup_finds_the_lease_that_was_granted(store: Rig) -> None:
    grant = await store.register(registration())

    assert await store.lookup() == grant.lease


@pytest.mark.parametrize("sent", [EVERYTHING, Registration(MESH, KEY)], ids=["full", "bare"])
async def test_every_field_is_kept_as_it_was_sent(store: Rig, sent: Registration) -> None:
    await store.register(sent)

    found = await store.lookup()
    assert found is not None
    assert found.registration == replace(sent, agent_id=store.agent_id)


async def test_a_mesh_that_was_never_registered_is_absent(store: Rig) -> None:
    await store.register(registration())

    assert await store.lookup("mesh-2") is None


async def test_the_case_of_a_mesh_id_matters(store: Rig) -> None:
    await store.register(registration(mesh_id="mesh-a"))

    assert await store.lookup("Mesh-A") is None


async def test_one_key_may_hold_many_meshes(store: Rig) -> None:
    grants = [await store.register(registration(mesh_id=f"mesh-{n}")) for n in range(3)]

    assert [await store.lookup(f"mesh-{n}") for n in range(3)] == [grant.lease for grant in grants]


async def test_only_what_was_granted_is_ever_said_to_be_held(store: Rig) -> None:
    granted = replace(registration(), agent_id=store.agent_id)
    assert not store.store.holds(granted)
    await store.register(granted)

    for other in (
        replace(granted, mesh_id="another-mesh"),
        replace(granted, pubkey=OTHER_KEY),
        replace(granted, endpoints=(*granted.endpoints, "nowhere")),
        replace(granted, metadata={"more": "of it"}),
        replace(granted, agent_id="another-agent"),
    ):
        assert not store.store.holds(other)


async def test_a_renewal_extends_the_lease(store: Rig) -> None:
    await store.register(registration())
    await store.advance(100)

    renewal = await store.register(registration())

    assert renewal.renewed
    assert renewal.lease.last_seen_us == store.now().unix_us
    assert renewal.lease.expires_at_us == store.now().unix_us + TTL * 1_000_000
    assert await store.lookup() == renewal.lease


async def test_repeating_a_registration_changes_nothing(store: Rig) -> None:
    first = await store.register(registration())
    second = await store.register(registration())

    assert (second.lease, second.renewed) == (first.lease, True)
    assert await store.count() == 1


async def test_a_renewal_replaces_all_that_was_registered(store: Rig) -> None:
    await store.register(EVERYTHING)
    bare = Registration(MESH, KEY, endpoints=("192.0.2.9:1",))

    renewal = await store.register(bare)

    assert renewal.renewed
    assert renewal.lease.registration == replace(bare, agent_id=store.agent_id)
    assert await store.lookup() == renewal.lease


async def test_another_key_is_told_when_the_live_lease_ends(store: Rig) -> None:
    await store.register(registration())
    await store.advance(100)
    renewal = await store.register(registration())
    await store.advance(100)

    with pytest.raises(MeshIdTakenError) as refusal:
        await store.register(registration(pubkey=OTHER_KEY))

    assert (refusal.value.mesh_id, refusal.value.agent_id) == (MESH, store.agent_id)
    assert refusal.value.expires_at_us == renewal.lease.expires_at_us


async def test_a_refused_registration_changes_nothing(store: Rig) -> None:
    grant = await store.register(registration())
    await store.advance(TTL - 1)

    with pytest.raises(MeshIdTakenError):
        await store.register(registration(pubkey=OTHER_KEY, endpoints=("192.0.2.9:1",)))

    assert await store.lookup() == grant.lease
    await store.advance(1)
    assert await store.lookup() is None


async def test_a_deregistration_ends_the_lease(store: Rig) -> None:
    await store.register(registration())

    assert await store.deregister() is True
    assert await store.lookup() is None


async def test_a_second_deregistration_finds_nothing(store: Rig) -> None:
    await store.register(registration())
    await store.deregister()

    assert await store.deregister() is False


async def test_deregistering_what_was_never_registered_finds_nothing(store: Rig) -> None:
    assert await store.deregister() is False


async def test_only_the_owner_deregisters(store: Rig) -> None:
    grant = await store.register(registration())

    with pytest.raises(NotOwnerError) as refusal:
        await store.deregister(pubkey=OTHER_KEY)

    assert (refusal.value.mesh_id, refusal.value.agent_id) == (MESH, store.agent_id)
    assert await store.lookup() == grant.lease


async def test_a_deregistration_leaves_other_meshes_alone(store: Rig) -> None:
    await store.register(registration())
    other = await store.register(registration(mesh_id="mesh-2"))

    await store.deregister()

    assert await store.lookup("mesh-2") == other.lease


async def test_another_key_may_register_once_the_owner_left(store: Rig) -> None:
    await store.register(registration())
    await store.deregister()

    grant = await store.register(registration(pubkey=OTHER_KEY))

    assert not grant.renewed
    assert await store.lookup() == grant.lease


async def test_the_count_is_of_live_leases(store: Rig) -> None:
    assert await store.count() == 0
    for number in range(5):
        await store.register(registration(mesh_id=f"mesh-{number}"))
    assert await store.count() == 5
    await store.register(registration(mesh_id="mesh-0"))
    assert await store.count() == 5
    await store.deregister("mesh-0")
    assert await store.count() == 4


async def test_of_a_thousand_keys_at_once_exactly_one_gets_the_mesh(store: Rig) -> None:
    contenders = [registration(pubkey=key(number)) for number in range(1, 1001)]

    answers = await asyncio.gather(
        *(store.register(contender) for contender in contenders), return_exceptions=True
    )

    [grant] = [answer for answer in answers if isinstance(answer, Grant)]
    refusals = [answer for answer in answers if isinstance(answer, MeshIdTakenError)]
    assert len(refusals) == 999
    assert {refusal.expires_at_us for refusal in refusals} == {grant.lease.expires_at_us}
    assert await store.lookup() == grant.lease
    assert await store.count() == 1


async def test_a_mesh_that_changes_hands_never_has_two_owners(store: Rig) -> None:
    owners: set[str] = set()
    terms = 0

    async def hold_for_a_moment(pubkey: str) -> None:
        nonlocal terms
        try:
            await store.register(registration(pubkey=pubkey))
        except MeshIdTakenError:
            return
        terms += 1
        owners.add(pubkey)
        assert owners == {pubkey}
        await asyncio.sleep(0)
        owners.remove(pubkey)
        assert await store.deregister(pubkey=pubkey)

    for _ in range(3):
        await asyncio.gather(*(hold_for_a_moment(key(number)) for number in range(1, 101)))

    assert terms >= 3
    assert await store.count() == 0


async def test_closing_twice_is_closing_once(store: Rig) -> None:
    await store.store.close()
    await store.store.close()
