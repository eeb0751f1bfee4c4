"""Messages to JSON and back, by the ProtoJSON rules: https://protobuf.dev/programming-guides/json/.

Where the rules leave a choice, this does what Connect's reference implementation does (connect-go, which is Go's
protojson): fields and names of enum values that are not known are ignored, a field given twice is refused, an empty
body is no message (https://github.com/connectrpc/connect-go/pull/459).

protobuf's own json_format reads too much to stand at an open port: `[]` and `"x"` as messages, any text as base64,
`true` and 1.7 as enum values, `1_000` and non-ASCII digits as numbers, `+ 1:-5` as an offset from UTC.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache, partial
from importlib import import_module
from operator import call
from typing import Any, NamedTuple, TypeVar

import betterproto
from betterproto.lib.google.protobuf import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FieldDescriptorProtoLabel,
)
from betterproto.lib.google.protobuf import FieldDescriptorProtoType as Type

from discovery.errors import InvalidMessageError
from discovery.remembered import Remembered
from discovery.transport import codec, json_values, moments
from discovery.transport.json_values import IGNORED, INT32, InvalidValueError
from discovery.transport.messages import Format, WriteValues, held_by, new, written
from discovery.transport.moments import EPOCH
from discovery.transport.schema import descriptors

M = TypeVar("M", bound=betterproto.Message)
T = TypeVar("T")
Read = Callable[[object], object]
Write = Callable[[Any], object]

_GENERATED = "discovery._gen"
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(message: betterproto.Message) -> bytes:
    """Return `message` in UTF-8, with lowerCamelCase names and without default values."""
    return written(message, _FORM)


def _encode(message: betterproto.Message) -> bytes:
    return _JSON.encode(_write_message(message)).encode()


def _plan(message: betterproto.Message, varying: Sequence[str]) -> WriteValues:
    # Every member brings the comma before it, and the first loses it at the end.
    template, writers = "", []
    for field in _fields(type(message)):
        if field.attribute in varying:
            template += "%s"
            writers.append(_member_writer(field))
        else:
            same = _JSON.encode(_write_fields([field], held_by(message)))[1:-1]
            template += f",{same}".replace("%", "%%") if same else ""

    def write_values(values: Sequence[Any]) -> bytes:
        members = template % tuple(map(call, writers, values))
        return f"{{{members[1:]}}}".encode()

    return write_values


def _member_writer(field: _Field) -> Callable[[Any], str]:
    """Return what writes a member with a value as a Pattern is given it, and nothing if that is left out."""
    kind, start = field.kind, f',"{field.json_name}":'

    def write_moment(unix_us: int) -> str:
        return f'{start}"{moments.to_text(unix_us)}"' if unix_us else ""

    def write_value(value: object) -> str:
        return start + _JSON.encode(kind.write(value)) if kind.is_set(value) else ""

    if kind is _TIMESTAMP:
        return write_moment
    if kind.write is _write_message:
        return Remembered(write_value)
    # Most of what varies is what it was in the call before: lifetimes, revisions.
    return lru_cache(256)(write_value) if kind in _SCALARS.values() else write_value


_FORM = Format(_encode, _plan)


def decode(data: bytes | bytearray, message_type: type[M]) -> M:
    """Read a message of `message_type`.

    Raises:
        InvalidMessageError: these bytes are not one. It names the field, and quotes the beginning of a key at most.
    """
    try:
        return _read_message(message_type, json_values.parse(data))
    except InvalidValueError as error:
        raise InvalidMessageError(f"not a {message_type.__name__}: {error}") from error
    except RecursionError as error:
        raise InvalidMessageError(f"not a {message_type.__name__}: nested too deeply") from error


class _Kind(NamedTuple):
    """How values of a type are read and written, and which of them are left out."""

    read: Read
    write: Write
    is_set: Callable[[Any], bool] = bool


class _Field(NamedTuple):
    attribute: str
    name: str
    json_name: str
    kind: _Kind


def _read_message(message_type: type[M], value: object) -> M:
    values = dict(_read_fields(_fields_by_key(message_type), json_values.read_object(value)))
    # Parsing marks an empty message as set, and its constructor does not.
    return new(message_type, **values) if values else codec.decode(b"", message_type)


def _read_fields(
    known: Mapping[str, _Field], members: Mapping[str, object]
) -> Iterator[tuple[str, object]]:
    seen = set()
    for key, value in members.items():
        if (field := known.get(key)) is None:
            continue
        if field.name in seen:
            raise InvalidValueError(f"{field.name} comes twice, once as {field.json_name}")
        seen.add(field.name)
        if value is not None and (found := _read_field(field, value)) is not IGNORED:
            yield field.attribute, found


def _read_field(field: _Field, value: object) -> object:
    try:
        return field.kind.read(value)
    except InvalidValueError as error:
        error.path = f".{field.name}{error.path}"
        raise


def _write_message(message: betterproto.Message) -> dict[str, object]:
    # getattr would give each field that is not set a value.
    return _write_fields(_fields(type(message)), held_by(message))


def _write_fields(fields: Iterable[_Field], held: Mapping[str, Any]) -> dict[str, object]:
    return {
        field.json_name: field.kind.write(value)
        for field in fields
        if (value := held[field.attribute]) is not betterproto.PLACEHOLDER
        and field.kind.is_set(value)
    }


def _read_list(read: Read, value: object) -> list[object]:
    found = (
        _read_item(read, index, item) for index, item in enumerate(json_values.read_array(value))
    )
    return [item for item in found if item is not IGNORED]


def _read_map(read: Read, value: object) -> dict[str, object]:
    found = {
        _read_item(json_values.read_string, key, key): _read_item(read, key, item)
        for key, item in json_values.read_object(value).items()
    }
    return {key: item for key, item in found.items() if item is not IGNORED}


def _read_item(read: Callable[[object], T], step: str | int, value: object) -> T:
    try:
        return read(value)
    except InvalidValueError as error:
        error.path = f"[{step if isinstance(step, int) else json_values.shown(step)}]{error.path}"
        raise


def _write_list(write: Write, values: list[object]) -> list[object]:
    return [write(value) for value in values]


def _write_map(write: Write, values: Mapping[str, object]) -> dict[str, object]:
    return {key: write(value) for key, value in values.items()}


def _message_is_set(message: betterproto.Message) -> bool:
    return held_by(message)["_serialized_on_wire"] or bool(message)


@cache
def _fields_by_key(message_type: type[betterproto.Message]) -> Mapping[str, _Field]:
    fields = _fields(message_type)
    return {field.name: field for field in fields} | {field.json_name: field for field in fields}


@cache
def _fields(message_type: type[betterproto.Message]) -> tuple[_Field, ...]:
    """Return the fields by number. A type that has no mapping here yet is a KeyError, which a test would show."""
    attributes = {
        betterproto.FieldMetadata.get(field).number: field.name
        for field in dataclasses.fields(message_type)  # type: ignore[arg-type]  # each type is one
    }
    package = message_type.__module__.removeprefix(_GENERATED)
    described = _messages()[f"{package}.{message_type.__name__}"].field
    return tuple(
        _Field(attributes[field.number], field.name, field.json_name, _kind(field))
        for field in sorted(described, key=lambda field: field.number)
    )


def _kind(field: FieldDescriptorProto) -> _Kind:
    if field.label != FieldDescriptorProtoLabel.LABEL_REPEATED:
        return _single_kind(field)
    entry = _messages().get(field.type_name)
    if entry is not None and entry.options.map_entry:
        _, value = entry.field
        item = _single_kind(value)
        return _Kind(partial(_read_map, item.read), partial(_write_map, item.write))
    item = _single_kind(field)
    return _Kind(partial(_read_list, item.read), partial(_write_list, item.write))


def _single_kind(field: FieldDescriptorProto) -> _Kind:
    if field.type == Type.TYPE_ENUM:
        return _enum_kind(field.type_name)
    if field.type != Type.TYPE_MESSAGE:
        return _SCALARS[field.type]
    if field.type_name == ".google.protobuf.Timestamp":
        return _TIMESTAMP
    return _Kind(partial(_read_message, _class(field.type_name)), _write_message, _message_is_set)


def _enum_kind(type_name: str) -> _Kind:
    values = _enums()[type_name].value
    numbers = {value.name: value.number for value in values}
    names = {value.number: value.name for value in values}
    return _Kind(
        partial(json_values.read_enum, _class(type_name), numbers),
        partial(json_values.write_enum, names),
    )


def _integer_kind(lowest: int, highest: int, write: Write) -> _Kind:
    return _Kind(partial(json_values.read_integer, lowest, highest), write)


_SCALARS: Mapping[int, _Kind] = {
    Type.TYPE_STRING: _Kind(json_values.read_string, str),
    Type.TYPE_BOOL: _Kind(json_values.read_bool, bool),
    Type.TYPE_BYTES: _Kind(json_values.read_bytes, json_values.write_bytes),
    Type.TYPE_INT32: _integer_kind(*INT32, int),
    Type.TYPE_UINT32: _integer_kind(0, 2**32 - 1, int),
    Type.TYPE_INT64: _integer_kind(-(2**63), 2**63 - 1, str),
    Type.TYPE_UINT64: _integer_kind(0, 2**64 - 1, str),
}
# The epoch is no value to betterproto's binary form, so it is none here.
_TIMESTAMP = _Kind(json_values.read_timestamp, json_values.write_timestamp, EPOCH.__ne__)


def _class(type_name: str) -> type[Any]:
    package, _, name = type_name.rpartition(".")
    found: type[Any] = getattr(import_module(_GENERATED + package), name)
    return found


@cache
def _messages() -> Mapping[str, DescriptorProto]:
    """Return every message type by its full name with a dot before it, as descriptors refer to it."""
    return dict(
        found
        for file in descriptors().file
        for message in file.message_type
        for found in _with_nested(f".{file.package}", message)
    )


def _with_nested(scope: str, message: DescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
    name = f"{scope}.{message.name}"
    yield name, message
    for nested in message.nested_type:
        yield from _with_nested(name, nested)


@cache
def _enums() -> Mapping[str, EnumDescriptorProto]:
    return {
        f".{file.package}.{enum.name}": enum
        for file in descriptors().file
        for enum in file.enum_type
    }
