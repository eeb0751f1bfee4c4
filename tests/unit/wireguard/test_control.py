"""Whether a wireguard-go answers at a device's control socket; and that looking there removes none."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery.wireguard.control import is_served

NAME = "coral-x"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder whose name is short: a socket's path has 108 bytes at most."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture
def control(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(str(folder / f"{NAME}.sock"))
        yield control


def test_without_a_socket_nobody_serves_it(folder: Path) -> None:
    assert not is_served(NAME, folder)


def test_one_that_listens_serves_it(folder: Path, control: socket.socket) -> None:
    control.listen()

    assert is_served(NAME, folder)


def test_one_that_is_behind_with_its_callers_serves_it(
    folder: Path, control: socket.socket
) -> None:
    control.listen(0)

    assert [is_served(NAME, folder) for _ in range(4)] == [True] * 4


def test_a_socket_that_nobody_listens_at_yet_is_left_where_it_is(
    folder: Path, control: socket.socket
) -> None:
    assert not is_served(NAME, folder)

    control.listen()
    assert is_served(NAME, folder)
