from __future__ import annotations

from contextlib import aclosing

import pytest

from discovery.cli.ctl.working import _frames
from discovery.ctl.output import Printer
from discovery.errors import PermissionDeniedError, UnreachableError


class Replies:
    """Prints, or raises, one after the other."""

    def __init__(self, *replies: str | Exception) -> None:
        self._replies = iter(replies)

    async def render(self, printer: Printer) -> None:
        reply = next(self._replies)
        if isinstance(reply, Exception):
            raise reply
        printer.say({}, reply)


async def test_a_view_outlives_a_server_that_is_away_for_a_while() -> None:
    replies = Replies("one", UnreachableError("it is gone"), "two")
    async with aclosing(_frames(replies.render, 0)) as frames:
        assert [str(await anext(frames)).strip() for _ in range(3)] == ["one", "it is gone", "two"]


@pytest.mark.parametrize(
    "replies",
    [
        [UnreachableError("nobody is there")],
        ["one", PermissionDeniedError("you may not")],
    ],
)
async def test_a_view_ends_if_it_never_began_or_is_refused(replies: list[str | Exception]) -> None:
    async with aclosing(_frames(Replies(*replies).render, 0)) as frames:
        for _ in replies[:-1]:
            await anext(frames)
        with pytest.raises((UnreachableError, PermissionDeniedError)):
            await anext(frames)
