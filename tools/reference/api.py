"""The page of the protocol: every call, message, field and error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    MethodDescriptorProto,
    MethodOptions,
    ServiceDescriptorProto,
)

from discovery.transport.rest import RestRoutes
from tools.reference import markdown
from tools.reference.errors import errors_table
from tools.reference.markdown import anchor, code, table
from tools.reference.protocol import ENUM, MESSAGE, SERVICE, Documented, read_protocol

_PACKAGES = ("coral.discovery.v1", "coral.discovery.admin.v1")

_INTRODUCTION = """\
Every call, message and field of both services, as the comments of the `.proto` files have them, and every error. [The
API](../api.md) is the guide: an example for each protocol, and the rules in one place.

Names in JSON are those of the column *JSON*; requests may have the field's own name too. Whatever is zero, empty or not
set is left out of an answer. 64-bit integers are strings in JSON, times are RFC 3339, bytes are base64."""

_ERRORS = """\
An error is a status, a message, and details: a `google.rpc.ErrorInfo` of the domain `discovery.coral.io` with the
reason and the data (metadata) that belongs to it. `agent_id` is only there for an agent. REST has more exact statuses
for some: 413 for `TOO_LARGE`, 415 for a body that is not JSON, 426 for a request that should have been a WebSocket."""

_REST: Mapping[str, str] = {
    "/v1/colony/register": "RegisterColony",
    "/v1/colony/lookup/{mesh_id}": "LookupColony",
    "/health": "Health",
}
_WEBSOCKET = {"WatchColony": "/v1/colony/watch/{mesh_id}"}


def page() -> str:
    """Return the page."""
    files = [read_protocol(package) for package in _PACKAGES]
    packages = [part for file in files for part in _package(file)]
    return markdown.page(
        "Protocol reference", _INTRODUCTION, "## Errors", _ERRORS, errors_table(), *packages
    )


def _package(file: Documented) -> Iterator[str]:
    yield f"## {file.file.package}"
    for index, service in enumerate(file.file.service):
        yield from _service(file, index, service)
    for index, message in enumerate(file.file.message_type):
        yield from _message(file, index, message)
    for index, enum in enumerate(file.file.enum_type):
        yield from _enum(file, index, enum)


def _service(file: Documented, index: int, service: ServiceDescriptorProto) -> Iterator[str]:
    yield f"### {service.name}"
    yield file.comment(SERVICE, index)
    for number, method in enumerate(service.method):
        yield f"#### {method.name}"
        yield file.member_comment(SERVICE, index, number)
        path = f"/{file.file.package}.{service.name}/{method.name}"
        yield "\n".join(f"- {name}: {text}" for name, text in _facts(method, path))


def _facts(method: MethodDescriptorProto, path: str) -> Iterator[tuple[str, str]]:
    stream = "a stream of " if method.server_streaming else ""
    yield "Request", _linked(method.input_type)
    yield "Answer", stream + _linked(method.output_type)
    yield "gRPC and Connect", code(f"POST {path}")
    if method.options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS:
        yield "Connect also", code(f"GET {path}")
    yield from (("REST", code(route)) for route in _rest_routes(method.name))
    if method.name in _WEBSOCKET:
        yield "WebSocket", code(f"GET {_WEBSOCKET[method.name]}")


def _rest_routes(rpc: str) -> Iterator[str]:
    routes: list[Any] = RestRoutes(cast("Any", None), max_bytes=0).routes()
    for route in routes:
        if _REST[route.path] == rpc:
            yield from (f"{method} {route.path}" for method in sorted(route.methods - {"HEAD"}))


def _message(file: Documented, index: int, message: DescriptorProto) -> Iterator[str]:
    yield f"### {message.name}"
    yield file.comment(MESSAGE, index)
    entries = {entry.name: entry for entry in message.nested_type if entry.options.map_entry}
    rows = (
        (
            code(field.name),
            str(field.number),
            _type(field, entries),
            code(field.json_name),
            _in_a_cell(file.member_comment(MESSAGE, index, number)),
        )
        for number, field in enumerate(message.field)
    )
    yield table(("field", "number", "type", "JSON", "meaning"), rows) or "It has no fields."


def _enum(file: Documented, index: int, enum: EnumDescriptorProto) -> Iterator[str]:
    yield f"### {enum.name}"
    yield file.comment(ENUM, index)
    rows = (
        (code(value.name), str(value.number), _in_a_cell(file.member_comment(ENUM, index, number)))
        for number, value in enumerate(enum.value)
    )
    yield table(("value", "number", "meaning"), rows)


def _type(field: FieldDescriptorProto, entries: Mapping[str, DescriptorProto]) -> str:
    name = field.type_name.rpartition(".")[2]
    if name in entries:
        key, value = entries[name].field
        return f"map of {_type(key, {})} to {_type(value, {})}"
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    one = _linked(field.type_name) if name else FieldDescriptorProto.Type.Name(field.type)
    return ("repeated " if repeated else "") + one.removeprefix("TYPE_").lower().replace(
        "TYPE_", ""
    )


def _linked(full_name: str) -> str:
    name = full_name.rpartition(".")[2]
    ours = full_name.startswith(".coral.")
    return f"[{name}]({anchor(name)})" if ours else name


def _in_a_cell(comment: str) -> str:
    """Return a comment's paragraphs as one, each ended like a sentence."""
    paragraphs = (" ".join(part.split()) for part in comment.split("\n\n"))
    return " ".join(
        text if text.endswith((".", ":")) else f"{text}." for text in paragraphs if text
    )
