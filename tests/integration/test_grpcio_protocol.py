"""The protocol's rules and edges, as a client sees them that was made from `proto/` alone (grpcio and protobuf)."""

from __future__ import annotations

import base64
import ipaddress
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from tests.integration.grpcio_client import (
    Failure,
    GrpcioClient,
    Schema,
    failure,
)
from tests.integration.support import Running
from tests.support import KEY, MESH

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


BAD_FIELDS = [
    pytest.param({"mesh_id": ""}, "mesh_id", id="empty mesh_id"),
    pytest.param({"mesh_id": "m" * 10_000}, "mesh_id", id="long mesh_id"),
    pytest.param({"mesh_id": "a/b"}, "mesh_id", id="slash in mesh_id"),
    pytest.param({"pubkey": "no base64!"}, "pubkey", id="malformed key"),
    pytest.param({"pubkey": base64.b64encode(b"k" * 33).decode()}, "pubkey", id="33-byte key"),
    pytest.param({"pubkey": base64.b64encode(bytes(32)).decode()}, "pubkey", id="zero key"),
    pytest.param({"endpoints": []}, "endpoints", id="no endpoint"),
    pytest.param({"endpoints": ["0.0.0.0:1"]}, "endpoints[0]", id="unspecified address"),
    pytest.param({"endpoints": ["[::1]:70000"]}, "endpoints[0]", id="port beyond 65535"),
    pytest.param({"endpoints": ["a:1", "b:1", "a:1"]}, "endpoints[2]", id="duplicate"),
    pytest.param({"metadata": {f"k{n}": "v" * 3400 for n in range(5)}}, "metadata", id="17 KiB"),
    pytest.param({"mesh_ipv4": "fd42::1"}, "mesh_ipv4", id="IPv6 as IPv4"),
    pytest.param({"connect_port": 65536}, "connect_port", id="port too large"),
]


class TestValidation:
    @pytest.mark.parametrize("fields, field", BAD_FIELDS)
    def test_a_rule_that_is_broken_is_named(
        self, grpcio: GrpcioClient, fields: dict[str, Any], field: str
    ) -> None:
        refusal = failure(grpcio, "RegisterColony", **changed(**fields))
        assert refusal.code is Code.INVALID_ARGUMENT
        assert refusal.info.reason == "INVALID_FIELD"
        assert [violated for violated, _ in refusal.violations] == [field]

    def test_every_broken_rule_is_named_at_once(self, grpcio: GrpcioClient) -> None:
        refusal = failure(
            grpcio,
            "RegisterColony",
            mesh_id="-",
            pubkey="",
            endpoints=["224.0.0.1:1", "10.0.0.1:0"],
            metadata={"k" * 129: "v"},
            mesh_ipv4="x",
            mesh_ipv6="x",
            connect_port=70000,
            public_port=70001,
        )
        assert sorted(field.split("[k")[0] for field, _ in refusal.violations) == sorted(
            [
                "mesh_id",
                "pubkey",
                "endpoints[0]",
                "endpoints[1]",
                "metadata['" + "k" * 39 + "\\u2026']",
                "mesh_ipv4",
                "mesh_ipv6",
                "connect_port",
                "public_port",
            ]
        )
        assert all(description for _, description in refusal.violations)
        assert refusal.status.code == Code.INVALID_ARGUMENT.value[0]
        assert refusal.status.message == refusal.message

    @pytest.mark.parametrize("method", ["LookupColony", "DeregisterColony"])
    def test_every_method_applies_the_rules(self, grpcio: GrpcioClient, method: str) -> None:
        refusal = failure(grpcio, method, mesh_id="../etc")
        assert refusal.code is Code.INVALID_ARGUMENT
        assert "mesh_id" in dict(refusal.violations)

    def test_a_refused_registration_changes_nothing(self, grpcio: GrpcioClient) -> None:
        grpcio.call("RegisterColony", **REGISTRATION)
        failure(grpcio, "RegisterColony", **changed(endpoints=["nonsense"]))
        assert (
            list(grpcio.call("LookupColony", mesh_id=MESH).endpoints) == REGISTRATION["endpoints"]
        )


class TestProtocol:
    def test_every_rpc_of_the_protocol_is_served(
        self, grpcio: GrpcioClient, schema: Schema
    ) -> None:
        assert not {name for name in schema.methods() if status_of(grpcio, name) == 12}

    def test_an_rpc_that_nobody_defined_is_unimplemented(self, grpcio: GrpcioClient) -> None:
        unknown: Any = grpcio.channel.unary_unary("/coral.discovery.v1.DiscoveryService/Reboot")
        with pytest.raises(grpc.RpcError) as caught:
            unknown(b"")
        assert Failure(caught.value).code is Code.UNIMPLEMENTED

    def test_fields_from_a_later_version_are_no_error(self, grpcio: GrpcioClient) -> None:
        lookup = grpcio.schema.new("LookupColonyRequest", mesh_id="nobody").SerializeToString()
        unknown_field_1000 = b"\xc2\x3e\x05later"
        with pytest.raises(grpc.RpcError) as caught:
            grpcio.bytes_method("LookupColony")(lookup + unknown_field_1000)
        assert Failure(caught.value).code is Code.NOT_FOUND

    def test_a_compressed_request_is_refused_with_a_status(self, grpcio: GrpcioClient) -> None:
        request = grpcio.schema.new("LookupColonyRequest", mesh_id="m" * 200)
        with pytest.raises(grpc.RpcError) as caught:
            grpcio.method("LookupColony")(request, compression=grpc.Compression.Gzip)
        assert Failure(caught.value).code is Code.UNIMPLEMENTED

    def test_metadata_of_17_kib_is_no_error(self, grpcio: GrpcioClient) -> None:
        request = grpcio.schema.new("HealthRequest")
        reply = grpcio.method("Health")(request, metadata=(("x-large", "m" * 17 * 1024),))
        assert reply.status == "ok"

    def test_a_request_and_its_outcome_are_one_log_line(
        self, grpcio: GrpcioClient, threaded_server: Running
    ) -> None:
        failure(grpcio, "LookupColony", mesh_id="nobody")
        (line,) = threaded_server.requests()
        assert (line["method"], line["mesh_id"], line["status"]) == (
            "LookupColony",
            "nobody",
            "NOT_FOUND",
        )
        assert ipaddress.ip_address(line["peer"]).is_loopback
        assert line["ms"] >= 0
        assert line["log_level"] == "info"


def status_of(client: GrpcioClient, name: str) -> int:
    """Call a method of either kind with an empty request, and return the status it ends with at the latest then."""
    request = client.schema.types_of(name)[0]()
    try:
        if client.schema.methods()[name].server_streaming:
            for _ in client.stream_method(name)(request, timeout=10):
                break
        else:
            client.method(name)(request, timeout=10)
    except grpc.RpcError as error:
        return int(Failure(error).code.value[0])
    return 0
