"""The protocol, as a client sees it that was made from `proto/` alone (grpcio and protobuf)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from discovery import __version__
from tests.integration.grpcio_client import (
    GrpcioClient,
    Schema,
    failure,
    grpcio_client,
)
from tests.integration.support import LOOPBACK, Running
from tests.support import KEY, MESH, OTHER_KEY, key

Code = grpc.StatusCode

REGISTRATION = {
    "mesh_id": MESH,
    "pubkey": KEY,
    "endpoints": ["203.0.113.42:41820", "[2001:db8::42]:41820", "colony.example.com:41820"],
    "metadata": {"region": "eu-west", "grüße": "süß"},
}
TTL = 300


def changed(**fields: Any) -> dict[str, Any]:
    return {**REGISTRATION, **fields}


def to_datetime(timestamp: Any) -> datetime:
    moment: datetime = timestamp.ToDatetime(UTC)
    return moment


def to_unix_us(timestamp: Any) -> int:
    return int(timestamp.ToMicroseconds())


class TestRegister:
    def test_grants_a_lease(self, grpcio: GrpcioClient, threaded_server: Running) -> None:
        reply = grpcio.call("RegisterColony", **REGISTRATION)
        now_us = threaded_server.clock.now().unix_us
        assert reply.success
        assert reply.ttl == TTL
        assert to_unix_us(reply.expires_at) == now_us + TTL * 1_000_000
        assert reply.revision >= now_us
        assert 54 <= reply.refresh_after <= 66

    def test_says_from_which_address_it_was_called_and_claims_no_port(
        self, grpcio: GrpcioClient
    ) -> None:
        observed = grpcio.call("RegisterColony", **REGISTRATION).observed_endpoint
        assert observed.ip == LOOPBACK
        assert (observed.port, observed.via_relay) == (0, False)

    def test_renewal_extends_the_lease_and_keeps_the_revision(
        self, grpcio: GrpcioClient, threaded_server: Running
    ) -> None:
        first = grpcio.call("RegisterColony", **REGISTRATION)
        threaded_server.clock.advance(60)
        second = grpcio.call("RegisterColony", **REGISTRATION)
        assert to_datetime(second.expires_at) - to_datetime(first.expires_at) == timedelta(
            seconds=60
        )
        assert second.revision == first.revision

    def test_renewal_replaces_what_was_registered(
        self, grpcio: GrpcioClient, threaded_server: Running
    ) -> None:
        first = grpcio.call("RegisterColony", **REGISTRATION)
        threaded_server.clock.advance(1)
        second = grpcio.call(
            "RegisterColony",
            **changed(endpoints=["198.51.100.1:1"], metadata={}, connect_port=9000),
        )
        found = grpcio.call("LookupColony", mesh_id=MESH)
        assert second.revision > first.revision
        assert found.revision == second.revision
        assert list(found.endpoints) == ["198.51.100.1:1"]
        assert not found.metadata
        assert found.connect_port == 9000

    def test_another_key_is_refused_and_told_until_when(
        self, grpcio: GrpcioClient, threaded_server: Running
    ) -> None:
        lease = grpcio.call("RegisterColony", **REGISTRATION)
        threaded_server.clock.advance(10)
        refusal = failure(grpcio, "RegisterColony", **changed(pubkey=OTHER_KEY))
        assert refusal.code is Code.ALREADY_EXISTS
        assert "already registered" in refusal.message
        assert refusal.info.reason == "MESH_ID_TAKEN"
        assert refusal.info.domain == "discovery.coral.io"
        assert refusal.info.metadata["mesh_id"] == MESH
        until = datetime.fromisoformat(refusal.info.metadata["expires_at"])
        assert until == to_datetime(lease.expires_at)
        assert grpcio.call("LookupColony", mesh_id=MESH).pubkey == KEY

    def test_another_key_may_take_over_once_the_lease_ran_out(
        self, grpcio: GrpcioClient, threaded_server: Running
    ) -> None:
        first = grpcio.call("RegisterColony", **REGISTRATION)
        threaded_server.clock.advance(TTL)
        second = grpcio.call("RegisterColony", **changed(pubkey=OTHER_KEY))
        assert second.revision > first.revision
        assert grpcio.call("LookupColony", mesh_id=MESH).pubkey == OTHER_KEY


class TestLookup:
    def test_finds_what_was_registered(
        self, grpcio: GrpcioClient, threaded_server: Running
    ) -> None:
        threaded_server.clock.advance(0.123456)
        lease = grpcio.call("RegisterColony", **REGISTRATION)
        found = grpcio.call("LookupColony", mesh_id=MESH)
        assert (found.mesh_id, found.pubkey) == (MESH, KEY)
        assert list(found.endpoints) == REGISTRATION["endpoints"]
        assert dict(found.metadata) == REGISTRATION["metadata"]
        assert to_unix_us(found.last_seen) == threaded_server.clock.now().unix_us
        assert found.expires_at == lease.expires_at
        assert found.revision == lease.revision

    def test_never_hands_out_the_callers_tcp_address(self, grpcio: GrpcioClient) -> None:
        observed = grpcio.call("RegisterColony", **REGISTRATION).observed_endpoint
        found = grpcio.call("LookupColony", mesh_id=MESH)
        assert observed.ip
        assert not found.observed_endpoints
        assert not [endpoint for endpoint in found.endpoints if observed.ip in endpoint]

    def test_returns_every_later_field_as_it_was_registered(
        self, grpcio: GrpcioClient, schema: Schema
    ) -> None:
        later = {
            "mesh_ipv4": "10.42.0.1",
            "mesh_ipv6": "fd42::1",
            "connect_port": 9000,
            "public_port": 65535,
            "public_endpoint": schema.new(
                "PublicEndpointInfo",
                enabled=True,
                url="https://colony.example.org:8443",
                ca_cert="-----BEGIN CERTIFICATE-----\n…\n",
                ca_fingerprint=schema.new(
                    "CertificateFingerprint",
                    algorithm="FINGERPRINT_ALGORITHM_SHA256",
                    value=bytes(range(32)),
                ),
                updated_at=datetime(2026, 9, 21, 12, 30, 15, 123456, tzinfo=UTC),
            ),
        }
        observed = schema.new(
            "Endpoint", ip="203.0.113.9", port=40000, protocol="udp", via_relay=True
        )
        grpcio.call("RegisterColony", **changed(endpoints=[], observed_endpoint=observed, **later))
        found = grpcio.call("LookupColony", mesh_id=MESH)
        assert {name: getattr(found, name) for name in later} == later
        assert list(found.observed_endpoints) == [observed]
        assert not found.endpoints

    def test_finds_nothing_that_was_never_registered(self, grpcio: GrpcioClient) -> None:
        refusal = failure(grpcio, "LookupColony", mesh_id="nobody")
        assert refusal.code is Code.NOT_FOUND
        assert refusal.info.reason == "NOT_REGISTERED"
        assert refusal.info.metadata["mesh_id"] == "nobody"

    def test_finds_a_lease_until_it_ends_and_not_after(
        self, grpcio: GrpcioClient, threaded_server: Running
    ) -> None:
        grpcio.call("RegisterColony", **REGISTRATION)
        threaded_server.clock.advance(TTL - 0.000_001)
        assert grpcio.call("LookupColony", mesh_id=MESH).pubkey == KEY
        threaded_server.clock.advance(0.000_001)
        assert failure(grpcio, "LookupColony", mesh_id=MESH).code is Code.NOT_FOUND


class TestDeregister:
    def test_the_owner_leaves_at_once(self, grpcio: GrpcioClient) -> None:
        grpcio.call("RegisterColony", **REGISTRATION)
        assert grpcio.call("DeregisterColony", mesh_id=MESH, pubkey=KEY).removed
        assert failure(grpcio, "LookupColony", mesh_id=MESH).code is Code.NOT_FOUND

    def test_leaving_twice_finds_nothing_to_remove(self, grpcio: GrpcioClient) -> None:
        grpcio.call("RegisterColony", **REGISTRATION)
        grpcio.call("DeregisterColony", mesh_id=MESH, pubkey=KEY)
        assert not grpcio.call("DeregisterColony", mesh_id=MESH, pubkey=KEY).removed

    def test_another_key_removes_nothing(self, grpcio: GrpcioClient) -> None:
        grpcio.call("RegisterColony", **REGISTRATION)
        refusal = failure(grpcio, "DeregisterColony", mesh_id=MESH, pubkey=OTHER_KEY)
        assert refusal.code is Code.PERMISSION_DENIED
        assert refusal.info.reason == "NOT_OWNER"
        assert grpcio.call("LookupColony", mesh_id=MESH).pubkey == KEY


class TestHealth:
    def test_counts_exactly_the_live_leases(
        self, grpcio: GrpcioClient, threaded_server: Running
    ) -> None:
        for number in range(1, 6):
            grpcio.call("RegisterColony", **changed(mesh_id=f"mesh-{number}", pubkey=key(number)))
        threaded_server.clock.advance(100)
        grpcio.call("RegisterColony", **changed(mesh_id="mesh-1", pubkey=key(1)))
        grpcio.call("DeregisterColony", mesh_id="mesh-2", pubkey=key(2))
        before = grpcio.call("Health").registered_colonies
        threaded_server.clock.advance(TTL - 100)
        assert (before, grpcio.call("Health").registered_colonies) == (4, 1)

    def test_says_which_version_has_been_up_for_how_long(
        self, grpcio: GrpcioClient, threaded_server: Running
    ) -> None:
        threaded_server.clock.advance(41.9)
        reply = grpcio.call("Health")
        assert (reply.status, reply.version, reply.uptime_seconds) == ("ok", __version__, 41)


@pytest.fixture
def other_client(schema: Schema, threaded_server: Running) -> Iterator[GrpcioClient]:
    with grpcio_client(schema, threaded_server.port) as client:
        yield client


def test_what_one_client_registered_another_one_finds(
    grpcio: GrpcioClient, other_client: GrpcioClient
) -> None:
    grpcio.call("RegisterColony", **REGISTRATION)
    assert other_client.call("LookupColony", mesh_id=MESH).pubkey == KEY
