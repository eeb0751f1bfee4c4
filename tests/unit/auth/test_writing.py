"""Keys come and go, and all the rest of the file stays as a person wrote it; two writers lose nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.auth import Keys, Role, create_key, list_keys, revoke_key, writing
from discovery.auth.editing import with_entry, without_entry
from discovery.auth.keys import SECRET as SECRET_SHAPE
from discovery.auth.keys import new_secret
from discovery.auth.reading import Reader
from discovery.clock import MICROSECONDS, Instant
from discovery.errors import ConfigError
from tests.support import ManualClock, examples
from tests.unit.auth.rigs import OTHER_SECRET, SECRET, entry, hashed, write

NOW: Instant = ManualClock().now()

BY_HAND = f"""\
# Who may register.
---
keys:   # see the handbook

  # The build.
  - name: ci
    secret: "{hashed(SECRET)}"  # in the vault
    roles: [lookup]
    # until the move: meshes: [old]

  # Team A — é.
  -
    # first
    secret: {hashed(OTHER_SECRET)}
    name: team-a
    roles:
    - register  # only

# The end.
"""


def _create(path: Path, name: str, **changes: Any) -> str:
    return create_key(path, name, [Role.LOOKUP], now=NOW, **changes)


def _names(path: Path) -> list[str]:
    return [key.name for key in list_keys(path)]


# A key is made


def test_the_first_key_makes_the_file_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "coral" / "keys.yaml"

    secret = _create(path, "ci")

    (key,) = list_keys(path)
    assert SECRET_SHAPE.fullmatch(secret)
    assert secret not in path.read_text()
    assert Keys(list_keys(path)).find(secret, NOW) == key
    modes = [p.stat().st_mode & 0o777 for p in (path, path.parent, path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]
    assert list(path.parent.iterdir()) == [path]


def test_a_key_is_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    ends = NOW.unix_us + 90 * 86400 * MICROSECONDS + 1

    create_key(
        path, "on", [Role.ADMIN, Role.LOOKUP], ["*-prod", "team-*"], now=NOW, expires_at_us=ends
    )

    (key,) = list_keys(path)
    assert (key.name, key.roles, key.meshes) == (
        "on",
        frozenset({Role.LOOKUP, Role.ADMIN}),
        ("*-prod", "team-*"),
    )
    assert (key.expires_at_us, key.created_at_us) == (ends, NOW.unix_us)


@pytest.mark.parametrize("content", ["", "# mine", "# mine\n", "keys: []", "keys: []  # none\n",
                                     "---\nkeys:\n  []\n...\n", '"keys": []\n'])  # fmt: skip
def test_a_file_without_keys_takes_a_first_one(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "keys.yaml", content)

    _create(path, "ci")
    _create(path, "two")

    assert _names(path) == ["ci", "two"]
    assert ("#" in path.read_text()) == ("#" in content)


def test_a_new_key_goes_behind_the_others_and_touches_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "keys.yaml", BY_HAND)

    _create(path, "new")

    text = path.read_text()
    start, end = text.index("  - name: new"), text.index("\n# The end.")
    assert text[:start] + text[end:] == BY_HAND
    assert _names(path) == ["ci", "team-a", "new"]


@pytest.mark.parametrize("ending", ["", "\n", "\n\n\n", "\n...\n", "\n# end", "  # ci\n", "\r\n"])
@pytest.mark.parametrize("indent", [0, 2, 6])
def test_a_file_may_end_and_be_indented_in_many_ways(
    tmp_path: Path, ending: str, indent: int
) -> None:
    body = "\n".join(" " * indent + line[2:] for line in entry().strip("\n").split("\n"))
    path = write(tmp_path / "keys.yaml", f"keys:\n{body}{ending}")

    _create(path, "new")
    assert _names(path) == ["ci", "new"]

    revoke_key(path, "ci")
    revoke_key(path, "new")
    assert list_keys(path) == ()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": "ci"}, "already has a key named ci"),
        ({"name": "a b"}, "the key's name may hold only"),
        ({"name": ""}, "the key's name must not be empty"),
        ({"roles": []}, "must have a role"),
        ({"meshes": []}, "1 to 100 mesh patterns"),
        ({"meshes": ["a"] * 101}, "1 to 100 mesh patterns"),
        ({"meshes": ["team-?"]}, "the key's meshes must hold patterns"),
        ({"meshes": ["a\n- b"]}, "the key's meshes must hold patterns"),
        ({"expires_at_us": NOW.unix_us}, "in the future"),
    ],
)
def test_a_key_that_cannot_be_is_refused_and_the_file_left_alone(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "keys.yaml", BY_HAND)
    wanted = {"name": "new", "roles": [Role.LOOKUP], **changes}

    with pytest.raises(ConfigError, match=message):
        create_key(path, now=NOW, **wanted)

    assert path.read_text() == BY_HAND


# A key is revoked


def test_a_revoked_keys_lines_go_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path / "keys.yaml", BY_HAND)
    start, end = BY_HAND.index("  -\n    # first"), BY_HAND.index("\n# The end.")

    revoke_key(path, "team-a")
    assert path.read_text() == BY_HAND[:start] + BY_HAND[end:]

    revoke_key(path, "ci")
    assert "keys: []   # see the handbook" in path.read_text()
    assert "# Team A — é." in path.read_text()
    assert list_keys(path) == ()


@pytest.mark.parametrize("name", ["", "new", "CI", "c", OTHER_SECRET])
def test_a_key_that_is_not_there_cannot_be_revoked(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "keys.yaml", BY_HAND)

    with pytest.raises(ConfigError, match="has no key of this name") as refusal:
        revoke_key(path, name)

    assert not SECRET_SHAPE.search(str(refusal.value))
    assert path.read_text() == BY_HAND


def test_revoking_from_a_file_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        revoke_key(tmp_path / "none" / "keys.yaml", "ci")

    assert list(tmp_path.iterdir()) == []


# Files that only a person can edit

FLOW = f"{{name: ci, secret: '{hashed(SECRET)}', roles: [lookup]}}"

# The second needs the first.
ALIASED = f"""\
keys:
- {{name: ci, secret: '{hashed(SECRET)}', roles: &r [lookup]}}
- {{name: two, secret: '{hashed(OTHER_SECRET)}', roles: *r}}
"""


@pytest.mark.parametrize(
    "content",
    [
        f"keys: [{FLOW}]\n",
        f"{{keys: [{FLOW}]}}\n",
        ALIASED,
    ],
)
def test_a_file_that_cannot_be_edited_is_left_alone(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "keys.yaml", content)

    with pytest.raises(ConfigError, match="only a person can edit it"):
        revoke_key(path, "ci")

    assert path.read_text() == content


def test_a_list_within_brackets_takes_no_new_key(tmp_path: Path) -> None:
    path = write(tmp_path / "keys.yaml", f"keys: [{FLOW}]\n")

    with pytest.raises(ConfigError, match="only a person can edit it"):
        _create(path, "new")

    assert path.read_text() == f"keys: [{FLOW}]\n"


def test_a_bad_file_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "keys.yaml", "keys:\n  - nothing\n")

    for change in (lambda: _create(path, "new"), lambda: revoke_key(path, "ci")):
        with pytest.raises(ConfigError, match=r"keys\.yaml:2: a key must be a mapping"):
            change()

    assert path.read_text() == "keys:\n  - nothing\n"


LINES = st.sampled_from(
    ["", "# top", "  # in", "    # deep", "      # deeper", "  ", "#- x", "    # - name: x"]
)
OURS = {"# top", "  # in", "#- x"}


@examples(200)
@given(gaps=st.lists(st.lists(LINES, max_size=3), min_size=4, max_size=4), index=st.integers(0, 2))
def test_comments_survive_whatever_comes_and_goes(
    gaps: Sequence[Sequence[str]], index: int
) -> None:
    items = [entry(f"k{n}", new_secret()) for n in range(3)]
    text = "keys:\n" + "".join(map(_lines, gaps[0]))
    text += "".join(
        item + "".join(map(_lines, gap)) for item, gap in zip(items, gaps[1:], strict=True)
    )
    reader = Reader(Path("keys.yaml"))

    added = with_entry(text, *reader.entries(text), dedent(entry("new").replace("-", " ", 1)))
    assert added is not None
    assert [key.name for key in reader.keys(added)] == ["k0", "k1", "k2", "new"]
    assert without_entry(added, *reader.entries(added), 3) == text

    cut = without_entry(text, *reader.entries(text), index)
    assert cut is not None
    assert list(reader.keys(cut)) == [key for n, key in enumerate(reader.keys(text)) if n != index]
    assert [line for line in cut.split("\n") if line in OURS] == [
        line for line in text.split("\n") if line in OURS
    ]


def _lines(line: str) -> str:
    return f"{line}\n"


# The file is replaced as a whole


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    real = write(tmp_path / "real.yaml", BY_HAND)
    link = tmp_path / "link.yaml"
    link.symlink_to("real.yaml")

    _create(link, "new")

    assert link.is_symlink()
    assert _names(real) == ["ci", "team-a", "new"]


def test_the_files_mode_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "keys.yaml", BY_HAND)
    path.chmod(0o640)

    _create(path, "new")

    assert path.stat().st_mode & 0o777 == 0o640


def test_the_files_owner_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "keys.yaml", BY_HAND)
    uid, gid = path.stat().st_uid, path.stat().st_gid
    owners: list[tuple[int, int]] = []
    # As if what this process makes belonged to others: only root could make it so.
    real = os.fstat
    monkeypatch.setattr(
        os, "fstat", lambda handle: os.stat_result((*real(handle)[:4], uid + 1, *real(handle)[5:]))
    )
    monkeypatch.setattr(os, "fchown", lambda _, *owner: owners.append(owner))

    _create(path, "new")

    assert owners == [(uid, gid)]


def test_a_folder_that_cannot_be_made_or_locked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    write(tmp_path / "file", "")
    for path in (tmp_path / "file" / "keys.yaml", tmp_path / "file" / "a" / "keys.yaml"):
        with pytest.raises(ConfigError, match=f"folder {path.parent}: Not a directory"):
            _create(path, "ci")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(ConfigError, match=f"lock the folder {tmp_path}: No locks available"):
        _create(tmp_path / "keys.yaml", "ci")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "keys.yaml", BY_HAND)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        _create(path, "new")

    assert path.read_text() == BY_HAND
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_would_read_otherwise_is_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "keys.yaml", BY_HAND)
    monkeypatch.setattr(writing, "without_entry", lambda text, *_: text.replace("ci", "ic"))

    with pytest.raises(ConfigError, match="only a person can edit it"):
        revoke_key(path, "ci")

    assert path.read_text() == BY_HAND


# Writers at once


def test_those_who_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path, count = write(tmp_path / "keys.yaml", BY_HAND), 16
    barrier = Barrier(count + 1)

    def create(number: int) -> str:
        barrier.wait()
        return _create(path, f"k{number}")

    def revoke() -> None:
        barrier.wait()
        revoke_key(path, "ci")

    with ThreadPoolExecutor(count + 1) as pool:
        revoked = pool.submit(revoke)
        secrets = list(pool.map(create, range(count)))
        revoked.result()

    keys = Keys(list_keys(path))
    assert [getattr(keys.find(secret, NOW), "name", "") for secret in secrets] == [
        f"k{n}" for n in range(count)
    ]
    assert sorted(_names(path)) == sorted(["team-a", *(f"k{n}" for n in range(count))])
    assert list(tmp_path.iterdir()) == [path]


def test_only_one_of_those_who_want_a_name_gets_it(tmp_path: Path) -> None:
    path, count = tmp_path / "new" / "keys.yaml", 8
    barrier = Barrier(count)

    def create(_: int) -> str:
        barrier.wait()
        try:
            return _create(path, "ci")
        except ConfigError:
            return ""

    with ThreadPoolExecutor(count) as pool:
        (secret,) = filter(None, pool.map(create, range(count)))

    assert Keys(list_keys(path)).find(secret, NOW) is not None


LOCK = """
import sys
from pathlib import Path
from discovery.auth.files import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_another_process_waits_too(tmp_path: Path) -> None:
    path = write(tmp_path / "keys.yaml", BY_HAND)
    command = [sys.executable, "-c", LOCK, str(path)]
    with (
        ThreadPoolExecutor(1) as pool,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other,
    ):
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        created = pool.submit(_create, path, "new")
        with pytest.raises(TimeoutError):
            created.result(0.2)
        assert path.read_text() == BY_HAND
        other.stdin.close()
        created.result()

    assert _names(path) == ["ci", "team-a", "new"]


def test_a_lock_dies_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "keys.yaml"
    _create(path, "ci")
    shutil.rmtree(path.parent)

    _create(path, "ci")

    assert _names(path) == ["ci"]
