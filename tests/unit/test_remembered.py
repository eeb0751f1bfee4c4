"""What is remembered of objects that nobody changes: results, and which are equal."""

from __future__ import annotations

from typing import Any

import pytest

from discovery.models import Registration
from discovery.remembered import Latest, Remembered
from discovery.stores.memory.sameness import Sameness
from tests.support import registration


class Thing:
    """Something to remember a result of."""


def test_a_result_is_remembered_for_the_very_same_object() -> None:
    asked: list[Thing] = []

    def describe(thing: Thing) -> str:
        asked.append(thing)
        return f"{len(asked)}"

    remembered = Remembered(describe)
    one, other = Thing(), Thing()
    assert [remembered(one), remembered(other), remembered(one)] == ["1", "2", "1"]


def test_no_other_object_takes_the_place_of_one_that_is_remembered() -> None:
    remembered = Remembered(id)
    seen = [remembered(Thing()) for _ in range(100)]  # nobody else keeps them
    assert len({*seen}) == 100


def test_there_is_room_for_so_many_results() -> None:
    asked: list[object] = []
    remembered = Remembered(asked.append, room=2)
    things = [Thing() for _ in range(3)]
    for thing in (*things, things[2], things[0]):
        remembered(thing)
    assert asked == [*things, things[0]]


def test_what_is_raised_is_not_remembered() -> None:
    asked: list[Thing] = []

    def fail(thing: Thing) -> None:
        asked.append(thing)
        raise LookupError

    remembered, thing = Remembered(fail), Thing()
    for _ in range(2):
        with pytest.raises(LookupError):
            remembered(thing)
    assert asked == [thing, thing]


class Compared(Registration):
    """A registration that counts how often it was compared."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return isinstance(other, Registration) and self.mesh_id == other.mesh_id

    __hash__ = Registration.__hash__


@pytest.fixture(autouse=True)
def _nothing_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Compared, "times", 0)


def compared(mesh_id: str) -> Compared:
    return Compared(mesh_id, "key")


def test_the_same_two_are_compared_once() -> None:
    same, new, held = Sameness(), compared("a"), registration(mesh_id="a")
    assert all(same(new, held) for _ in range(3))
    assert Compared.times == 1


@pytest.mark.parametrize("other", ["a", "b"])
def test_what_is_held_may_be_another_by_now(other: str) -> None:
    same, new = Sameness(), compared("a")
    assert same(new, registration(mesh_id="a"))
    assert same(new, registration(mesh_id=other)) is (other == "a")
    assert Compared.times == 2


def test_what_differs_is_not_remembered() -> None:
    same, new, held = Sameness(), compared("a"), registration(mesh_id="b")
    assert not any(same(new, held) for _ in range(2))
    assert Compared.times == 2


def test_sameness_is_bounded() -> None:
    same: Any = Sameness()
    same._equal = Latest(2)
    for name in "abc":
        assert same(registration(mesh_id=name), registration(mesh_id=name))
    assert len(same._equal.kept) == 2


def test_one_more_takes_the_place_of_the_earliest_and_of_no_other() -> None:
    latest = Latest[str, int](3)
    for number, name in enumerate("abcbd"):
        latest.add(name, number)
    assert latest.kept == {"b": 3, "c": 2, "d": 4}
