"""A running server's keys are those of the file a second ago, and a bad file takes none of them away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from discovery.auth import Keys, KeysFile, files, keys_file
from discovery.errors import ConfigError
from tests.support import ManualClock
from tests.unit.auth.rigs import OTHER_SECRET, SECRET, entry, write

ONE = "keys:\n" + entry()
TWO = ONE + entry("two", OTHER_SECRET)
NONE = "keys: []\n"
BAD = f"keys:\n  - secret: {SECRET}\n"


class Rig:
    """A keys file that is read by a server, whose time and log the test holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.capture = LogCapture()
        self.keys = KeysFile(path, self._logger(), self.clock)

    def _logger(self) -> FilteringBoundLogger:
        logger: FilteringBoundLogger = structlog.wrap_logger(
            None,
            processors=[self.capture],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        )
        return logger

    def names(self) -> list[str]:
        return [key.name for key in self.keys.current()]

    def names_later(self) -> list[str]:
        self.clock.advance(1)
        return self.names()

    def logged(self) -> list[tuple[str, str]]:
        return [(line["log_level"], line["event"]) for line in self.capture.entries]


REFUSED = ("warning", "keys file cannot be used; the old keys stay")
READ = ("info", "keys file read")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(write(tmp_path / "keys.yaml", ONE))


def _replace(path: Path, content: str) -> None:
    """Put another file in its place, as most programs do."""
    write(path.with_suffix(".new"), content).replace(path)


@pytest.mark.parametrize("content", [None, BAD, ""])
def test_a_server_does_not_start_with_a_bad_file(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "keys.yaml"
    if content is not None:
        write(path, content)

    with pytest.raises(ConfigError, match=str(path)):
        Rig(path)


def test_a_change_is_seen_after_a_second_and_not_before(rig: Rig) -> None:
    _replace(rig.path, TWO)

    rig.clock.advance(0.999)
    assert rig.names() == ["ci"]
    rig.clock.advance(0.001)
    assert rig.names() == ["ci", "two"]
    assert rig.logged() == [READ]


def test_a_step_of_the_wall_clock_keeps_no_revoked_key_alive(rig: Rig) -> None:
    _replace(rig.path, NONE)
    rig.clock.step_wall(-86400)

    assert rig.names_later() == []


def test_snapshots_do_not_change(rig: Rig) -> None:
    before = rig.keys.current()
    _replace(rig.path, NONE)

    assert rig.names_later() == []
    assert [key.name for key in before] == ["ci"]


def test_a_file_that_does_not_change_is_read_once_more_and_never_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []

    def count(path: Path) -> tuple[files.State, str]:
        reads.append(path)
        return files.read(path)

    monkeypatch.setattr(keys_file, "read", count)

    for _ in range(10):
        rig.names_later()

    assert len(reads) == 1
    assert rig.logged() == []


def test_a_change_that_does_not_show_while_the_file_is_young_is_seen(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a file system with a clock so coarse that both changes are of the same moment.
    one_state = files.State(1, 2, 3, 4, 5)
    monkeypatch.setattr(keys_file, "state_of", lambda path: one_state)
    monkeypatch.setattr(keys_file, "read", lambda path: (one_state, path.read_text()))

    rig.path.write_text(TWO)
    assert rig.names_later() == ["ci", "two"]
    rig.path.write_text(ONE)
    assert rig.names_later() == ["ci"]


def test_kubernetes_way_of_changing_a_secret_is_seen(tmp_path: Path) -> None:
    for name, content in (("..1", ONE), ("..2", TWO)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "keys.yaml", content)
        os.utime(tmp_path / name / "keys.yaml", (1, 1))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "keys.yaml").symlink_to("..data/keys.yaml")
    rig = Rig(tmp_path / "keys.yaml")
    assert rig.names_later() == rig.names_later() == ["ci"]

    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")

    assert rig.names_later() == ["ci", "two"]


@pytest.mark.parametrize("damage", [BAD, "", "keys:\n", "\x00", "keys: ["])
def test_a_bad_file_changes_nothing_and_is_logged_once_until_it_is_good(
    rig: Rig, damage: str
) -> None:
    _replace(rig.path, damage)
    assert [rig.names_later() for _ in range(5)] == [["ci"]] * 5
    assert rig.logged() == [REFUSED]

    _replace(rig.path, ONE)
    assert [rig.names_later() for _ in range(5)] == [["ci"]] * 5
    assert rig.logged() == [REFUSED, READ]

    _replace(rig.path, damage)
    rig.names_later()
    assert rig.logged() == [REFUSED, READ, REFUSED]


def test_a_file_that_is_gone_changes_nothing_until_it_is_back(rig: Rig) -> None:
    rig.path.unlink()
    assert [rig.names_later() for _ in range(3)] == [["ci"]] * 3

    write(rig.path, TWO)
    assert rig.names_later() == ["ci", "two"]
    assert rig.logged() == [REFUSED, READ]


def test_a_file_that_becomes_open_to_all_is_bad_until_it_is_not(rig: Rig) -> None:
    rig.names_later()
    rig.names_later()
    rig.path.chmod(0o644)
    rig.names_later()
    assert rig.logged() == [REFUSED]

    rig.path.chmod(0o600)
    rig.names_later()
    assert rig.logged() == [REFUSED, READ]


def test_a_file_that_cannot_be_read_for_a_while_is_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> tuple[files.State, str]:
        raise ConfigError("too many open files")

    _replace(rig.path, TWO)
    with monkeypatch.context() as broken:
        broken.setattr(keys_file, "read", fail)
        assert [rig.names_later() for _ in range(3)] == [["ci"]] * 3

    assert rig.names_later() == ["ci", "two"]


def test_no_log_line_holds_a_secret(rig: Rig) -> None:
    for content in (BAD, TWO, NONE):
        _replace(rig.path, content)
        rig.names_later()

    assert len(rig.capture.entries) == 3
    assert SECRET not in repr(rig.capture.entries)
    assert SECRET not in repr(vars(rig.keys))


def test_an_expired_key_needs_no_change_of_the_file(tmp_path: Path) -> None:
    clock = ManualClock()
    path = write(
        tmp_path / "keys.yaml", "keys:\n" + entry(more="    expires: 2027-02-01T00:00:00Z\n")
    )
    keys: Keys = KeysFile(path, structlog.get_logger(), clock).current()

    assert keys.find(SECRET, clock.now()) is not None
    clock.advance(30 * 86400)
    assert keys.find(SECRET, clock.now()) is None
