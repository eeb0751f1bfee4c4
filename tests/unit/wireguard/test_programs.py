"""Real child processes: their words become errors, secrets reach them by stdin, and none outlives its caller."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from signal import SIGKILL, SIGTERM

import psutil
import pytest

from discovery.wireguard import programs
from discovery.wireguard.errors import (
    CommandFailedError,
    PermissionNeededError,
    ProgramMissingError,
    TunnelError,
)
from discovery.wireguard.programs import Programs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tunnels need Linux")


async def _sh(script: str, stdin: str = "", limit: float = 30) -> str:
    return await Programs(limit).run("sh", "-c", script, stdin=stdin)


async def test_what_a_program_prints_is_returned() -> None:
    assert await _sh("echo out; echo err >&2") == "out\n"


async def test_stdin_can_be_opened_by_its_name() -> None:
    assert await _sh("cat /dev/stdin", "a secret\n") == "a secret\n"
    assert await _sh("cat < /dev/stdin", "") == ""


async def test_messages_come_in_english() -> None:
    assert await _sh("echo $LC_ALL") == "C\n"


async def test_what_a_program_says_when_it_fails_is_the_error_on_one_line() -> None:
    with pytest.raises(CommandFailedError) as failure:
        await _sh("echo secret; echo 'it is\n  broken' >&2; exit 3", "secret")

    assert failure.value.said == "it is broken"
    assert "secret" not in str(failure.value).replace("echo secret", "")


async def test_a_program_that_says_nothing_fails_too() -> None:
    with pytest.raises(CommandFailedError, match="did not say why"):
        await _sh("exit 1")
    with pytest.raises(CommandFailedError):
        await _sh("kill -9 $$")


@pytest.mark.parametrize(
    "said",
    ["RTNETLINK answers: Operation not permitted", "Unable to access interface: Permission denied"],
)
async def test_a_missing_right_is_told_from_other_failures(said: str) -> None:
    with pytest.raises(PermissionNeededError, match="root or CAP_NET_ADMIN"):
        await _sh(f"echo '{said}' >&2; exit 1")


@pytest.mark.parametrize("program, package", programs.PACKAGES.items())
async def test_a_program_that_is_not_installed_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, package: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ProgramMissingError, match=f"apt install {package}$"):
        await Programs().run(program, "--version")


async def test_a_program_that_hangs_is_killed() -> None:
    before = psutil.Process().children()

    with pytest.raises(TunnelError, match=r"took more than 0\.1 s"):
        await _sh("exec sleep 1000", limit=0.1)

    assert psutil.Process().children() == before


async def test_a_program_whose_caller_is_cancelled_is_killed(tmp_path: Path) -> None:
    fifo = tmp_path / "started"
    os.mkfifo(fifo)
    running = asyncio.create_task(_sh(f"echo $$ > {fifo}; exec sleep 1000"))
    pid = int(await asyncio.to_thread(fifo.read_text))

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert not _lives(pid)


async def test_a_program_that_will_not_end_is_killed_after_a_while() -> None:
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", "trap '' TERM; echo ready; exec sleep 1000", stdout=PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()

    await programs.end(process, patience=0.05)

    assert process.returncode == -SIGKILL


async def test_a_program_that_ends_when_asked_is_not_killed() -> None:
    process = await asyncio.create_subprocess_exec("sleep", "1000")

    await programs.end(process, patience=30)

    assert process.returncode == -SIGTERM


async def test_no_descriptor_is_left_open() -> None:
    before = _open_descriptors()
    for _ in range(5):
        await _sh("cat", "text")
        with pytest.raises(CommandFailedError):
            await _sh("exit 1", "text")
    with pytest.raises(KeyError):
        await Programs().run("coral-no-such-program", stdin="text")

    assert _open_descriptors() <= before


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
