"""What the JSON codec reads that is no message: JSON itself, and single values.

Each `read_...` takes what `parse` returns; numbers among it are still text, because reading one as a float would round
it, and reading a long one as an int takes long. Each `write_...` returns what `json.dumps` takes.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple, NoReturn

import betterproto

from discovery.transport.moments import from_datetime, to_text

IGNORED = object()
"""What reading the name of an enum value that is not known returns: there is no value."""

INT32 = (-(2**31), 2**31 - 1)
_LONGEST_INTEGER = len(str(2**64))
_SHOWN = 40

_INTEGER = re.compile(
    r"(?P<sign>-?)(?P<whole>0|[1-9][0-9]*)(?:\.(?P<fraction>[0-9]+))?"
    r"(?:[eE](?P<direction>[+-]?)0*(?P<exponent>[0-9]{1,5}))?"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIMESTAMP = re.compile(
    rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T{_CLOCK}:[0-5][0-9](?:\.[0-9]{{1,9}})?(?:Z|[+-]{_CLOCK})"
)
_FROM_URL_SAFE = str.maketrans("-_", "+/")


class InvalidValueError(Exception):
    """What is wrong, and where: whoever descended into the value puts its step before `path` on the way out."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = ""

    def __str__(self) -> str:
        return f"{self.path.removeprefix('.')} {self.problem}" if self.path else self.problem


class Number(NamedTuple):
    """A number as it was written."""

    text: str


def parse(data: bytes | bytearray) -> object:
    """Read JSON as RFC 8259 has it: UTF-8 with no byte order mark, no NaN, no key given twice.

    Raises:
        InvalidValueError: it is none.
        RecursionError: it is nested too deeply for this machine.
    """
    if not data:
        raise InvalidValueError("the body is empty, and an empty message is {}")
    try:
        return _DECODER.decode(data.decode())
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise InvalidValueError(f"no JSON: {error.msg}, character {error.pos}") from error


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidValueError(f"the key {shown(key)} comes twice in one object")
        found[key] = value
    return found


def _constant(name: str) -> NoReturn:
    raise InvalidValueError(f"no JSON: {name} is no number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=Number, parse_float=Number, parse_constant=_constant
)


def read_object(value: object) -> dict[str, object]:
    """Read the members of an object."""
    if not isinstance(value, dict):
        raise _must_be("an object", value)
    return value


def read_array(value: object) -> list[object]:
    """Read the items of an array."""
    if not isinstance(value, list):
        raise _must_be("an array", value)
    return value


def read_string(value: object) -> str:
    """Read text that UTF-8 can carry."""
    text = _text(value)
    if not text.isascii() and _SURROGATE.search(text):
        raise InvalidValueError("holds half of a surrogate pair")
    return text


def read_bool(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise _must_be("true or false", value)
    return value


def read_bytes(value: object) -> bytes:
    """Read base64 of either alphabet, but not of both, with or without padding."""
    text = _text(value)
    try:
        if "-" in text or "_" in text:
            text = re.sub("[+/]", "!", text).translate(_FROM_URL_SAFE)
        if "=" not in text:
            text += "=" * (-len(text) % 4)
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise InvalidValueError("must be base64") from error


def write_bytes(value: bytes) -> str:
    """Return base64 of the standard alphabet, with padding."""
    return binascii.b2a_base64(value, newline=False).decode()


def read_integer(lowest: int, highest: int, value: object) -> int:
    """Read a number, or a string that holds one, with or without an exponent."""
    text = value.text if isinstance(value, Number) else value
    if not isinstance(text, str):
        raise _must_be("an integer", value)
    number = _integer(text)
    if number is None or not lowest <= number <= highest:
        raise InvalidValueError(f"must be an integer from {lowest} to {highest}")
    return number


def _integer(text: str) -> int | None:
    """Return exactly the integer that a JSON number is; None if it is none, or is longer than any of ours."""
    if (match := _INTEGER.fullmatch(text)) is None:
        return None
    sign, whole, fraction, direction, exponent = match.groups("")
    digits = (whole + fraction).lstrip("0")
    significant = digits.rstrip("0")
    if not significant:
        return 0
    zeros = len(digits) - len(significant) - len(fraction) + int(direction + (exponent or "0"))
    if zeros < 0 or len(significant) + zeros > _LONGEST_INTEGER:
        return None
    return int(sign + significant + "0" * zeros)


def read_enum(enum: type[betterproto.Enum], numbers: Mapping[str, int], value: object) -> object:
    """Read a name, or a number whether it is known or not; IGNORED for a name that is not known."""
    if isinstance(value, str):
        return enum.try_value(numbers[value]) if value in numbers else IGNORED
    return enum.try_value(read_integer(*INT32, value))


def write_enum(names: Mapping[int, str], value: int) -> str | int:
    """Return the name; the number if it has none."""
    return names.get(value, int(value))


def read_timestamp(value: object) -> datetime:
    """Read the strict form of RFC 3339, cutting nanoseconds to the microseconds that a datetime has."""
    text = _text(value)
    try:
        if _TIMESTAMP.fullmatch(text):
            return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidValueError("is a time that does not exist") from error
    raise InvalidValueError("must be a time like 2006-01-02T15:04:05.678Z")


def write_timestamp(moment: datetime) -> str:
    """Return RFC 3339 in UTC, with 0, 3 or 6 digits after the second."""
    return to_text(from_datetime(moment))


def shown(text: str) -> str:
    """Return `text` quoted in ASCII and cut short, so that a hostile one cannot swell or forge a log or reply."""
    quoted = ascii(text[:_SHOWN])
    whole = len(text) <= _SHOWN and len(quoted) <= _SHOWN + len("''")
    return quoted if whole else f"{quoted[:_SHOWN]}..."


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _must_be("a string", value)
    return value


def _must_be(expected: str, value: object) -> InvalidValueError:
    return InvalidValueError(f"must be {expected}, not {_JSON_TYPES[type(value)]}")


_JSON_TYPES: Mapping[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    Number: "a number",
    bool: "a boolean",
    type(None): "null",
}
