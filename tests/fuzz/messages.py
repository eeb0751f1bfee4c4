"""Random messages of every type of the protocol, and random JSON that nearly is one.

Messages are made with Google's protobuf, from the descriptors alone, so that nothing of ours has a part in what ours
is held against.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

import betterproto
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message
from hypothesis import strategies as st

from discovery._gen.coral.discovery import v1

PACKAGE = "coral.discovery.v1"
DESCRIPTORS = files("discovery._gen").joinpath("descriptors.binpb")
MESSAGE_TYPES: tuple[type[betterproto.Message], ...] = tuple(
    value
    for value in vars(v1).values()
    if inspect.isclass(value) and issubclass(value, betterproto.Message)
)

Field = descriptor_pb2.FieldDescriptorProto
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LATEST = (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC) - _EPOCH) // timedelta(
    microseconds=1
)

# JSON texts to be put where a value of any type was, or where none may be.
ODD_NUMBERS = (
    *(
        "0",
        "-0",
        "1",
        "-1",
        "1.0",
        "1.5",
        "1e2",
        "1E+2",
        "1.5e1",
        "100e-2",
        "0.1e1",
        "0e5",
        "1e400",
    ),
    *("2147483647", "2147483648", "-2147483648", "-2147483649", "4294967295", "4294967296"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"),
    *("18446744073709551615", "18446744073709551616", "9" * 5000, "NaN", "Infinity", "-Infinity"),
    *("01", "-01", "+1", "1.", ".5", "1e", "1_0", "0x1", "--1"),
)
ODD_STRINGS = (
    *(
        "",
        " ",
        "true",
        "null",
        "1",
        "1.0",
        "1.5",
        "1e2",
        " 1",
        "1 ",
        "1_0",
        "+1",
        "01",
        "0x1",
        "-1",
    ),
    *("٣", "NaN", "Infinity", "é", "\0", "\U0001f600", "x" * 300),
    *(
        "AQI=",
        "AQI",
        "AQ==",
        "AQ=",
        "A",
        "AQ=I",
        "-_",
        "+/",
        "+_",
        "!!!",
        "AQ==AQ==",
        "A===",
        "====",
    ),
    *("REGISTERED", "registered", "ABSENT", "NAT_CONE", "SHA256", "FINGERPRINT_ALGORITHM_SHA256"),
    *("2024-01-01T00:00:00Z", "2024-01-01T00:00:00.5+01:00", "2024-02-29T23:59:59.123456-23:59"),
    *(
        "2023-02-29T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:00:60Z",
        "2024-13-01T00:00:00Z",
    ),
    *("2024-01-01", "2024-01-01T00:00:00", "2024-01-01 00:00:00Z", "2024-01-01t00:00:00z"),
    *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00"),
    *(
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59-01:00",
        "2024-01-01T00:00:00.1234567890Z",
    ),
)
ODD_TEXTS = (
    *ODD_NUMBERS,
    *(json.dumps(text) for text in ODD_STRINGS),
    *(
        "null",
        "true",
        "false",
        "True",
        "nul",
        "",
        "'a'",
        '"\t"',
        '"\\x41"',
        '"\\ud800"',
        '"\\udc00x"',
    ),
    *("[]", "[null]", '["a"]', "[1]", "[[]]", "[{}]", '["a",]', "[", "]", "[" * 50 + "]" * 50),
    *(
        "{}",
        '{"a": "b"}',
        '{"a": null}',
        '{"a": 1}',
        '{"a": {}}',
        '{"a": "b",}',
        '{"a" "b"}',
        "{1: 2}",
    ),
    *(
        '{"ip": "a", "port": 1}',
        '{"port": "x"}',
        '{"meshId": "a"}',
        '{"mesh_id": "a", "meshId": "b"}',
    ),
)


def reference(message_type: type[betterproto.Message]) -> type[Message]:
    """Return Google's class for one of our types."""
    found = _pool().FindMessageTypeByName(f"{PACKAGE}.{message_type.__name__}")
    return message_factory.GetMessageClass(found)


@cache
def references(message_type: type[betterproto.Message]) -> st.SearchStrategy[Message]:
    """Return random messages of one of our types, as Google's class."""
    kind = reference(message_type)
    contents = _contents(f".{PACKAGE}.{message_type.__name__}")
    return contents.map(lambda content: kind(**content))


@st.composite
def odd_documents(draw: st.DrawFn, message_type: type[betterproto.Message]) -> str:
    """Return the JSON of a random message with up to three of its values replaced by something odd."""
    message = draw(references(message_type))
    document = json_format.MessageToDict(message, preserving_proto_field_name=draw(st.booleans()))
    names = [name for field in fields_of(message_type) for name in (field.name, field.json_name)]
    replaced = draw(st.lists(st.sampled_from(ODD_TEXTS), max_size=3))
    for number in range(len(replaced)):
        holder = draw(st.sampled_from(list(_containers(document))))
        if isinstance(holder, list):
            holder.append(f"@{number}@")
        else:
            holder[draw(st.sampled_from([*names, *holder, "unknown"]))] = f"@{number}@"
    text = json.dumps(document, ensure_ascii=draw(st.booleans()))
    for number, odd in enumerate(replaced):
        text = text.replace(f'"@{number}@"', odd)
    return text


def _containers(value: object) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _containers(item)


def described() -> Mapping[str, descriptor_pb2.DescriptorProto]:
    """Return every message type of the protocol by name, what its maps are made of included."""
    found: dict[str, descriptor_pb2.DescriptorProto] = {}
    for message in _file().message_type:
        found[f".{PACKAGE}.{message.name}"] = message
        for nested in message.nested_type:
            found[f".{PACKAGE}.{message.name}.{nested.name}"] = nested
    return found


def fields_of(message_type: type[betterproto.Message]) -> list[Field]:
    return list(described()[f".{PACKAGE}.{message_type.__name__}"].field)


@cache
def _files() -> descriptor_pb2.FileDescriptorSet:
    return descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())


def _file() -> descriptor_pb2.FileDescriptorProto:
    return next(file for file in _files().file if file.package == PACKAGE)


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in _files().file:
        pool.Add(file)
    return pool


@cache
def _contents(type_name: str) -> st.SearchStrategy[dict[str, Any]]:
    if type_name == ".google.protobuf.Timestamp":
        # betterproto has no way to keep a Timestamp that is the epoch.
        return st.integers(_EARLIEST, _LATEST).filter(bool).map(_timestamp)
    fields = described()[type_name].field
    return st.fixed_dictionaries({}, optional={field.name: _values(field) for field in fields})


def _timestamp(unix_us: int) -> dict[str, Any]:
    seconds, microseconds = divmod(unix_us, 1_000_000)
    return {"seconds": seconds, "nanos": microseconds * 1000}


def _values(field: Field) -> st.SearchStrategy[Any]:
    if field.label != Field.LABEL_REPEATED:
        return _single(field)
    entry = described().get(field.type_name)
    if entry is not None and entry.options.map_entry:
        key, value = entry.field
        return st.dictionaries(_single(key), _single(value), max_size=3)
    return st.lists(_single(field), max_size=3)


def _single(field: Field) -> st.SearchStrategy[Any]:
    if field.type == Field.TYPE_MESSAGE:
        return _contents(field.type_name)
    if field.type == Field.TYPE_ENUM:
        return st.integers(0, 3) | st.integers(-(2**31), 2**31 - 1)
    return _SCALARS[field.type]


_SCALARS: Mapping[int, st.SearchStrategy[Any]] = {
    Field.TYPE_STRING: st.text(max_size=20),
    Field.TYPE_BYTES: st.binary(max_size=40),
    Field.TYPE_BOOL: st.booleans(),
    Field.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    Field.TYPE_UINT32: st.integers(0, 2**32 - 1),
    Field.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    Field.TYPE_UINT64: st.integers(0, 2**64 - 1),
}
