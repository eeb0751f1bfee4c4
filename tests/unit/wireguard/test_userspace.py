"""A wireguard-go of our own: started, waited for, listened to, and ended. Here it is a script."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from discovery.wireguard.errors import PermissionNeededError, ProgramMissingError, TunnelError
from discovery.wireguard.programs import Programs
from discovery.wireguard.userspace import UserspaceDevice

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tunnels need Linux")

# The device is there once `served` is: `wg` looks for it.
WG = "#!/bin/sh\n[ -e {folder}/served ] || { echo No such device >&2; exit 1; }\n"
SERVE = "echo $$ > {folder}/pid; touch {folder}/served; exec sleep 1000"

Install = Callable[[str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a wireguard-go that does as the given script on the PATH, and return the folder it works in."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def put(script: str) -> Path:
        _write(tmp_path / "wg", WG.replace("{folder}", str(tmp_path)))
        _write(
            tmp_path / "wireguard-go",
            f'#!/bin/sh\n[ "$1" = --version ] && exit\n{script}\n'.replace(
                "{folder}", str(tmp_path)
            ),
        )
        return tmp_path

    return put


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _device(
    start_limit: float = 30, served: Callable[[str], bool] = lambda _name: True
) -> UserspaceDevice:
    return UserspaceDevice(Programs(), start_limit, served)


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_it_is_waited_for_until_it_serves_the_device(install: Install) -> None:
    folder = install(f'echo "$@" > {{folder}}/arguments; {SERVE}')
    device = _device()

    await device.create("coral-x")

    assert (folder / "served").exists()
    assert (folder / "arguments").read_text() == "-f coral-x\n"
    await device.destroy()


async def test_wg_is_not_asked_before_it_listens(install: Install) -> None:
    folder = install(SERVE)
    # `wg` takes a socket that nobody listens at yet for one that was left behind, and removes it.
    _write(folder / "wg", f"#!/bin/sh\n[ -e {folder}/listens ] || touch {folder}/asked-too-soon\n")
    answers = iter([False, False, True])

    def listens(_name: str) -> bool:
        answer = next(answers)
        if answer:
            (folder / "listens").touch()
        return answer

    device = _device(served=listens)
    await device.create("coral-x")

    assert not (folder / "asked-too-soon").exists()
    await device.destroy()


async def test_it_ends_with_its_device(install: Install) -> None:
    folder, device = install(SERVE), _device()
    await device.create("coral-x")
    pid = int((folder / "pid").read_text())
    assert _lives(pid)

    await device.destroy()
    await device.destroy()

    assert not _lives(pid)


async def test_what_it_said_when_it_would_not_start_is_the_error(install: Install) -> None:
    install("echo starting; echo 'Failed to create TUN: /dev/net/tun missing' >&2; exit 1")
    device = _device()

    with pytest.raises(
        TunnelError, match=r"ended with 1: starting / Failed .*/dev/net/tun missing"
    ):
        await device.create("coral-x")

    await device.destroy()


async def test_a_missing_right_is_named(install: Install) -> None:
    install("echo 'Failed to create TUN device: Operation not permitted'; exit 1")
    device = _device()

    with pytest.raises(PermissionNeededError, match="wireguard-go needs root"):
        await device.create("coral-x")

    await device.destroy()


async def test_one_that_serves_nothing_is_given_up_and_ended(install: Install) -> None:
    install("exec sleep 1000")
    before, device = psutil.Process().children(), _device(start_limit=0.1)

    with pytest.raises(TunnelError, match="made no device coral-x"):
        await device.create("coral-x")
    await device.destroy()

    assert psutil.Process().children() == before


async def test_a_device_whose_program_ends_is_lost_with_its_last_words(install: Install) -> None:
    device = _device()
    folder = install("touch {folder}/served; read _ < {folder}/fate; echo it broke; exit 7")
    os.mkfifo(folder / "fate")
    await device.create("coral-x")
    lost = asyncio.create_task(device.lost())

    await asyncio.to_thread((folder / "fate").write_text, "now\n")

    assert await lost == "wireguard-go ended with 7: it broke"
    assert await device.lost() == "wireguard-go ended with 7: it broke"
    await device.destroy()


async def test_a_device_that_is_not_made_is_not_lost() -> None:
    lost = asyncio.create_task(_device().lost())
    await asyncio.sleep(0)

    assert not lost.done()
    lost.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lost


async def test_only_its_last_words_are_kept(install: Install) -> None:
    install("i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; exit 1")
    device = _device()

    with pytest.raises(TunnelError) as failure:
        await device.create("coral-x")

    assert str(failure.value).count("line") == 20
    assert str(failure.value).endswith("line 199")
    await device.destroy()


async def test_without_the_program_its_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ProgramMissingError, match="apt install wireguard-go"):
        await _device().create("coral-x")


async def test_ctrl_c_is_for_us_and_not_for_it(install: Install) -> None:
    folder, device = install(SERVE), _device()
    await device.create("coral-x")
    pid = int((folder / "pid").read_text())

    assert os.getsid(pid) != os.getsid(0)

    await device.destroy()


async def test_it_ends_when_we_are_killed(install: Install) -> None:
    folder = install(SERVE)
    program = (
        "import asyncio\n"
        "from discovery.wireguard.programs import Programs\n"
        "from discovery.wireguard.userspace import UserspaceDevice\n"
        "async def main():\n"
        "    await UserspaceDevice(Programs(), served=lambda _name: True).create('coral-x')\n"
        "    print('served', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE)
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"served\n"
    pid = int((folder / "pid").read_text())
    watched = os.pidfd_open(pid)

    parent.kill()
    await parent.wait()

    await asyncio.wait_for(_ended(watched), 30)


async def _ended(pidfd: int) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
