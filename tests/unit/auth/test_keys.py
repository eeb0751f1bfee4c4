"""A key is found by its secret alone, while its time lasts, and allows what its roles and patterns say."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.auth.keys import ApiKey, Keys, Role, digest_of, new_secret
from discovery.clock import MICROSECONDS
from tests.support import ManualClock, examples, shown

SECRET = "coral_" + "Cc2-_" * 8 + "Xx7"
OTHER = "coral_" + "Dd3-_" * 8 + "Ww6"
NOW = ManualClock().now()


def _key(secret: str = SECRET, **changes: Any) -> ApiKey:
    values: dict[str, Any] = {"name": "ci", "roles": frozenset({Role.REGISTER}), **changes}
    return ApiKey(digest=digest_of(secret), **values)


def _matches(pattern: str, text: str) -> bool:
    """What a pattern means, in as few words as there are; it takes for ever on some."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(_matches(pattern[1:], text[i:]) for i in range(len(text) + 1))
    return text[:1] == pattern[0] and _matches(pattern[1:], text[1:])


# Secrets


def test_a_secret_is_256_bits_behind_a_prefix_and_another_each_time() -> None:
    secrets = {new_secret() for _ in range(64)}

    assert len(secrets) == 64
    assert all(re.fullmatch(r"coral_[A-Za-z0-9_-]{43}", secret) for secret in secrets)


def test_what_is_kept_is_the_sha_256_of_the_whole_secret() -> None:
    assert digest_of(SECRET) == hashlib.sha256(SECRET.encode()).digest()


def test_a_key_is_found_by_its_secret_among_others() -> None:
    others = [_key(new_secret(), name=f"other-{n}") for n in range(100)]

    assert Keys([*others, _key()]).find(SECRET, NOW) == _key()


@pytest.mark.parametrize(
    "secret",
    ["", "coral_", SECRET[:-1], SECRET + "x", SECRET + "\n", " " + SECRET, SECRET.upper(), OTHER,
     digest_of(SECRET).hex(), f"sha256:{digest_of(SECRET).hex()}", "é" * 49, "coral_" + "é" * 43, "x" * 100_000],
    ids=shown,
)  # fmt: skip
def test_no_other_secret_finds_it(secret: str) -> None:
    assert Keys([_key()]).find(secret, NOW) is None


def test_a_key_is_found_until_it_expires_and_not_then() -> None:
    clock = ManualClock()
    keys = Keys([_key(expires_at_us=clock.now().unix_us + 10 * MICROSECONDS)])

    clock.advance(9.999_999)
    assert keys.find(SECRET, clock.now()) is not None
    clock.advance(0.000_001)
    assert keys.find(SECRET, clock.now()) is None


def test_the_wall_clock_decides_when_a_key_has_expired() -> None:
    clock = ManualClock()
    keys = Keys([_key(expires_at_us=clock.now().unix_us + 10 * MICROSECONDS)])

    clock.step_wall(10)

    assert keys.find(SECRET, clock.now()) is None


def test_no_repr_holds_a_secret_or_its_digest() -> None:
    key, keys = _key(), Keys([_key()])
    said = f"{key} {key!r} {keys} {keys!r} {[*keys]}"

    assert SECRET not in said
    assert digest_of(SECRET).hex() not in said
    assert repr(digest_of(SECRET)) not in said


# What a key allows


def test_a_key_has_its_roles_and_no_other() -> None:
    for role in Role:
        key = _key(roles=frozenset({role}))
        assert [other for other in Role if key.allows(other, "mesh")] == [role]


@pytest.mark.parametrize(
    "pattern, mesh_id, expected",
    [
        ("*", "anything", True),
        ("team-*", "team-1", True),
        ("team-*", "team-", True),
        ("team-*", "Team-1", False),
        ("team-*", "my-team-1", False),
        ("*-prod", "a-prod", True),
        ("*-prod", "a-prod-1", False),
        ("a.b", "a.b", True),
        ("a.b", "axb", False),
        ("a*b*a", "aba", True),
        ("a*a", "a", False),
        ("team-*", "team-1\n", True),
        ("team-1", "team-1\n", False),
        ("team-1", "", False),
    ],
)
def test_a_pattern_matches_the_whole_mesh_id(pattern: str, mesh_id: str, expected: bool) -> None:
    assert _key(meshes=(pattern,)).allows(Role.REGISTER, mesh_id) is expected


def test_one_pattern_of_many_is_enough() -> None:
    key = _key(meshes=("a-*", "b", "*-c"))

    assert [m for m in ("a-1", "b", "x-c", "bb", "a", "c") if key.allows(Role.REGISTER, m)] == [
        "a-1",
        "b",
        "x-c",
    ]


@examples(300)
@given(
    st.lists(st.text("ab.*", min_size=1, max_size=8), min_size=1, max_size=3),
    st.text("ab.x", max_size=10),
)
def test_a_pattern_means_what_a_naive_matcher_says(patterns: list[str], text: str) -> None:
    expected = any(_matches(pattern, text) for pattern in patterns)

    assert _key(meshes=tuple(patterns)).allows(Role.REGISTER, text) is expected


# A matcher that backtracks takes longer than the universe has: the test would hang until its limit.
@pytest.mark.parametrize("pattern", ["*a" * 125 + "*b", "a*" * 126, "*" * 253, "*a*" * 84 + "b"])
def test_no_pattern_takes_long(pattern: str) -> None:
    assert _key(meshes=(pattern,) * 20).allows(Role.REGISTER, "a" * 253) == pattern.endswith("*")


def test_what_is_too_long_for_a_mesh_id_is_matched_by_every_mesh_alone() -> None:
    assert _key(meshes=("a", "*")).allows(Role.REGISTER, "a" * 254)
    assert not _key(meshes=("a*", "**")).allows(Role.REGISTER, "a" * 254)
