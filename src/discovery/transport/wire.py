"""Messages in the wire format, written from the dict that each of them is: see `messages`.

betterproto's Rust codec writes the same bytes, but asks Python for each field of each message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache, lru_cache, partial
from operator import call
from typing import Any, NamedTuple

import betterproto

from discovery.clock import MICROSECONDS
from discovery.remembered import Remembered
from discovery.transport.messages import (
    UNSET,
    Format,
    WriteValues,
    described,
    held_by,
    is_repeated,
    written,
)
from discovery.transport.moments import from_datetime

Write = Callable[[Any], bytes]

_VARINT, _SIZED = 0, 2  # wire types: https://protobuf.dev/programming-guides/encoding/
_SHORT = tuple(bytes((number,)) for number in range(0x80))
_2_64 = 2**64


class _Field(NamedTuple):
    attribute: str
    write: Write
    write_given: Write
    """The same for a value as a Pattern is given it."""


def write(message: betterproto.Message) -> bytes:
    """Return what `bytes(message)` returns.

    Raises:
        LookupError: a field of its type is of a kind that none of our messages has.
        AttributeError, TypeError, ValueError, OverflowError: a field's value is not of its type.
    """
    held = held_by(message)
    parts = [
        write_field(value)
        for attribute, write_field, _ in _fields(type(message))
        if (value := held[attribute]) is not UNSET
    ]
    return b"".join((*parts, held["_unknown_fields"]))


def _plan(message: betterproto.Message, varying: Sequence[str]) -> WriteValues:
    template, writers = b"", []
    for field in _fields(type(message)):
        if field.attribute in varying:
            template += b"%b"
            writers.append(field.write_given)
        elif (value := held_by(message)[field.attribute]) is not UNSET:
            template += field.write(value).replace(b"%", b"%%")

    def write_values(values: Sequence[Any]) -> bytes:
        return template % tuple(map(call, writers, values))

    return write_values


WIRE = Format(write, _plan)


@cache
def _fields(message_type: type[betterproto.Message]) -> tuple[_Field, ...]:
    known = described(message_type)
    return tuple(_field(known, name) for name in known.sorted_field_names)


def _field(known: betterproto.ProtoClassMetadata, name: str) -> _Field:
    meta = known.meta_by_field_name[name]
    write_field = write_given = _field_writer(known, name, meta)
    if (kind := known.cls_by_field[name]) is datetime:
        write_given = partial(_write_moment, _tag(meta.number, _SIZED))
    elif issubclass(kind, betterproto.Message) and not is_repeated(known, name):
        write_given = Remembered(write_field)
    elif meta.proto_type in _RANGES and not is_repeated(known, name):
        # It is of its type, and need not be told from another that equals it.
        write_given = lru_cache(256)(_integer(meta.number, meta.proto_type))
    return _Field(name, write_field, write_given)


def _field_writer(
    known: betterproto.ProtoClassMetadata, name: str, meta: betterproto.FieldMetadata
) -> Write:
    if meta.optional or meta.group or meta.wraps:
        raise LookupError(name)
    if meta.map_types:
        key, value = (_scalar(number, kind) for number, kind in enumerate(meta.map_types, 1))
        return partial(_write_map, _tag(meta.number, _SIZED), key, value)
    if meta.proto_type == betterproto.TYPE_MESSAGE:
        return _message_writer(known, name, meta)
    if not is_repeated(known, name):
        return _scalar(meta.number, meta.proto_type)
    if meta.proto_type != betterproto.TYPE_STRING:  # numbers would have to be packed
        raise LookupError(name)
    return partial(_write_texts, _tag(meta.number, _SIZED))


def _message_writer(
    known: betterproto.ProtoClassMetadata, name: str, meta: betterproto.FieldMetadata
) -> Write:
    tag, kind = _tag(meta.number, _SIZED), known.cls_by_field[name]
    if issubclass(kind, betterproto.Message):
        return partial(_write_messages if is_repeated(known, name) else _write_message, tag)
    if kind is not datetime or is_repeated(known, name):
        raise LookupError(name)
    return partial(_write_timestamp, tag)


def _scalar(number: int, proto_type: str) -> Write:
    if proto_type == betterproto.TYPE_STRING:
        return partial(_write_text, _tag(number, _SIZED))
    if proto_type == betterproto.TYPE_BYTES:
        return partial(_write_bytes, _tag(number, _SIZED))
    # Most numbers are those of the call before: lifetimes, revisions, ports.
    return lru_cache(256, typed=True)(_integer(number, proto_type))


def _integer(number: int, proto_type: str) -> Write:
    return partial(_write_integer, _tag(number, _VARINT), *_RANGES[proto_type])


_RANGES: Mapping[str, tuple[int, int]] = {
    betterproto.TYPE_BOOL: (0, 2),
    betterproto.TYPE_ENUM: (-(2**31), 2**31),
    betterproto.TYPE_INT32: (-(2**31), 2**31),
    betterproto.TYPE_INT64: (-(2**63), 2**63),
    betterproto.TYPE_UINT32: (0, 2**32),
    betterproto.TYPE_UINT64: (0, _2_64),
}
"""The lowest value of each type, and what is too high."""


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(number: int) -> bytes:
    if number < len(_SHORT):
        return _SHORT[number]
    encoded = bytearray()
    while number >= len(_SHORT):
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _sized(tag: bytes, content: bytes) -> bytes:
    size = len(content)
    return b"%b%b%b" % (tag, _SHORT[size] if size < len(_SHORT) else _varint(size), content)


def _write_text(tag: bytes, value: str) -> bytes:
    return _sized(tag, value.encode()) if value else b""


def _write_texts(tag: bytes, values: list[str]) -> bytes:
    return b"".join([_sized(tag, value.encode()) for value in values])


def _write_bytes(tag: bytes, value: bytes) -> bytes:
    return _sized(tag, value) if value else b""


def _write_integer(tag: bytes, lowest: int, too_high: int, value: int) -> bytes:
    if not value:
        return b""
    if not lowest <= value < too_high:
        raise OverflowError(value)
    return tag + _varint(value if value > 0 else value + _2_64)


def _write_map(tag: bytes, key: Write, value: Write, values: Mapping[Any, Any]) -> bytes:
    return b"".join([_sized(tag, key(name) + value(item)) for name, item in values.items()])


def _write_message(tag: bytes, message: betterproto.Message) -> bytes:
    content = written(message, WIRE)
    return _sized(tag, content) if content or held_by(message)["_serialized_on_wire"] else b""


def _write_messages(tag: bytes, messages: list[betterproto.Message]) -> bytes:
    return b"".join([_sized(tag, write(message)) for message in messages])


def _write_timestamp(tag: bytes, moment: datetime) -> bytes:
    return _write_moment(tag, from_datetime(moment))


def _write_moment(tag: bytes, unix_us: int) -> bytes:
    """Write all but the epoch, which is no value to betterproto."""
    seconds, microseconds = divmod(unix_us, MICROSECONDS)
    eighths = microseconds * 125  # a microsecond is 8 * 125 ns
    if eighths < _THREE_GROUPS:
        rest = _NANOS + _varint(eighths * 8) if eighths else b""
        return _sized(tag, _WRITE_SECONDS(seconds) + rest) if unix_us else b""
    # Nanoseconds are hardly ever the same twice, and mostly take four or five bytes.
    highest = _HIGHEST[eighths >> 18]
    return b"%b%b%b%b" % (
        _moment_head(tag, seconds, len(highest)),
        _LOWEST[eighths & 0x7FF],
        _NEXT[eighths >> 11 & 0x7F],
        highest,
    )


@lru_cache(32)
def _moment_head(tag: bytes, seconds: int, high_groups: int) -> bytes:
    """Return what comes before the nanoseconds, of which `high_groups` come after the three lowest."""
    whole = _WRITE_SECONDS(seconds) + _NANOS
    return tag + _varint(len(whole) + 3 + high_groups) + whole


_WRITE_SECONDS = lru_cache(16)(_integer(1, betterproto.TYPE_INT64))
_NANOS = _tag(2, _VARINT)
_THREE_GROUPS = 1 << 3 * 7 - 3

# The groups of a varint of nanoseconds, from the lowest: two, of whose 14 bits three are zero, then one, then the rest.
_LOWEST = tuple(bytes((n << 3 & 0x7F | 0x80, n >> 4 | 0x80)) for n in range(1 << 11))
_NEXT = tuple(bytes((n | 0x80,)) for n in range(1 << 7))
_HIGHEST = tuple(map(_varint, range(1 << 9)))
