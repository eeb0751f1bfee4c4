"""betterproto's messages made and read at the speed of the dict that they are; `wire` writes them.

betterproto runs Python code for every attribute of a message that is read or set, its Rust codec's accesses included,
and looks at every field several times when a message is made. For one registration that is most of a call's time. The
functions here do the same on the message's `__dict__`; the tests hold them to betterproto's own results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from types import SimpleNamespace
from typing import Any, Generic, TypeVar, cast, final

import betterproto
from betterproto_rust_codec import deserialize

from discovery.transport.moments import to_datetime

M = TypeVar("M", bound=betterproto.Message)

UNSET = betterproto.PLACEHOLDER


def new(message_type: type[M], **values: object) -> M:
    """Return what `message_type(**values)` returns; unlike it, this does not check the names."""
    held = {**_unset(message_type), **values, "_serialized_on_wire": bool(values)}
    return cast("M", _holding(message_type, held))


def _holding(
    message_type: type[betterproto.Message], held: dict[str, object]
) -> betterproto.Message:
    """Return a message with the attributes `held`, past what betterproto does to set one."""
    message = object.__new__(message_type)
    object.__setattr__(message, "__dict__", held)
    return message


def held_by(message: betterproto.Message) -> dict[str, Any]:
    """Return a message's attributes, past what betterproto does to get one."""
    held: dict[str, Any] = object.__getattribute__(message, "__dict__")
    return held


def plain(message: M) -> M:
    """Return what has a message's attributes, and is read without betterproto's hook. Nobody may change it.

    What is unset has its default, but for messages within the message, which are None.
    """
    given: Any = message
    whole: betterproto.Message = given.whole() if type(given) is _Filled else given
    said = {name: value for name, value in held_by(whole).items() if value is not UNSET}
    return cast("M", SimpleNamespace(**_defaults(type(whole)) | said))


@cache
def _defaults(message_type: type[betterproto.Message]) -> dict[str, object]:
    known = described(message_type)
    return {
        name: None
        if _nests(meta, known.cls_by_field[name]) and not is_repeated(known, name)
        else known.default_gen[name]()
        for name, meta in known.meta_by_field_name.items()
    }


@cache
def _unset(message_type: type[betterproto.Message]) -> Mapping[str, object]:
    """Return the attributes of an empty message. Types with a oneof would share what is set: there are none."""
    return dict(vars(message_type()))


def described(message_type: type[betterproto.Message]) -> betterproto.ProtoClassMetadata:
    """Return betterproto's own description of its type."""
    known: betterproto.ProtoClassMetadata = cast("Any", message_type)._betterproto  # noqa: SLF001
    return known


# -- What is written once ------------------------------------------------------------------------

WriteValues = Callable[[Sequence[Any]], bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Format:
    """A way to write messages."""

    write: Callable[[betterproto.Message], bytes]
    plan: Callable[[betterproto.Message, Sequence[str]], WriteValues]
    """Returns what writes messages like one that is given: some fields differ, and it is told their values."""


_KNOWN = "_known"


def written(message: betterproto.Message | _Filled, form: Format) -> bytes:
    """Return a message as it is written in `form`."""
    if type(message) is _Filled:  # isinstance would have betterproto look for a __class__
        return message.pattern.written(message.values, form)
    known: _ForMany | None = held_by(message).get(_KNOWN)
    return form.write(message) if known is None else known.written(message, form)


def for_many(message: M) -> M:
    """Return `message`, from now on one that several are given and nobody changes: it is written once in each form."""
    held_by(message)[_KNOWN] = _ForMany()
    return message


class _ForMany:
    """How one message is written."""

    __slots__ = ("_forms",)

    def __init__(self) -> None:
        self._forms: dict[Format, bytes] = {}

    def written(self, message: betterproto.Message, form: Format) -> bytes:
        if form not in self._forms:
            self._forms[form] = form.write(message)
        return self._forms[form]


class Pattern(Generic[M]):
    """Messages that differ in a few fields: what they have in common is written once in each form."""

    __slots__ = ("_message", "_plans", "_varying")

    def __init__(self, message: M, *varying: str) -> None:
        """Have messages like `message` but for the fields that are `varying`, in the order of their numbers.

        Nobody may change it, nor them.
        """
        self._message = message
        self._varying = varying
        self._plans: dict[Format, WriteValues] = {}

    def filled(self, *values: object) -> M:
        """Return a message with `values` for the varying fields; a Timestamp's is in microseconds of Unix time."""
        filled: Any = _Filled(self, values)  # a cast would be one call more
        message: M = filled
        return message

    def message(self, values: Sequence[Any]) -> M:
        """Return such a message that betterproto can read."""
        kinds = described(type(self._message)).cls_by_field
        given = {
            name: to_datetime(value) if kinds[name] is datetime else value
            for name, value in zip(self._varying, values, strict=True)
        }
        held = {**held_by(self._message), **given, "_serialized_on_wire": True}
        return cast("M", _holding(type(self._message), held))

    def written(self, values: Sequence[Any], form: Format) -> bytes:
        """Return one of these messages as it is written in `form`."""
        plan = self._plans.get(form)
        if plan is None:
            plan = self._plans[form] = form.plan(self._message, self._varying)
        return plan(values)


@final
class _Filled:
    """One of a Pattern's messages. Most are written and forgotten: it becomes a message when somebody reads it."""

    __slots__ = ("_whole", "pattern", "values")

    def __init__(self, pattern: Pattern[Any], values: Sequence[Any]) -> None:
        self.pattern = pattern
        self.values = values
        self._whole: betterproto.Message | None = None

    def whole(self) -> betterproto.Message:
        """Return the message."""
        if self._whole is None:
            self._whole = self.pattern.message(self.values)
        return self._whole

    def __getattr__(self, name: str) -> object:
        return getattr(self.whole(), name)

    def __bytes__(self) -> bytes:
        return bytes(self.whole())

    def __eq__(self, other: object) -> bool:
        return bool(self.whole() == other)

    __hash__ = None  # type: ignore[assignment]  # as betterproto's messages


# -- Reading --------------------------------------------------------------------------------------


class _Reading:
    """What a message is while the Rust codec fills it: the same attributes, with nothing done about each."""

    message_type: type[betterproto.Message]
    nested: tuple[str, ...]
    _betterproto: betterproto.ProtoClassMetadata
    _defaults: Mapping[str, object]

    def __init__(self) -> None:
        vars(self).update(self._defaults)


def read(data: bytes, message_type: type[M]) -> M:
    """Return what `message_type().parse(data)` returns.

    Raises:
        RuntimeError: the bytes do not follow the schema.
    """
    reading = _reading(message_type)()
    deserialize(reading, data)
    return cast("M", _message_of(reading))


def _message_of(reading: _Reading) -> betterproto.Message:
    """Return the message that has the attributes that were read."""
    held = vars(reading)
    for name in reading.nested:
        if isinstance(value := held[name], list):
            held[name] = [_message_of(each) for each in value]
        elif value is not UNSET:
            held[name] = _message_of(value)
    return _holding(reading.message_type, held)


@cache
def _reading(message_type: type[betterproto.Message]) -> type[_Reading]:
    known = described(message_type)
    kinds = known.cls_by_field
    nested = tuple(
        name for name, meta in known.meta_by_field_name.items() if _nests(meta, kinds[name])
    )
    plain = copy(known)
    plain.cls_by_field = {
        **kinds,
        **{name: _reading(cast("Any", kinds[name])) for name in nested},
    }
    return type(
        message_type.__name__,
        (_Reading,),
        {
            "message_type": message_type,
            "nested": nested,
            "_betterproto": plain,
            "_defaults": {**_unset(message_type), **dict(_scalar_defaults(known))},
        },
    )


def _nests(meta: betterproto.FieldMetadata, kind: type) -> bool:
    return meta.proto_type == betterproto.TYPE_MESSAGE and issubclass(kind, betterproto.Message)


def _scalar_defaults(known: betterproto.ProtoClassMetadata) -> Iterator[tuple[str, object]]:
    """Yield the defaults that messages can share: to read one that is not there would make it anew."""
    for name, meta in known.meta_by_field_name.items():
        shared = meta.proto_type not in {betterproto.TYPE_MESSAGE, betterproto.TYPE_MAP}
        if shared and not is_repeated(known, name) and not meta.optional:
            yield name, known.default_gen[name]()


def is_repeated(known: betterproto.ProtoClassMetadata, name: str) -> bool:
    """Return whether a field is a list."""
    return known.default_gen[name] is list
