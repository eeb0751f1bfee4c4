from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.client.cache import Cached, CacheError, CacheFile
from discovery.client.memory import ColonyMemory
from discovery.models import Endpoint
from tests.support import KEY, MESH, examples, key
from tests.unit.client.fakes import lease

FIRST, SECOND = "203.0.113.5:41820", "[2001:db8::5]:41820"
OBSERVED = Endpoint("2001:db8::9", 5353)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "coral" / "state" / "mesh-1.json"


@pytest.fixture
def file(path: Path) -> CacheFile:
    return CacheFile(path, MESH)


def spoil(path: Path, **changes: Any) -> None:
    """Change fields of the colony in a file that was valid."""
    content = json.loads(path.read_text())
    content["colony"].update(changes)
    path.write_text(json.dumps(content))


def test_what_was_saved_is_loaded(file: CacheFile) -> None:
    cached = Cached(lease(7, observed_endpoint=OBSERVED, mesh_ipv6="fd00::1"), SECOND)

    file.save(cached)

    assert file.load() == cached


def test_no_file_is_nothing_known_and_no_error(file: CacheFile) -> None:
    assert file.load() is None


def test_the_file_and_new_folders_are_this_users_alone(file: CacheFile, path: Path) -> None:
    file.save(Cached(lease()))

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.parent.parent.stat().st_mode & 0o777 == 0o700
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_folders_that_are_there_are_left_as_they_are(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)

    CacheFile(tmp_path / "cache", MESH).save(Cached(lease()))

    assert tmp_path.stat().st_mode & 0o777 == 0o750


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    file: CacheFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.save(Cached(lease(1)))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CacheError, match="No space left"):
        file.save(Cached(lease(2)))

    assert file.load() == Cached(lease(1))
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@given(length=st.integers(0, 10_000))
@examples(30)
def test_a_torn_file_is_an_error_and_never_half_a_colony(
    tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "cache"
    file = CacheFile(path, MESH)
    file.save(Cached(lease(), FIRST))
    whole = path.read_bytes()
    path.write_bytes(whole[: length % len(whole)])

    with pytest.raises(CacheError, match="damaged"):
        file.load()


NOT_A_CACHE = [
    b"",
    b"\0" * 4096,
    b"\xff\xfe",
    b"[]",
    b"null",
    b"7",
    b'"text"',
    b"{}",
    b'{"winner": "", "colony": null}',
    b'{"winner": "", "colony": []}',
    b'{"winner": 7, "colony": {}}',
    b'{"colony": {}}',
    b'{"winner": "", "colony": {"pubkey": 7}}',
    b'{"winner": "", "colony": {"pubkey": "\\ud800"}}',
    b"[" * 100_000,
    b" " * 300_000,
]


@pytest.mark.parametrize("content", NOT_A_CACHE, ids=lambda content: ascii(content[:40]))
def test_what_is_no_cache_is_an_error(file: CacheFile, path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    with pytest.raises(CacheError, match="damaged"):
        file.load()


HARMFUL: list[dict[str, object]] = [
    {"pubkey": "no key"},
    {"pubkey": f"{KEY}\nPostUp = reboot"},
    {"endpoints": ["203.0.113.5:41820\nPostUp = reboot"]},
    {"endpoints": ["203.0.113.5:0"]},
    {"endpoints": []},
    {"meshId": "another-mesh"},
    {"meshIpv6": "fd00::1; reboot"},
]


@pytest.mark.parametrize("change", HARMFUL, ids=ascii)
def test_what_would_spoil_a_tunnels_configuration_is_an_error(
    file: CacheFile, path: Path, change: dict[str, object]
) -> None:
    file.save(Cached(lease()))
    spoil(path, **change)

    with pytest.raises(CacheError, match="damaged"):
        file.load()


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_can_write_is_not_trusted(
    file: CacheFile, path: Path, mode: int
) -> None:
    file.save(Cached(lease()))
    path.chmod(mode)

    with pytest.raises(CacheError, match="alone to write"):
        file.load()


def test_a_file_of_another_user_is_not_trusted(
    file: CacheFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.save(Cached(lease()))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(CacheError, match="alone to write"):
        file.load()


def test_a_symbolic_link_is_not_followed(file: CacheFile, path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    CacheFile(elsewhere, MESH).save(Cached(lease()))
    path.parent.mkdir(parents=True)
    path.symlink_to(elsewhere)

    with pytest.raises(CacheError, match="cannot read"):
        file.load()


def test_a_fifo_or_a_folder_in_its_place_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    for name in ("fifo", "."):
        with pytest.raises(CacheError):
            CacheFile(tmp_path / name, MESH).load()


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(CacheError, match="cannot write"):
        CacheFile(tmp_path / "file" / "cache", MESH).save(Cached(lease()))


def test_nothing_is_known_at_first() -> None:
    memory = ColonyMemory(MESH, None)

    assert (memory.lease, memory.endpoints(), memory.problem) == (None, (), "")


def test_endpoints_come_as_registered_and_the_observed_one_last() -> None:
    memory = ColonyMemory(MESH, None)
    memory.learn(lease(observed_endpoint=OBSERVED))

    assert memory.endpoints() == (FIRST, SECOND, "[2001:db8::9]:5353")


@pytest.mark.parametrize(
    "observed, shown",
    [
        (Endpoint("198.51.100.1", 5353), ("198.51.100.1:5353",)),
        (Endpoint("198.51.100.1", 5353, ""), ("198.51.100.1:5353",)),
        (Endpoint("198.51.100.1", 5353, "tcp"), ()),
        (Endpoint("198.51.100.1", 0), ()),
        (Endpoint("203.0.113.5", 41820), ()),
    ],
    ids=["udp", "unsaid", "tcp", "no port", "registered too"],
)
def test_an_observed_endpoint_is_tried_if_wireguard_may_be_there(
    observed: Endpoint, shown: tuple[str, ...]
) -> None:
    memory = ColonyMemory(MESH, None)
    memory.learn(lease(observed_endpoint=observed))

    assert memory.endpoints() == (FIRST, SECOND, *shown)


def test_what_worked_last_is_tried_first_also_after_a_restart(path: Path) -> None:
    memory = ColonyMemory(MESH, path)
    memory.learn(lease())
    memory.prefer(SECOND)

    assert memory.endpoints() == (SECOND, FIRST)
    assert ColonyMemory(MESH, path).endpoints() == (SECOND, FIRST)


def test_what_worked_last_is_not_tried_once_it_is_not_registered_any_more(path: Path) -> None:
    memory = ColonyMemory(MESH, path)
    memory.learn(lease(1))
    memory.prefer(SECOND)

    memory.learn(lease(2, endpoints=(FIRST,)))

    assert memory.endpoints() == (FIRST,)


def test_what_failed_loses_its_place_and_others_do_not() -> None:
    memory = ColonyMemory(MESH, None)
    memory.learn(lease())
    memory.prefer(SECOND)

    memory.forget(FIRST)
    assert memory.endpoints() == (SECOND, FIRST)
    memory.forget(SECOND)
    assert memory.endpoints() == (FIRST, SECOND)


def test_a_damaged_file_is_a_problem_until_it_is_replaced(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{")
    memory = ColonyMemory(MESH, path)
    assert memory.lease is None
    assert "damaged" in memory.problem

    memory.learn(lease())

    assert memory.problem == ""
    assert ColonyMemory(MESH, path).lease == lease()


def test_a_place_that_cannot_be_written_is_a_problem_and_the_colony_is_known(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("in the way")
    memory = ColonyMemory(MESH, tmp_path / "file" / "cache")

    memory.learn(lease())

    assert memory.lease == lease()
    assert "cannot" in memory.problem


def test_a_renewal_does_not_write_the_file_again(path: Path) -> None:
    memory = ColonyMemory(MESH, path)
    memory.learn(lease(1))
    path.unlink()

    memory.learn(lease(1))
    assert not path.exists()
    memory.learn(lease(2, pubkey=key(3)))
    assert path.exists()
