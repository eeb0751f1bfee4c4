from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import betterproto
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery._gen.coral.discovery import v1 as pb
from discovery._gen.google.rpc import ErrorInfo, RetryInfo
from discovery.transport import codec, json_codec, messages, wire
from discovery.transport.moments import from_datetime
from tests.fuzz.messages import MESSAGE_TYPES, references
from tests.support import examples

WRITTEN = st.sampled_from(MESSAGE_TYPES).flatmap(
    lambda kind: st.tuples(st.just(kind), references(kind).map(lambda m: m.SerializeToString()))
)


def values_of(message: betterproto.Message) -> dict[str, Any]:
    """Return the fields that were given."""
    return {
        name: value
        for name, value in vars(message).items()
        if not name.startswith("_") and value is not betterproto.PLACEHOLDER
    }


def as_given(value: object) -> object:
    """Return a field's value as a Pattern is given it."""
    return from_datetime(value) if isinstance(value, datetime) else value


@given(written=WRITTEN)
@examples(300)
def test_reading_gives_what_betterproto_reads(
    written: tuple[type[betterproto.Message], bytes],
) -> None:
    kind, data = written

    message, expected = messages.read(data, kind), kind().parse(data)

    assert type(message) is kind
    assert message == expected
    assert bytes(message) == bytes(expected)
    assert betterproto.serialized_on_wire(message) == betterproto.serialized_on_wire(expected)


@given(written=WRITTEN)
@examples(300)
def test_a_plain_message_says_what_the_message_says(
    written: tuple[type[betterproto.Message], bytes],
) -> None:
    kind, data = written
    known = messages.described(kind)
    for message in (messages.read(data, kind), kind().parse(data)):
        said = messages.plain(message)
        for name in known.sorted_field_names:
            nests = issubclass(known.cls_by_field[name], betterproto.Message)
            several = known.default_gen[name] in {list, dict}
            unset = nests and not several and not message.is_set(name)
            assert getattr(said, name) == (None if unset else getattr(message, name))
            assert type(getattr(said, name)) is type(None if unset else getattr(message, name))


def test_a_patterns_message_is_plain_too() -> None:
    pattern = messages.Pattern(pb.RegisterColonyResponse(success=True), "revision")
    said = messages.plain(pattern.filled(7))
    assert (said.success, said.revision, said.ttl) == (True, 7, 0)
    assert said.observed_endpoint is None


@given(written=WRITTEN)
@examples(300)
def test_writing_gives_the_bytes_that_betterproto_writes(
    written: tuple[type[betterproto.Message], bytes],
) -> None:
    kind, data = written
    parsed = kind().parse(data)

    assert wire.write(parsed) == bytes(parsed)
    assert wire.write(messages.read(data, kind)) == bytes(parsed)
    assert wire.write(kind(**values_of(parsed))) == bytes(kind(**values_of(parsed)))


@given(written=WRITTEN, data=st.data())
@examples(300)
def test_a_pattern_is_written_as_the_message_that_it_makes(
    written: tuple[type[betterproto.Message], bytes], data: st.DataObject
) -> None:
    kind, encoded = written
    values = values_of(messages.read(encoded, kind))
    chosen = data.draw(st.sets(st.sampled_from(sorted(values)))) if values else set()
    varying = [name for name in messages.described(kind).sorted_field_names if name in chosen]
    like = kind(**{name: value for name, value in values.items() if name not in varying})
    pattern = messages.Pattern(like, *varying)

    filled = pattern.filled(*(as_given(values[name]) for name in varying))

    assert filled == kind(**values)
    assert filled == pattern.filled(*(as_given(values[name]) for name in varying))
    assert all(getattr(filled, name) == value for name, value in values.items())
    assert codec.encode(filled) == bytes(kind(**values))
    assert json_codec.encode(filled) == json_codec.encode(kind(**values))


def test_what_a_patterns_messages_have_in_common_is_written_once() -> None:
    endpoint = pb.Endpoint(ip="203.0.113.9")
    pattern = messages.Pattern(
        pb.RegisterColonyResponse(success=True, observed_endpoint=endpoint), "revision"
    )
    first = [form(pattern.filled(1)) for form in (codec.encode, json_codec.encode)]
    endpoint.ip = "198.51.100.1"  # which nobody is to do
    second = [form(pattern.filled(2)) for form in (codec.encode, json_codec.encode)]
    assert codec.decode(second[0], pb.RegisterColonyResponse) == pb.RegisterColonyResponse(
        success=True, observed_endpoint=pb.Endpoint(ip="203.0.113.9"), revision=2
    )
    assert first[1].replace(b'"1"', b'"2"') == second[1]


@given(written=WRITTEN)
@examples(300)
def test_a_new_message_is_what_the_constructor_makes(
    written: tuple[type[betterproto.Message], bytes],
) -> None:
    kind, data = written
    values = values_of(kind().parse(data))

    assert vars(messages.new(kind, **values)) == vars(kind(**values))


@given(data=st.binary(max_size=60), kind=st.sampled_from(MESSAGE_TYPES))
@examples(300)
def test_what_the_rust_codec_refuses_is_refused(
    data: bytes, kind: type[betterproto.Message]
) -> None:
    try:
        expected = kind().parse(data)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            messages.read(data, kind)
    else:
        assert messages.read(data, kind) == expected


def test_messages_share_nothing_that_can_change() -> None:
    one, other = (messages.read(b"", pb.RegisterColonyRequest) for _ in range(2))

    one.endpoints.append("192.0.2.1:1")
    one.metadata["a"] = "b"
    one.mesh_id = "mesh"
    one.observed_endpoint = pb.Endpoint(port=1)

    assert other == pb.RegisterColonyRequest()
    assert messages.read(b"", pb.RegisterColonyRequest) == pb.RegisterColonyRequest()


def test_a_message_that_was_read_says_what_is_not_set() -> None:
    message = messages.read(b"", pb.RegisterColonyRequest)

    assert not message.is_set("observed_endpoint")
    assert message.observed_endpoint == pb.Endpoint()


def test_unknown_fields_are_kept() -> None:
    data = b"\xa0\x06\x01"

    assert wire.write(messages.read(data, pb.LookupColonyRequest)) == data


@pytest.mark.parametrize(
    "message",
    [
        pb.RegisterColonyRequest(connect_port=-1),
        pb.RegisterColonyRequest(connect_port=2**32),
        pb.LookupColonyResponse(revision=-1),
        pb.LookupColonyResponse(revision=2**64),
        pb.RegisterColonyResponse(ttl=2**31),
        pb.RegisterColonyRequest(mesh_id="\ud800"),
        pb.RegisterColonyRequest(metadata={"a": "\ud800"}),
        pb.RegisterColonyRequest(mesh_id=5),  # type: ignore[arg-type]
        pb.RegisterColonyRequest(connect_port="1"),  # type: ignore[arg-type]
        pb.RegisterColonyRequest(connect_port=1.5),  # type: ignore[arg-type]
        pb.RegisterColonyRequest(endpoints=[b"a"]),  # type: ignore[list-item]
    ],
    ids=repr,
)
def test_a_value_that_no_field_can_hold_is_refused_as_by_betterproto(
    message: betterproto.Message,
) -> None:
    with pytest.raises((OverflowError, TypeError, UnicodeEncodeError)) as refused:
        bytes(message)

    with pytest.raises(type(refused.value)):
        codec.encode(message)


@pytest.mark.parametrize(
    "message",
    [
        RetryInfo(retry_delay=timedelta(seconds=1.5)),
        RetryInfo(retry_delay=timedelta(seconds=-1.5)),
        ErrorInfo(reason="R", domain="d", metadata={"a": "b"}),
    ],
    ids=repr,
)
def test_details_of_errors_are_written_too(message: betterproto.Message) -> None:
    assert codec.encode(message) == bytes(message)
