from __future__ import annotations

from collections.abc import Callable

import betterproto
import pytest

from discovery.models import WatchEvent
from discovery.transport import connect, grpc_stream, rpcs, websocket
from discovery.transport.once import Once
from tests.support import MESH


class Maker:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, thing: list[int]) -> int:
        self.calls += 1
        return sum(thing)


def test_the_very_same_thing_is_made_into_something_once() -> None:
    maker = Maker()
    once, thing = Once(maker), [1, 2]

    assert [once(thing) for _ in range(3)] == [3, 3, 3]
    assert maker.calls == 1


def test_an_equal_thing_is_another() -> None:
    maker = Maker()
    once = Once(maker)

    assert (once([1]), once([1]), once([2])) == (1, 1, 2)
    assert maker.calls == 3


def test_a_failure_is_not_remembered() -> None:
    outcomes: list[ValueError | str] = [ValueError("no"), "made"]

    def make(_thing: str) -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, ValueError):
            raise outcome
        return outcome

    once = Once(make)
    with pytest.raises(ValueError, match="no"):
        once("thing")

    assert once("thing") == "made"


ENCODINGS: dict[str, Callable[[betterproto.Message], object]] = {
    "grpc": grpc_stream.framed,
    "websocket": websocket._text,
    **{f"connect, {one.subtype}": one.encode for one in connect.CODECS},
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_each_protocol_encodes_a_state_once_for_all_who_watch(name: str) -> None:
    encode = ENCODINGS[name]
    state, next_state = (
        rpcs.colony_watch_reply(WatchEvent(MESH, revision, None)) for revision in (300, 301)
    )

    first = encode(state)

    assert encode(state) is first
    assert encode(next_state) != first
    assert encode(state) == first


def test_an_event_becomes_one_message_for_all_who_watch() -> None:
    event, after = WatchEvent(MESH, 300, None), WatchEvent(MESH, 301, None)

    assert rpcs.colony_watch_reply(event) is rpcs.colony_watch_reply(event)
    assert rpcs.colony_watch_reply(after).revision == 301
    assert rpcs.agent_watch_reply(event) is rpcs.agent_watch_reply(event)
