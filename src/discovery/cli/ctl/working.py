"""Doing what a command says: once, again and again, or until somebody stops it; and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import typer

from discovery.errors import Code, DiscoveryError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from discovery.ctl.output import Printer

NAME = "coral-discoveryctl"

_AWAY = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})
_NO_TIME = 0.01


def do(work: Coroutine[Any, Any, None]) -> None:
    """Do `work`; an error is said on one line, and makes the exit code."""
    with _errors_said():
        asyncio.run(work)


def follow(work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, which SIGINT and SIGTERM end as it is meant to end."""
    from discovery.runners.stopping import run_until_stopped

    with _errors_said():
        run_until_stopped(work)


def show(
    render: Callable[[Printer], Awaitable[None]],
    output: Literal["table", "json", "yaml"],
    *,
    every: float | None,
) -> None:
    """Print what `render` does, once; or each `every` seconds, on a terminal always in the same place."""
    from discovery.ctl.output import Printer

    printer = Printer(output)
    if every is None:
        do(_once(render, printer))
    elif printer.for_people and printer.console.is_terminal:
        from discovery.ctl.live import show_live

        follow(show_live(_frames(render, max(every, _NO_TIME)), printer.console))
    else:
        follow(_again(render, printer, max(every, _NO_TIME)))


def fail(message: str, code: int) -> typer.Exit:
    """Say on one line why a command cannot go on, and return what ends it."""
    from discovery.ctl.text import on_one_line

    typer.echo(f"{NAME}: {on_one_line(message)}", err=True)
    return typer.Exit(code)


def note(message: str) -> None:
    """Say something that is no part of the output, on stderr."""
    from discovery.ctl.text import clean

    typer.echo(clean(message), err=True)


async def _once(render: Callable[[Printer], Awaitable[None]], printer: Printer) -> None:
    await render(printer)


async def _again(
    render: Callable[[Printer], Awaitable[None]], printer: Printer, every: float
) -> None:
    while True:
        await render(printer)
        printer.console.file.flush()
        await asyncio.sleep(every)


async def _frames(
    render: Callable[[Printer], Awaitable[None]], every: float
) -> AsyncGenerator[RenderableType]:
    """Yield what `render` prints; a server that is away for a while does not end the view."""
    from rich.text import Text

    from discovery.ctl.failures import said
    from discovery.ctl.output import Printer, make_console

    seen = False
    while True:
        console = make_console()
        try:
            with console.capture() as captured:
                await render(Printer("table", console))
        except DiscoveryError as error:
            if not seen or error.code not in _AWAY:
                raise
            yield Text(said(error), style="red")
        else:
            seen = True
            yield Text.from_ansi(captured.get())
        await asyncio.sleep(every)


@contextmanager
def _errors_said() -> Iterator[None]:
    try:
        yield
    except DiscoveryError as error:
        from discovery.ctl.failures import exit_code, said

        raise fail(said(error), exit_code(error)) from None
