"""Pages and their tokens."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.paging import check_page, make_token, read_token
from tests.support import examples

IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", fullmatch=True)


@given(after=IDS)
@examples(50)
def test_a_token_says_where_the_next_page_begins(after: str) -> None:
    token = make_token(after)
    assert token
    assert read_token(token) == after
    assert not list(check_page(0, token))


def test_the_first_page_and_the_last_have_no_token() -> None:
    assert make_token("") == ""
    assert read_token("") == ""


@pytest.mark.parametrize(
    "token",
    [
        "?",
        "YQ",
        "YQ==YQ==",
        "ÿ",
        base64.urlsafe_b64encode(b"\xff").decode(),
        base64.urlsafe_b64encode(b"a/b").decode(),
        base64.urlsafe_b64encode(b"a" * 254).decode(),
    ],
)
def test_what_is_no_token_is_named(token: str) -> None:
    assert [violation.field for violation in check_page(10, token)] == ["page_token"]


def test_a_page_of_negative_size_is_named() -> None:
    assert [violation.field for violation in check_page(-1, "")] == ["page_size"]
