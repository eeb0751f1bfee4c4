"""A nonce is used once, whatever happens, and remembering that stays small."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.proof import MemorySeenNonces, Nonce
from discovery.proof.nonces import make_nonce, read_nonce
from tests.support import ManualClock, examples


def _new(clock: ManualClock) -> Iterator[Nonce]:
    number = 0
    while True:
        yield Nonce(number.to_bytes(40, "big"), clock.now().unix_us // 1000)
        number += 1


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def new(clock: ManualClock) -> Iterator[Nonce]:
    return _new(clock)


async def test_a_nonce_is_used_once(clock: ManualClock, new: Iterator[Nonce]) -> None:
    seen, first, second = MemorySeenNonces(clock), next(new), next(new)

    assert [await seen.use(nonce) for nonce in (first, second, first, second)] == [
        True, True, False, False,
    ]  # fmt: skip


async def test_a_nonce_is_remembered_while_any_replica_may_take_it(
    clock: ManualClock, new: Iterator[Nonce]
) -> None:
    seen, nonce = MemorySeenNonces(clock), next(new)
    await seen.use(nonce)
    while clock.now().unix_us // 1000 < nonce.keep_until_ms:
        assert not await seen.use(nonce)
        clock.advance(0.5)


async def test_a_nonce_that_waits_stays_good_while_others_are_used(
    clock: ManualClock, new: Iterator[Nonce]
) -> None:
    seen, waiting = MemorySeenNonces(clock), next(new)
    while waiting.is_good(clock.now().unix_us // 1000 + 1000):
        assert await seen.use(next(new))
        clock.advance(1)

    assert await seen.use(waiting)


async def test_nothing_is_kept_for_longer(clock: ManualClock, new: Iterator[Nonce]) -> None:
    seen = MemorySeenNonces(clock)
    for _ in range(1000):
        assert await seen.use(next(new))
        clock.advance(0.01)
    clock.advance(182)

    assert await seen.use(next(new))
    assert (seen._size, len(seen._used), len(seen._seconds)) == (1, 1, 1)


async def test_nonces_of_before_the_start_are_refused(
    clock: ManualClock, new: Iterator[Nonce]
) -> None:
    before = next(new)
    clock.advance(0.001)
    seen = MemorySeenNonces(clock)

    assert not await seen.use(before)
    assert await seen.use(next(new))


async def test_a_flood_takes_no_more_memory_and_keeps_nobody_out(
    clock: ManualClock, new: Iterator[Nonce]
) -> None:
    seen, waiting = MemorySeenNonces(clock, limit=100), next(new)
    used = [next(new) for _ in range(3)]
    assert [await seen.use(nonce) for nonce in used] == [True] * 3
    for _ in range(1000):
        clock.advance(0.1)
        assert await seen.use(next(new)), "who answers a new challenge is let in"
        assert seen._size <= 100

    assert not any([await seen.use(nonce) for nonce in used]), "what is forgotten stays refused"
    assert not await seen.use(waiting), "it cannot be told from one that was used"


async def test_more_than_the_limit_within_a_second_lets_nothing_be_used_twice(
    clock: ManualClock, new: Iterator[Nonce]
) -> None:
    seen = MemorySeenNonces(clock, limit=10)
    nonces = [next(new) for _ in range(25)]
    accepted = [nonce for nonce in nonces if await seen.use(nonce)]
    assert len(accepted) == 11
    assert not any([await seen.use(nonce) for nonce in nonces])

    clock.advance(1)
    assert await seen.use(next(new))


async def test_a_clock_that_is_set_back_keeps_nobody_out(
    clock: ManualClock, new: Iterator[Nonce]
) -> None:
    seen = MemorySeenNonces(clock)
    clock.step_wall(-3600)
    nonce = next(new)

    assert await seen.use(nonce)
    assert not await seen.use(nonce)


@examples(200)
@given(
    limit=st.integers(1, 6),
    steps=st.lists(
        st.one_of(
            st.floats(0, 100).map(lambda seconds: ("pass", seconds)),
            st.integers(0, 12).map(lambda number: ("use", number)),
        ),
        max_size=60,
    ),
)
async def test_no_history_lets_a_nonce_be_used_twice(
    limit: int, steps: list[tuple[str, float]]
) -> None:
    clock = ManualClock()
    new, seen = _new(clock), MemorySeenNonces(clock, limit=limit)
    given_out: list[Nonce] = []
    used: list[bytes] = []
    for verb, value in steps:
        if verb == "pass":
            clock.advance(value)
            continue
        given_out.append(next(new))
        nonce = given_out[-1 - int(value) % len(given_out)]
        if await seen.use(nonce):
            used.append(nonce.value)

    assert len(used) == len(set(used))
    assert seen._size <= limit


# Nonces themselves


@given(
    st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16), st.integers(0, 2**63)
)
def test_a_nonce_says_when_it_was_made(key: bytes, random: bytes, at_ms: int) -> None:
    nonce = make_nonce(key, random, at_ms)

    assert len(nonce) == 40
    assert read_nonce(key, nonce) == Nonce(nonce, at_ms)


@given(st.integers(0, 2**63), st.integers(-60_000, 60_000))
def test_a_nonce_is_kept_until_no_replica_takes_it(issued_ms: int, behind_ms: int) -> None:
    nonce = Nonce(bytes(40), issued_ms)

    assert not nonce.is_good(nonce.keep_until_ms - behind_ms)


@given(st.binary(max_size=64))
def test_what_we_did_not_make_is_no_nonce(made_up: bytes) -> None:
    with pytest.raises(ValueError, match="not a nonce"):
        read_nonce(b"k" * 32, made_up)
