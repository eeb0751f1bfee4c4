"""The programs that tunnels are made with, run as child processes. No secret is ever in their arguments."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from discovery.wireguard.errors import (
    CommandFailedError,
    PermissionNeededError,
    ProgramMissingError,
    TunnelError,
)

PACKAGES = {
    "ip": "iproute2",
    "setpriv": "util-linux",
    "wg": "wireguard-tools",
    "wireguard-go": "wireguard-go",
}
"""Debian's package of each program."""

DENIED = ("not permitted", "permission denied", "access denied")
"""What programs say, in lower case, when the kernel does not let them."""


_LIMIT = 10.0
_NAMED = 4


class Runner(Protocol):
    """Runs programs to their end."""

    async def run(self, *argv: str, stdin: str = "") -> str:
        """Run a program and return what it wrote to stdout. `stdin` is the place for a secret.

        Raises:
            ProgramMissingError: it is not installed.
            PermissionNeededError: the kernel did not let it.
            CommandFailedError: it ended with another exit code than 0.
            TunnelError: it does not end.
        """


class Programs:
    """The Runner of real programs, found on the PATH."""

    def __init__(self, limit: float = _LIMIT) -> None:
        """Give each run `limit` seconds: a control socket whose server hangs would hang `wg` with it."""
        self._limit = limit

    async def run(self, *argv: str, stdin: str = "") -> str:
        """Run a program; see Runner."""
        try:
            async with asyncio.timeout(self._limit):
                code, out, err = await _run(argv, stdin)
        except TimeoutError:
            raise TunnelError(f"`{command(argv)}` took more than {self._limit:g} s") from None
        if code != 0:
            raise failure(argv, err)
        return out


async def _run(argv: tuple[str, ...], stdin: str) -> tuple[int | None, str, str]:
    with missing(argv[0]), _readable(stdin) as descriptor:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=descriptor, stdout=PIPE, stderr=PIPE, env=environment()
        )
    try:
        out, err = await process.communicate()
    finally:
        await end(process)
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


async def end(process: Process, patience: float = 0.0) -> None:
    """End a process that may have ended: ask it to, and kill it if it takes more than `patience` seconds."""
    if process.returncode is not None:
        return
    try:
        if patience:
            process.terminate()
            async with asyncio.timeout(patience):
                await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            process.kill()
    await process.wait()


@contextmanager
def _readable(text: str) -> Iterator[int]:
    """Return a descriptor that reads `text`.

    asyncio's own stdin is a socket, which `wg ... /dev/stdin` cannot open. All that we write fits into a pipe's buffer.
    """
    if not text:
        yield DEVNULL
        return
    read, write = os.pipe()
    try:
        os.write(write, text.encode())
        os.close(write)
        yield read
    finally:
        os.close(read)


@contextmanager
def missing(program: str) -> Iterator[None]:
    """Say which package has a program that is not there."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise ProgramMissingError(program, PACKAGES[program]) from None


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a program whose messages we read."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CORAL_")}
    return {**ours, "LC_ALL": "C", **more}


def failure(argv: tuple[str, ...], said: str) -> TunnelError:
    """Return the error for what a program said when it failed."""
    line = " ".join(said.split())
    if any(word in line.lower() for word in DENIED):
        return PermissionNeededError(f"`{command(argv)}`")
    return CommandFailedError(command(argv), line)


def command(argv: tuple[str, ...]) -> str:
    """Return enough of a command to know it by."""
    return " ".join(argv[:_NAMED])
