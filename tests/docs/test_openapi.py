"""docs/openapi.yaml says what the code says, as far as one can tell without a server."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from discovery import __version__, errors, validation
from discovery.config import ServerSettings
from discovery.transport.pipeline import Pipeline
from discovery.transport.rest import RestRoutes, error_response
from discovery.transport.schema import descriptors
from tests.docs.openapi import described, operations, resolved, schema
from tests.support import key

MESSAGES = {
    message.name: message
    for file in descriptors().file
    if file.package == "coral.discovery.v1"
    for message in file.message_type
}
ALL_ZERO = "A" * 43 + "="


def described_messages() -> list[str]:
    return [name for name in described()["components"]["schemas"] if name in MESSAGES]


def test_it_is_of_this_version() -> None:
    assert described()["info"]["version"] == __version__


def test_it_has_the_paths_that_are_served() -> None:
    routes: list[Any] = RestRoutes(cast("Pipeline", None), max_bytes=0).routes()
    served = {(route.path, method) for route in routes for method in route.methods - {"HEAD"}}
    assert {(path, method) for path, method, _ in operations()} == served


@pytest.mark.parametrize("name", described_messages())
def test_a_message_has_the_fields_of_the_protocol(name: str) -> None:
    fields = {field.json_name for field in MESSAGES[name].field}
    assert set(schema(name)["properties"]) == fields


def test_its_limits_are_those_of_the_rules() -> None:
    request = schema("RegisterColonyRequest")["properties"]
    metadata = request["metadata"]
    assert schema("MeshId")["maxLength"] == validation.MAX_ID_LENGTH
    assert request["endpoints"]["maxItems"] == validation.MAX_ENDPOINTS
    assert metadata["maxProperties"] == validation.MAX_METADATA_ENTRIES
    assert metadata["propertyNames"]["maxLength"] == validation.MAX_METADATA_KEY_BYTES
    assert metadata["additionalProperties"]["maxLength"] == validation.MAX_METADATA_VALUE_BYTES
    assert str(validation.MAX_METADATA_BYTES) in metadata["description"]
    assert schema("PortOrNone")["maximum"] == validation.MAX_PORT
    assert schema("ObservedEndpoint")["properties"]["port"]["maximum"] == validation.MAX_PORT
    assert str(validation.MAX_REQUEST_BYTES) in schema("RegisterColonyRequest")["description"]


def test_its_longest_lease_is_the_longest_that_can_be_set() -> None:
    ttl = schema("RegisterColonyResponse")["properties"]["ttl"]
    ServerSettings(ttl=ttl["minimum"])
    ServerSettings(ttl=ttl["maximum"])
    with pytest.raises(ValueError, match="ttl"):
        ServerSettings(ttl=ttl["maximum"] + 1)


@pytest.mark.parametrize(
    "value", [key(1), key(2**256 - 1), key(7)[:-2] + "d=", key(1)[:-1], ALL_ZERO, "AA==", ""]
)
def test_a_pubkey_is_described_as_the_rule_has_it(value: str) -> None:
    pubkey = schema("Pubkey")
    matches = re.search(pubkey["pattern"], value) and value != pubkey["not"]["const"]
    assert bool(matches) == (not list(validation.check_pubkey(value)))


@pytest.mark.parametrize("value", ["a", "0._-", "", "-a", ".a", "a b", "ä", "a" * 253, "a" * 254])
def test_a_mesh_id_is_described_as_the_rule_has_it(value: str) -> None:
    mesh_id = schema("MeshId")
    matches = re.search(mesh_id["pattern"], value) and len(value) <= mesh_id["maxLength"]
    assert bool(matches) == (not list(validation.check_id("mesh_id", value)))


OF_REGISTERING = (errors.ProofRequiredError, errors.ProofInvalidError)


def raised() -> list[errors.DiscoveryError]:
    """Return one of each error that a call of the REST paths may end with."""
    return [
        errors.InvalidFieldError(()),
        errors.InvalidMessageError(""),
        errors.NotRegisteredError(""),
        errors.MeshIdTakenError("", 0),
        errors.MeshReservedError("", 0),
        errors.UnauthenticatedError(""),
        errors.ProofRequiredError("", "", ""),
        errors.ProofInvalidError(""),
        errors.PermissionDeniedError(""),
        errors.RateLimitedError("", retry_after=1.0),
        errors.QuotaError(""),
        errors.TooLargeError(""),
        errors.InternalError(""),
        errors.DrainingError("", retry_after=1.0),
        errors.StoreUnavailableError("", retry_after=1.0),
    ]


@pytest.mark.parametrize("error", raised(), ids=lambda error: type(error).__name__)
def test_an_error_is_described_with_its_status_and_reason(error: errors.DiscoveryError) -> None:
    status = str(error_response(error).status_code)
    found = [
        resolved(operation["responses"][status])
        for _, _, operation in operations()
        if status in operation["responses"]
        and (operation["operationId"] == "registerColony" or not isinstance(error, OF_REGISTERING))
    ]
    assert found
    assert all(f"`{error.reason}`" in response["description"] for response in found)
    assert error.code.name.lower() in schema("Error")["properties"]["code"]["enum"]
    assert error.retry_after is None or all("Retry-After" in item["headers"] for item in found)
