"""Two different calls never say the same: each statement can be read back to the one call that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.models import (
    CertificateFingerprint,
    Endpoint,
    PublicEndpoint,
    Registration,
)
from discovery.proof.statement import LABEL, Method, Occasion, statement
from tests.support import examples, shown
from tests.unit.proof.support import CHANGE_NAMES, CHANGES, FULL

T = TypeVar("T")
K = TypeVar("K")

OCCASION = Occasion(b"s" * 32, b"n" * 40, 1_800_000_000_000)

_int64 = st.integers(-(2**63), 2**63 - 1)
_uint32 = st.integers(0, 2**32 - 1)
_text = st.text(max_size=6)
_registrations = st.builds(
    Registration,
    mesh_id=_text,
    pubkey=_text,
    endpoints=st.lists(_text, max_size=4).map(tuple),
    metadata=st.dictionaries(_text, _text, max_size=4),
    mesh_ipv4=_text,
    mesh_ipv6=_text,
    connect_port=_uint32,
    public_port=_uint32,
    observed_endpoint=st.none() | st.builds(Endpoint, _text, _uint32, _text, st.booleans()),
    public_endpoint=st.none()
    | st.builds(
        PublicEndpoint,
        st.booleans(),
        _text,
        _text,
        st.none() | st.builds(CertificateFingerprint, _int64, st.binary(max_size=4)),
        st.none() | _int64,
    ),
    agent_id=_text,
)
_occasions = st.builds(Occasion, st.binary(max_size=40), st.binary(max_size=40), _int64)


@dataclass
class Reader:
    """Reads a statement by docs/security.md."""

    rest: bytes

    def take(self, size: int) -> bytes:
        taken, self.rest = self.rest[:size], self.rest[size:]
        assert len(taken) == size
        return taken

    def size(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def bytes(self) -> bytes:
        return self.take(self.size())

    def text(self) -> str:
        return self.bytes().decode()

    def number(self) -> int:
        return int.from_bytes(self.take(8), "big", signed=True)

    def flag(self) -> bool:
        return {b"\0": False, b"\1": True}[self.take(1)]

    def list(self, read: Callable[[], T]) -> list[T]:
        return [read() for _ in range(self.size())]

    def maybe(self, read: Callable[[], T]) -> T | None:
        return read() if self.flag() else None

    def entry(self) -> tuple[str, str]:
        return self.text(), self.text()

    def endpoint(self) -> Endpoint:
        return Endpoint(self.text(), self.number(), self.text(), self.flag())

    def fingerprint(self) -> CertificateFingerprint:
        return CertificateFingerprint(self.number(), self.bytes())

    def public_endpoint(self) -> PublicEndpoint:
        return PublicEndpoint(
            self.flag(),
            self.text(),
            self.text(),
            self.maybe(self.fingerprint),
            self.maybe(self.number),
        )

    def statement(self) -> tuple[str, Registration, Occasion]:
        assert self.text() == LABEL
        method = self.text()
        occasion = Occasion(self.bytes(), self.bytes(), self.number())
        mesh_id, agent_id, pubkey = self.text(), self.text(), self.text()
        registration = Registration(
            mesh_id=mesh_id,
            pubkey=pubkey,
            endpoints=tuple(self.list(self.text)),
            metadata=dict(self.list(self.entry)),
            mesh_ipv4=self.text(),
            mesh_ipv6=self.text(),
            connect_port=self.number(),
            public_port=self.number(),
            observed_endpoint=self.maybe(self.endpoint),
            public_endpoint=self.maybe(self.public_endpoint),
            agent_id=agent_id,
        )
        assert not self.rest
        return method, registration, occasion


@examples(300)
@given(st.sampled_from(Method), _registrations, _occasions)
def test_a_statement_can_be_read_back(
    method: Method, said: Registration, occasion: Occasion
) -> None:
    assert Reader(statement(method, said, occasion)).statement() == (method, said, occasion)


@examples(200)
@given(_registrations, _registrations)
def test_different_registrations_never_share_a_statement(
    one: Registration, other: Registration
) -> None:
    made = [statement(Method.REGISTER_AGENT, said, OCCASION) for said in (one, other)]

    assert (made[0] == made[1]) == (one == other)


@pytest.mark.parametrize("change", CHANGES, ids=CHANGE_NAMES)
def test_each_change_changes_the_statement(change: Mapping[str, Any]) -> None:
    changed = replace(FULL, **change)
    assert changed != FULL

    assert statement(Method.REGISTER_COLONY, changed, OCCASION) != statement(
        Method.REGISTER_COLONY, FULL, OCCASION
    )


def test_every_field_of_a_registration_is_in_a_change() -> None:
    changed = {name for change in CHANGES for name in change}

    assert changed | {"pubkey"} == set(Registration.__slots__)


@pytest.mark.parametrize(
    "change", [{"server_key": b"x" * 32}, {"nonce": b"x" * 40}, {"at_ms": 1}], ids=shown
)
def test_each_occasion_has_its_own_statement(change: Mapping[str, Any]) -> None:
    assert statement(Method.REGISTER_COLONY, FULL, OCCASION) != statement(
        Method.REGISTER_COLONY, FULL, replace(OCCASION, **change)
    )


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=5), st.randoms())
def test_metadata_has_no_order(metadata: dict[str, str], random: Any) -> None:
    entries = list(metadata.items())
    random.shuffle(entries)
    made = [
        statement(Method.REGISTER_COLONY, replace(FULL, metadata=said), OCCASION)
        for said in (metadata, dict(entries))
    ]

    assert made[0] == made[1]


def test_metadata_is_sorted_by_utf_8_and_not_by_utf_16() -> None:
    # U+FF61 comes before U+10002 in UTF-8, and behind its surrogates in UTF-16.
    said = replace(FULL, metadata={"\U00010002": "2", "｡": "1"})

    made = statement(Method.REGISTER_COLONY, said, OCCASION)

    assert made.index("｡".encode()) < made.index("\U00010002".encode())
