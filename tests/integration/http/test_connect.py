"""The Connect protocol as a client of any language speaks it: plain HTTP, JSON or binary, both versions of HTTP."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from typing import Any

import httpx
import pytest

from discovery._gen.coral.discovery.v1 import LookupColonyRequest, LookupColonyResponse
from discovery._gen.google.rpc import BadRequest, ErrorInfo
from tests.integration.support import Running
from tests.support import KEY, MESH, OTHER_KEY

SERVICE = "/coral.discovery.v1.DiscoveryService"
REGISTRATION: dict[str, Any] = {
    "mesh_id": MESH,
    "pubkey": KEY,
    "endpoints": ["203.0.113.5:41820"],
    "metadata": {"region": "eu"},
}


async def call(http: httpx.AsyncClient, rpc: str, message: Any, **headers: str) -> httpx.Response:
    return await http.post(f"{SERVICE}/{rpc}", json=message, headers=headers)


def detail(answer: httpx.Response, name: str) -> bytes:
    """Return the bytes of the error detail google.rpc.`name`."""
    [value] = [d["value"] for d in answer.json()["details"] if d["type"] == f"google.rpc.{name}"]
    return base64.b64decode(value + "==")


async def test_json_registers_and_looks_up(http: httpx.AsyncClient) -> None:
    registered = await call(http, "RegisterColony", REGISTRATION)
    found = await call(http, "LookupColony", {"meshId": MESH})

    assert registered.status_code == found.status_code == 200
    assert found.headers["content-type"] == "application/json"
    assert registered.json()["ttl"] == 300
    assert isinstance(registered.json()["revision"], str)
    assert found.json()["pubkey"] == KEY
    assert found.json()["revision"] == registered.json()["revision"]


async def test_what_a_later_client_knows_more_comes_back_as_it_was_sent(
    http: httpx.AsyncClient,
) -> None:
    later = {
        "meshIpv4": "10.42.0.1",
        "meshIpv6": "fd42::1",
        "connectPort": 9000,
        "publicPort": 8443,
        "publicEndpoint": {
            "enabled": True,
            "url": "https://colony.example.com:8443",
            "caCert": "LS0tLS1CRUdJTg==",
            "caFingerprint": {"algorithm": "FINGERPRINT_ALGORITHM_SHA256", "value": "AAEC"},
            "updatedAt": "2026-01-02T03:04:05.678901Z",
        },
    }
    unknown = {"field_of_the_future": {"a": [1]}}

    await call(http, "RegisterColony", {**REGISTRATION, **later, **unknown})
    found = (await call(http, "LookupColony", {"mesh_id": MESH})).json()

    assert {name: found[name] for name in later} == later


async def test_binary_messages(http: httpx.AsyncClient) -> None:
    await call(http, "RegisterColony", REGISTRATION)

    answer = await http.post(
        f"{SERVICE}/LookupColony",
        content=bytes(LookupColonyRequest(MESH)),
        headers={"content-type": "application/proto"},
    )

    assert answer.headers["content-type"] == "application/proto"
    assert LookupColonyResponse().parse(answer.content).pubkey == KEY


@pytest.mark.parametrize("rpc", ["LookupColony", "Health"])
async def test_calls_that_change_nothing_may_be_got(http: httpx.AsyncClient, rpc: str) -> None:
    await call(http, "RegisterColony", REGISTRATION)
    message = json.dumps({"mesh_id": MESH} if rpc == "LookupColony" else {})

    answer = await http.get(
        f"{SERVICE}/{rpc}", params={"connect": "v1", "encoding": "json", "message": message}
    )

    assert answer.status_code == 200


async def test_a_registration_may_not_be_got(http: httpx.AsyncClient) -> None:
    answer = await http.get(f"{SERVICE}/RegisterColony", params={"encoding": "json"})

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_gzip_both_ways(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        f"{SERVICE}/RegisterColony",
        content=gzip.compress(json.dumps(REGISTRATION).encode()),
        headers={
            "content-type": "application/json",
            "content-encoding": "gzip",
            "accept-encoding": "gzip",
        },
    )

    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["success"] is True


async def test_a_small_request_that_unpacks_to_a_large_one_is_refused(
    http: httpx.AsyncClient, server: Running
) -> None:
    bomb = gzip.compress(b" " * 50_000_000)

    answer = await http.post(
        f"{SERVICE}/RegisterColony",
        content=bomb[:60_000],
        headers={"content-type": "application/json", "content-encoding": "gzip"},
    )

    assert answer.status_code == 429
    assert ErrorInfo().parse(detail(answer, "ErrorInfo")).reason == "TOO_LARGE"
    assert server.requests()[-1]["status"] == "RESOURCE_EXHAUSTED"


async def test_every_violation_is_told(http: httpx.AsyncClient) -> None:
    answer = await call(http, "RegisterColony", {"mesh_id": "-", "pubkey": "short"})

    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_argument"
    violations = BadRequest().parse(detail(answer, "BadRequest")).field_violations
    assert [v.field for v in violations] == ["mesh_id", "pubkey", "endpoints"]


async def test_another_key_is_told_that_the_mesh_is_taken(http: httpx.AsyncClient) -> None:
    await call(http, "RegisterColony", REGISTRATION)

    answer = await call(http, "RegisterColony", {**REGISTRATION, "pubkey": OTHER_KEY})

    assert (answer.status_code, answer.json()["code"]) == (409, "already_exists")
    info = ErrorInfo().parse(detail(answer, "ErrorInfo"))
    assert info.reason == "MESH_ID_TAKEN"
    assert info.metadata["expires_at"].endswith("Z")


@pytest.mark.parametrize(
    "body",
    ["[]", "null", "{", '{"meshId": 5}', '{"meshId": "\\ud800"}', '{"endpoints": "a"}', "\xff"],
)
async def test_what_is_not_the_message_is_an_invalid_argument(
    http: httpx.AsyncClient, server: Running, body: str
) -> None:
    answer = await http.post(
        f"{SERVICE}/RegisterColony",
        content=body.encode("latin-1"),
        headers={"content-type": "application/json"},
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
    assert server.requests()[-1]["status"] == "INVALID_ARGUMENT"


async def test_bytes_that_are_no_message_are_an_invalid_argument(
    http: httpx.AsyncClient, server: Running
) -> None:
    answer = await http.post(
        f"{SERVICE}/LookupColony",
        content=b"\xff\xff\xff",
        headers={"content-type": "application/proto"},
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
    assert ErrorInfo().parse(detail(answer, "ErrorInfo")).reason == "MALFORMED_MESSAGE"
    assert server.requests()[-1]["status"] == "INVALID_ARGUMENT"


async def test_a_request_of_a_mebibyte_is_refused_and_the_next_one_is_served(
    http: httpx.AsyncClient,
) -> None:
    large = await call(http, "RegisterColony", {**REGISTRATION, "x": "x" * 1024 * 1024})
    next_one = await call(http, "RegisterColony", REGISTRATION)

    assert (large.status_code, large.json()["code"]) == (429, "resource_exhausted")
    assert next_one.status_code == 200


async def test_rpcs_of_later_versions_are_not_found(http: httpx.AsyncClient) -> None:
    """A Connect client reads that as unimplemented."""
    answer = await call(http, "RegisterRelay", {})

    assert answer.status_code == 404


@pytest.mark.parametrize("timeout", ["abc", "-1", "12345678901"])
async def test_a_timeout_that_is_none_is_an_invalid_argument(
    http: httpx.AsyncClient, timeout: str
) -> None:
    answer = await call(http, "Health", {}, **{"connect-timeout-ms": timeout})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")


def envelope(message: Any) -> bytes:
    """Return the one message of a streaming request: flags, length, bytes."""
    data = json.dumps(message).encode()
    return struct.pack(">BI", 0, len(data)) + data


def envelopes(body: bytes) -> list[Any]:
    """Return the messages of a streaming response; the last one is the end of the stream."""
    messages = []
    while body:
        _, size = struct.unpack(">BI", body[:5])
        messages.append(json.loads(body[5 : 5 + size]))
        body = body[5 + size :]
    return messages


async def test_a_watch_whose_time_is_over_ends_with_a_deadline_exceeded(
    http: httpx.AsyncClient,
) -> None:
    answer = await http.post(
        f"{SERVICE}/WatchColony",
        content=envelope({"mesh_id": MESH}),
        headers={"content-type": "application/connect+json", "connect-timeout-ms": "200"},
    )

    first, end = envelopes(answer.content)
    assert first["state"] == "ABSENT"
    assert end["error"]["code"] == "deadline_exceeded"


async def test_a_watch_of_what_is_no_mesh_ends_with_the_violation(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        f"{SERVICE}/WatchColony",
        content=envelope({"mesh_id": "-"}),
        headers={"content-type": "application/connect+json"},
    )

    [end] = envelopes(answer.content)
    assert answer.status_code == 200
    assert end["error"]["code"] == "invalid_argument"


async def test_another_content_type_is_not_supported(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        f"{SERVICE}/LookupColony", content=b"<a/>", headers={"content-type": "text/xml"}
    )

    assert answer.status_code == 415


async def test_every_call_is_logged_with_its_protocol_and_peer(
    http: httpx.AsyncClient, server: Running
) -> None:
    await call(http, "LookupColony", {"mesh_id": "nobody"})

    [entry] = server.requests()
    assert entry["method"] == "LookupColony"
    assert entry["protocol"] == "connect"
    assert entry["mesh_id"] == "nobody"
    assert entry["peer"] == "127.0.0.1"
    assert entry["status"] == "NOT_FOUND"


async def test_grpc_over_http1_is_told_what_it_needs(server: Running) -> None:
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.post(
            f"{SERVICE}/Health", content=bytes(5), headers={"content-type": "application/grpc"}
        )

    assert (answer.status_code, answer.json()["message"]) == (505, "gRPC needs HTTP/2")
