"""The key of a call is one bearer token, or there is none; what is neither is refused and never repeated."""

from __future__ import annotations

import traceback

import pytest
from multidict import MultiDict

from discovery.auth import bearer
from discovery.errors import UnauthenticatedError
from tests.support import shown

TOKEN = "coral_" + "x" * 43


@pytest.mark.parametrize(
    "value, token",
    [
        (f"Bearer {TOKEN}", TOKEN),
        (f"bearer {TOKEN}", TOKEN),
        (f"BEARER   {TOKEN}", TOKEN),
        (f" Bearer {TOKEN}\t", TOKEN),
        ("Bearer a.b-c_d~e+f/g==", "a.b-c_d~e+f/g=="),
    ],
)
def test_a_bearer_token_is_read(value: str, token: str) -> None:
    assert bearer({"authorization": value}) == token


@pytest.mark.parametrize("name", ["authorization", "Authorization", "AUTHORIZATION"])
def test_the_headers_name_has_any_case(name: str) -> None:
    assert bearer({"x-other": "Bearer other", name: f"Bearer {TOKEN}"}) == TOKEN


def test_without_the_header_there_is_none() -> None:
    assert bearer({"x-authorization": f"Bearer {TOKEN}"}) is None


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer{TOKEN}", f"Bearer\t{TOKEN}", f"Bearer: {TOKEN}",
        f"Bearer {TOKEN} {TOKEN}", f"Bearer {TOKEN}, Bearer {TOKEN}", f"Bearer {TOKEN}\n", f"Bearer ={TOKEN}",
        f"Bearer {TOKEN}=a", f'Bearer "{TOKEN}"', f"Bearer realm={TOKEN}", f"Bearer {TOKEN}é", f"Bearer\u00a0{TOKEN}",
        f"Bearer {TOKEN}".encode(), "Bearer " + "=" * 60_000, "Bearer" + " " * 60_000,
    ],
    ids=shown,
)  # fmt: skip
def test_what_is_no_bearer_token_is_refused_and_not_repeated(value: str | bytes) -> None:
    with pytest.raises(UnauthenticatedError) as refusal:
        bearer({"authorization": value})

    said = "".join(traceback.format_exception(refusal.value))
    assert str(refusal.value) == "authorization must be one `Bearer KEY`"
    assert TOKEN not in said


def test_two_headers_are_refused_even_if_they_agree() -> None:
    twice = MultiDict([("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {TOKEN}")])

    with pytest.raises(UnauthenticatedError):
        bearer(twice)
