"""Both codecs on arbitrary bytes, and on bytes that nearly are a message. `guided.py` looks further, for longer."""

from __future__ import annotations

from typing import Any

import betterproto
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.messages import MESSAGE_TYPES, odd_documents, references
from tests.fuzz.targets import check_any, check_binary, check_json, seeds
from tests.support import examples

TYPES = st.sampled_from(MESSAGE_TYPES)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return `whole` with a few bytes removed, changed, repeated or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(start + 8, len(data))))
        data[start:end] = draw(st.binary(max_size=8) | st.just(bytes(data[start:end]) * 2))
    return bytes(data)


def test_each_field_takes_odd_values_or_refuses_them() -> None:
    for seed in seeds():
        check_any(seed)


@examples(300)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    check_any(data)


@examples(300)
@given(TYPES, st.data())
def test_damaged_binary_is_read_or_refused(
    message_type: type[betterproto.Message], data: st.DataObject
) -> None:
    whole = data.draw(references(message_type)).SerializeToString()
    assert check_binary(whole, message_type)
    check_binary(data.draw(damaged(whole)), message_type)


@examples(300)
@given(TYPES, st.data())
def test_damaged_json_is_read_or_refused(
    message_type: type[betterproto.Message], data: st.DataObject
) -> None:
    document = data.draw(odd_documents(message_type)).encode(errors="surrogatepass")
    check_json(document, message_type)
    check_json(data.draw(damaged(document)), message_type)


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"colony":', '{"metadata":{"a":', '[{"a":'])
@pytest.mark.parametrize("depth", [50, 1_000, 100_000])
@pytest.mark.parametrize("closing", ["", "]", "}", "0"])
def test_depth_is_harmless(opening: str, depth: int, closing: str) -> None:
    deep = opening * depth + closing * depth
    for whole in (deep, f'{{"unknown": {deep}}}', f'{{"metadata": {deep}}}'):
        for message_type in MESSAGE_TYPES[:3]:
            check_json(whole.encode(), message_type)


def nested(wire: bytes, depth: int) -> bytes:
    """Return a length-delimited field 2 that holds another, `depth` times."""
    for _ in range(depth):
        size: Any = len(wire)
        prefix = bytearray(b"\x12")
        while size > 0x7F:
            prefix.append(size & 0x7F | 0x80)
            size >>= 7
        wire = bytes(prefix) + bytes([size]) + wire
    return wire


@pytest.mark.parametrize("depth", [1, 100, 5_000])
def test_binary_depth_is_harmless(depth: int) -> None:
    for message_type in MESSAGE_TYPES:
        check_binary(nested(b"", depth), message_type)
