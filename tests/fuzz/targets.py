"""What holds for any bytes: a codec reads them as a message or says why not, and what it read it can write again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle

import betterproto
from google.protobuf import json_format

from discovery.errors import InvalidMessageError, MalformedMessageError
from discovery.transport import codec, json_codec
from tests.fuzz.messages import MESSAGE_TYPES, ODD_TEXTS, fields_of, reference


def check_any(data: bytes) -> None:
    """Read `data` with both codecs; its first byte says as which type."""
    message_type = MESSAGE_TYPES[data[0] % len(MESSAGE_TYPES)] if data else MESSAGE_TYPES[0]
    check_binary(data[1:], message_type)
    check_json(data[1:], message_type)


def check_binary(data: bytes, message_type: type[betterproto.Message]) -> bool:
    """Return whether `data` is a message to the binary codec."""
    try:
        message = codec.decode(data, message_type)
    except MalformedMessageError:
        return False
    assert codec.decode(codec.encode(message), message_type) == message
    check_written(message)
    return True


def check_json(data: bytes, message_type: type[betterproto.Message]) -> bool:
    """Return whether `data` is a message to the JSON codec."""
    try:
        message = json_codec.decode(data, message_type)
    except InvalidMessageError as error:
        check_refusal(error.message)
        return False
    assert codec.decode(codec.encode(message), message_type) == message
    check_written(message)
    return True


def check_refusal(message: str) -> None:
    """What is said to the caller is short and harmless, whatever the caller said."""
    assert len(message) < 200
    assert message.isascii()
    assert message.isprintable()


def check_written(message: betterproto.Message) -> None:
    """Our JSON is the message to us and to Google's protobuf."""
    written = json_codec.encode(message)
    assert json_codec.decode(written, type(message)) == message
    kind = reference(type(message))
    known = kind.FromString(codec.encode(message))
    known.DiscardUnknownFields()
    assert json_format.Parse(written, kind()) == known


def seeds() -> Iterator[bytes]:
    """Return what `check_any` may start from: each field of each type with a few values, as JSON and as binary."""
    odd_texts = cycle(ODD_TEXTS)
    for number, message_type in enumerate(MESSAGE_TYPES):
        for field in fields_of(message_type):
            for text in ("null", *(next(odd_texts) for _ in range(5))):
                document = f"{{{json.dumps(field.json_name)}: {text}}}"
                yield bytes([number]) + document.encode()
                try:
                    message = json_format.Parse(document, reference(message_type)())
                except json_format.ParseError:
                    continue
                yield bytes([number]) + message.SerializeToString()
