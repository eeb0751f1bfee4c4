"""Running a document's examples, and comparing what they print with what the document says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.docs.markdown import ROOT, Block
from tests.integration.support import LOOPBACK, PATIENCE, Running, clean_environment

# What differs from run to run: documents show an example of it.
_VOLATILE = {"expiresAt", "lastSeen", "revision", "refreshAfter", "uptimeSeconds"}
_OPTION = re.compile(r"(?:fails|until .+|after \d+ s)?")
_COMMANDS: Mapping[str, Sequence[str]] = {
    "bash": ("bash", "-euo", "pipefail", "-c"),
    "python": (sys.executable, "-c"),
    "js": ("node", "--input-type=module", "--eval"),
}

RUNNABLE = frozenset(_COMMANDS)
"""The languages whose blocks are run, or have to say why they are not."""


@dataclass(frozen=True, slots=True)
class _How:
    """What the marker of a block to run adds."""

    seconds: int
    awaited: str | None
    fails: bool


class Reader:
    """Follows a document from top to bottom, as somebody does who tries everything."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self._printed = ""

    async def follow(self, block: Block) -> None:
        """Do what the block's marker says."""
        match block.verb:
            case "run":
                await self._run(block)
            case "prints":
                said, printed = _values(block.text), _values(self._printed)
                assert _agree(said, printed), f"{block.place}: it printed\n{self._printed}"

    async def _run(self, block: Block) -> None:
        how = _how(block)
        self._server.clock.advance(how.seconds)
        async with asyncio.timeout(PATIENCE):
            self._printed, code = await _execution(
                self._command(block), self._environment(), how.awaited
            )
        told = f"{block.place}: it printed\n{self._printed}\nand ended with exit code {code}"
        if how.awaited is None:
            assert (code != 0) == how.fails, told
        else:
            assert how.awaited in self._printed, told

    def _command(self, block: Block) -> Sequence[str]:
        text = block.text.replace("localhost:8080", f"{LOOPBACK}:{self._server.port}")
        text = text.replace(" keys.yaml", ' "$TMPDIR/keys.yaml"')
        return (*_COMMANDS[block.language], text.replace(".venv/bin/", ""))

    def _environment(self) -> Mapping[str, str]:
        """Return an environment in which `python`, `buf` and the rest are those of this Python's environment."""
        path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
        admin = f"{LOOPBACK}:{self._server.server.admin_port}"
        return clean_environment(PATH=path, CORAL_DISCOVERY_ADMIN=admin)


def _how(block: Block) -> _How:
    options = block.detail.split(", ")
    assert all(map(_OPTION.fullmatch, options)), f"{block.place}: {block.marker}?"
    seconds = sum(int(n) for o in options for n in re.findall(r"^after (\d+) s$", o))
    awaited = [o.removeprefix("until ") for o in options if o.startswith("until ")]
    return _How(seconds, awaited[0] if awaited else None, "fails" in options)


async def _execution(
    command: Sequence[str], environment: Mapping[str, str], awaited: str | None
) -> tuple[str, int]:
    """Run a command until it ends, or has printed what is awaited; return what it printed, and its exit code."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.PIPE if awaited else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        printed = await _output(process, awaited)
    finally:
        _end(process)
        await process.communicate()
    return printed, process.returncode or 0


async def _output(process: asyncio.subprocess.Process, awaited: str | None) -> str:
    assert process.stdout is not None
    printed = b""
    while chunk := await process.stdout.read(4096):
        printed += chunk
        if awaited is not None and awaited.encode() in printed:
            return printed.decode()
    await process.wait()
    return printed.decode()


def _end(process: asyncio.subprocess.Process) -> None:
    """End the command and what it started, if it has not ended."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)


def missing_tool(block: Block) -> str | None:
    """Return the program that it takes to run the block, if this machine does not have it."""
    if block.verb != "run":
        return None
    needed = (_COMMANDS[block.language][0], *(("jq",) if "| jq " in block.text else ()))
    return next((program for program in needed if not shutil.which(program)), None)


def _values(text: str) -> Any:
    """Return the JSON values in `text` one after another, or `text` itself if it is not JSON."""
    values, rest = [], text.strip()
    try:
        while rest:
            value, end = json.JSONDecoder().raw_decode(rest)
            values.append(value)
            rest = rest[end:].lstrip()
    except ValueError:
        return text.strip()
    return values


def _agree(said: Any, printed: Any) -> bool:
    """Compare; text that ends in `...` stands for all that begins like it."""
    match said, printed:
        case dict(), dict():
            keys = said.keys() - _VOLATILE
            same = keys == printed.keys() - _VOLATILE
            return same and all(_agree(said[key], printed[key]) for key in keys)
        case list(), list():
            return len(said) == len(printed) and all(map(_agree, said, printed))
        case str(), str() if said.endswith("..."):
            return printed.startswith(said.removesuffix("..."))
    return bool(said == printed)
