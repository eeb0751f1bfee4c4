"""Views that renew themselves, until `q` or Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager

from rich.console import Console, RenderableType
from rich.live import Live

_QUIT = b"qQ"


async def show_live(frames: AsyncGenerator[RenderableType], console: Console) -> None:
    """Show each of `frames` in the place of the one before, on the whole terminal, until `q` is pressed."""
    with _quit_pressed() as quitting:
        async with aclosing(_until(quitting, frames)) as shown:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                async for frame in shown:
                    live.update(frame, refresh=True)


async def _until(
    quitting: asyncio.Event, frames: AsyncIterator[RenderableType]
) -> AsyncGenerator[RenderableType]:
    stop = asyncio.ensure_future(quitting.wait())
    try:
        while True:
            coming = asyncio.ensure_future(anext(frames))
            try:
                await asyncio.wait((coming, stop), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not coming.done():
                    coming.cancel()
                    await asyncio.wait((coming,))
            if stop.done():
                return
            yield coming.result()
    finally:
        stop.cancel()


@contextmanager
def _quit_pressed() -> Iterator[asyncio.Event]:
    """Provide an event that happens when `q` is pressed; never, where there is no keyboard."""
    pressed = asyncio.Event()
    if not sys.stdin.isatty():
        yield pressed
        return
    keyboard = sys.stdin.fileno()
    loop, before = asyncio.get_running_loop(), termios.tcgetattr(keyboard)

    def read() -> None:
        keys = os.read(keyboard, 64)
        if not keys:
            loop.remove_reader(keyboard)
        if any(key in _QUIT for key in keys):
            pressed.set()

    tty.setcbreak(keyboard)  # one key at a time, without an Enter; Ctrl-C stays a signal
    loop.add_reader(keyboard, read)
    try:
        yield pressed
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
