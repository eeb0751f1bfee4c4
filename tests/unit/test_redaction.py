from __future__ import annotations

import pytest

from discovery.transport.redaction import holds_secret, redacted

SECRET = "coral_" + "aZ09_-x" * 6 + "x"


@pytest.mark.parametrize(
    "text", [SECRET, f"mesh '{SECRET}' is", f"/v1/{SECRET}/x", f"a {SECRET}\n"]
)
def test_an_api_key_is_replaced_wherever_it_stands(text: str) -> None:
    assert holds_secret(text)
    assert redacted(text) == text.replace(SECRET, "coral_...")


@pytest.mark.parametrize(
    "text",
    ["", "my-app-prod", "coral_production", SECRET[:-1], f"{SECRET}-and-more", f"my-{SECRET}"],
)
def test_a_name_that_is_like_one_stays(text: str) -> None:
    assert not holds_secret(text)
    assert redacted(text) == text
