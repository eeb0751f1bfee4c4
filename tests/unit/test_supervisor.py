"""What a service manager is told: systemd's part is played by a datagram socket."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from discovery.runners.report import SupervisedReport, TextReport
from discovery.supervisor import Supervisor


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    path = tmp_path / "notify"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(f"\0{path}" if request.param == "abstract" else str(path))
        listening.setblocking(False)
        yield listening


def environment(systemd: socket.socket, **more: str) -> dict[str, str]:
    name = systemd.getsockname()
    address = name if isinstance(name, str) else name.decode().replace("\0", "@", 1)
    return {"NOTIFY_SOCKET": address, "PATH": "/bin", **more}


def told(systemd: socket.socket) -> list[str]:
    return systemd.recv(4096).decode().split("\n")


def test_says_what_it_does(systemd: socket.socket) -> None:
    supervisor = Supervisor.from_environment(environment(systemd))
    supervisor.ready("serving on port 8080")
    assert told(systemd) == ["READY=1", "STATUS=serving on port 8080"]
    supervisor.status("waiting")
    assert told(systemd) == ["STATUS=waiting"]
    supervisor.alive()
    assert told(systemd) == ["WATCHDOG=1"]
    supervisor.stopping("draining")
    assert told(systemd) == ["STOPPING=1", "STATUS=draining"]


def test_a_reload_is_told_by_the_clock_that_systemd_goes_by(systemd: socket.socket) -> None:
    name = environment(systemd)["NOTIFY_SOCKET"]
    Supervisor(name, monotonic_ns=lambda: 5_000_000_999).reloading()
    assert told(systemd) == ["RELOADING=1", "MONOTONIC_USEC=5000000"]


def test_a_stop_that_takes_long_asks_for_the_time(systemd: socket.socket) -> None:
    Supervisor.from_environment(environment(systemd)).stopping("draining", 90.5)
    assert told(systemd) == ["STOPPING=1", "STATUS=draining", "EXTEND_TIMEOUT_USEC=90500000"]


def test_a_status_cannot_say_anything_else(systemd: socket.socket) -> None:
    Supervisor.from_environment(environment(systemd)).status("a\nREADY=1\r\n\vb")
    assert told(systemd) == ["STATUS=a READY=1 b"]


def test_children_do_not_inherit_it(systemd: socket.socket) -> None:
    variables = environment(systemd, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    Supervisor.from_environment(variables)
    assert variables == {"PATH": "/bin"}


def test_the_watchdog_is_fed_twice_as_often_as_it_must_be(systemd: socket.socket) -> None:
    for pid in ("", str(os.getpid())):
        variables = environment(systemd, WATCHDOG_USEC="30000000", WATCHDOG_PID=pid)
        assert Supervisor.from_environment(variables).watchdog_interval == 15


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
    ],
    ids=str,
)
def test_a_watchdog_that_is_not_ours_is_left_alone(
    systemd: socket.socket, watchdog: dict[str, str]
) -> None:
    variables = environment(systemd, **watchdog)
    assert Supervisor.from_environment(variables).watchdog_interval is None


@pytest.mark.parametrize("address", ["", "notify", "vsock:2:1234", "/nowhere/at/all", "@nobody"])
def test_where_nobody_listens_nothing_happens(address: str) -> None:
    variables = {"NOTIFY_SOCKET": address}
    Supervisor.from_environment(variables).ready("serving")


def test_without_a_socket_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_: object) -> None:
        pytest.fail("a socket for nobody")

    monkeypatch.setattr(socket, "socket", no_socket)
    supervisor = Supervisor.from_environment({"WATCHDOG_USEC": "30000000"})
    supervisor.ready("serving")
    assert supervisor.watchdog_interval is None


def test_a_manager_that_does_not_read_holds_nothing_up(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery.supervisor._SEND_TIMEOUT", 0.001)
    supervisor = Supervisor.from_environment(environment(systemd))
    for _ in range(600):
        supervisor.alive()
    assert told(systemd) == ["WATCHDOG=1"]


def test_a_command_is_ready_when_it_has_what_it_is_for_and_tells_the_rest_as_its_status(
    systemd: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = Supervisor.from_environment(environment(systemd))
    report = SupervisedReport(TextReport(sys.stdout), supervisor)
    report.say("started", "Colony started")
    assert told(systemd) == ["STATUS=Colony started"]
    report.warn("retrying", "not registered: nobody is there")
    assert told(systemd) == ["STATUS=not registered: nobody is there"]
    report.say("registered", "Registered\nMesh ID: m")
    assert told(systemd) == ["READY=1", "STATUS=Registered Mesh ID: m"]
    said = capsys.readouterr()
    assert said.out == "Colony started\nRegistered\nMesh ID: m\n"
    assert said.err == "coral: not registered: nobody is there\n"
