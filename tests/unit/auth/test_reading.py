"""The keys file: what it may hold, and every mistake with its line; none of them shows a secret."""

from __future__ import annotations

import os
import traceback
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.auth import Role, list_keys
from discovery.auth.keys import digest_of
from discovery.auth.reading import parse_keys
from discovery.errors import ConfigError
from tests.support import examples, shown
from tests.unit.auth.rigs import OTHER_SECRET, SECRET, entry, hashed, write

PATH = Path("keys.yaml")


def _refusal(text: str) -> str:
    with pytest.raises(ConfigError) as refusal:
        parse_keys(text, PATH)
    said = "".join(traceback.format_exception(refusal.value))
    assert SECRET not in said
    assert SECRET.removeprefix("coral_") not in said
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def _in_entry(more: str) -> str:
    return "keys:\n" + entry(more=f"    {more}\n")


# What is read


def test_a_key_is_read_whole() -> None:
    text = f"""
keys:
  - name: ci
    secret: {hashed(SECRET)}
    roles: [register, lookup]
    meshes: ["team-*", '*-prod', x]
    expires: 2027-01-01T00:00:00Z
    created: "2026-01-01T00:00:00+00:00"
"""
    (key,) = parse_keys(text, PATH)

    assert (key.name, key.digest) == ("ci", digest_of(SECRET))
    assert key.roles == {Role.REGISTER, Role.LOOKUP}
    assert key.meshes == ("team-*", "*-prod", "x")
    assert (key.expires_at_us, key.created_at_us) == (1_798_761_600_000_000, 1_767_225_600_000_000)


def test_without_meshes_and_expires_a_key_is_for_every_mesh_and_for_ever() -> None:
    (key,) = parse_keys("keys:\n" + entry(), PATH)

    assert (key.meshes, key.expires_at_us, key.created_at_us) == (("*",), None, None)


@pytest.mark.parametrize("name", ["on", "007", "null", "1e3", "2027-01-01"])
def test_a_name_is_what_is_written_whatever_yaml_takes_it_for(name: str) -> None:
    (key,) = parse_keys("keys:\n" + entry(name), PATH)

    assert key.name == name


def test_json_and_an_empty_list_are_read_too() -> None:
    text = f'{{"keys": [{{"name": "ci", "secret": "{hashed(SECRET).upper().lower()}", "roles": ["admin"]}}]}}'

    assert [key.name for key in parse_keys(text, PATH)] == ["ci"]
    assert len(parse_keys("keys: []", PATH)) == 0


# What is wrong


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "keys.yaml is empty: for no keys at all, write `keys: []`"),
        ("# only this\n", "keys.yaml is empty: for no keys at all, write `keys: []`"),
        ("keys:\n", "keys.yaml:1: keys must be a list, as in `keys: [...]`"),
        ("\n- keys", "keys.yaml:2: the file must be a mapping, as in `keys: ...`"),
        ("{}", "keys.yaml:1: the file must have keys"),
        ("keys: []\nkyes: []", "keys.yaml:2: the file may hold keys, and nothing else"),
        ("keys: []\nkeys: []", "keys.yaml:2: keys is there twice"),
        ("? [keys]\n: []", "keys.yaml:1: the file may hold keys, and nothing else"),
        ("keys:\n  - ci", "keys.yaml:2: a key must be a mapping, as in `name: ...`"),
        ("keys:\n  - name: ci", "keys.yaml:2: a key must have secret, roles"),
        (
            "keys:\n" + entry() + entry("ci", OTHER_SECRET),
            "keys.yaml:5: the name ci is already that of the key in line 2",
        ),
        (
            "keys:\n" + entry() + entry("ci-2"),
            "keys.yaml:5: the secret of ci-2 is already that of the key in line 2",
        ),
        (
            _in_entry("exipres: 2027-01-01T00:00:00Z"),
            "keys.yaml:5: a key may hold name, secret, roles, meshes, expires, created, and nothing else",
        ),
        (_in_entry("roles: [admin]"), "keys.yaml:5: roles is there twice"),
        (
            _in_entry("<<: {expires: 2027-01-01T00:00:00Z}"),
            "keys.yaml:5: a key may hold name, secret, roles, meshes, expires, created, and nothing else",
        ),
        (
            _in_entry("expires: 2027-01-01"),
            "keys.yaml:5: expires must be a time with its offset, as in 2027-01-01T00:00:00Z",
        ),
        (
            _in_entry("expires:"),
            "keys.yaml:5: expires must be a time with its offset, as in 2027-01-01T00:00:00Z",
        ),
        (_in_entry("created: [now]"), "keys.yaml:5: created must be text"),
        (_in_entry("meshes:"), "keys.yaml:5: meshes must be a list, as in `meshes: [...]`"),
        (_in_entry("meshes: team-*"), "keys.yaml:5: meshes must be a list, as in `meshes: [...]`"),
        (_in_entry("meshes: []"), "keys.yaml:5: meshes must hold 1 to 100, not 0"),
        (
            _in_entry("meshes: [" + "a," * 101 + "]"),
            "keys.yaml:5: meshes must hold 1 to 100, not 101",
        ),
        (
            _in_entry("meshes:\n      - a\n      - team-?"),
            "keys.yaml:7: meshes must hold patterns of 1 to 253 of A-Z a-z 0-9 . _ - *, the first none of . _ -",
        ),
        (
            "keys:\n" + entry().replace("[lookup]", "[lookup,\n      root]"),
            "keys.yaml:5: roles may be register, lookup, admin",
        ),
        (
            "keys:\n" + entry().replace("[lookup]", "[]"),
            "keys.yaml:4: roles must hold 1 to 100, not 0",
        ),
        (
            "keys:\n" + entry("a b"),
            "keys.yaml:2: name may hold only A-Z a-z 0-9 . _ - and must start with a letter or digit",
        ),
        ("keys:\n" + entry("''"), "keys.yaml:2: name must not be empty"),
    ],
    ids=shown,
)
def test_a_mistake_is_named_with_its_line(text: str, message: str) -> None:
    assert _refusal(text) == message


@pytest.mark.parametrize("pattern", ["*", "*-prod", "*a*"])
def test_a_pattern_that_lacks_its_quotes_is_explained(pattern: str) -> None:
    said = _refusal(_in_entry(f"meshes: [{pattern}]"))

    assert said.startswith("keys.yaml:5: is not YAML: ")
    assert said.endswith("; a pattern that begins with * needs quotes")


@pytest.mark.parametrize(
    "text",
    [
        "keys:\n  - name: ci\n    secret: " + SECRET + "\n    roles: [lookup]\n",
        "keys:\n  - name: ci\n    secret: [" + SECRET + "]\n    roles: [lookup]\n",
        "keys:\n  - name: ci\n    secret: sha256:" + SECRET + "\n    roles: [lookup]\n",
        "keys:\n  - " + SECRET,
        "keys:\n  - {name: ci, " + SECRET + ": x}",
        "keys:\n  - secret: *" + SECRET,
        "keys: &" + SECRET + "\n  - &" + SECRET + " x",
        "keys:\n  - secret: !" + SECRET + "!x y",
        "keys:\n  - secret: '" + SECRET,
        "keys:\n  - secret: \x01" + SECRET,
        "keys:\n  - secret: x: " + SECRET,
        "%" + SECRET + "\nkeys: []\n\x00",
        _in_entry("expires: " + SECRET),
        _in_entry("meshes: ['?" + SECRET + "']"),
        "keys:\n" + entry().replace("lookup", SECRET),
        "keys:\n" + entry(SECRET) + entry(SECRET, OTHER_SECRET),
    ],
    ids=lambda text: shown(text.replace(SECRET, "SECRET")),
)  # fmt: skip
def test_a_secret_in_the_wrong_place_is_not_repeated(text: str) -> None:
    assert _refusal(text).startswith("keys.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "keys: " + "[" * 100_000,
        "keys: " + "{a: " * 5_000,
        "keys:\n " + "- " * 50_000,
        "keys: &a [*a, *a]",
        "keys: [&k {name: a, secret: b, roles: [lookup]}" + ", *k" * 100_000 + "]",
        "a\n---\nb",
    ],
    ids=shown,
)
def test_a_hostile_file_is_a_mistake_like_others(text: str) -> None:
    assert _refusal(text).startswith("keys.yaml")


@examples(300)
@given(st.one_of(st.text(), st.text("keys:-[]{}&*!|>'\"#%@, \n\tab").map("keys:\n  - ".__add__)))
def test_whatever_a_file_holds_it_is_keys_or_a_config_error(text: str) -> None:
    with suppress(ConfigError):
        parse_keys(text, PATH)


# The file itself


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o646, 0o644, 0o777])
def test_a_file_that_is_open_to_all_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "my keys", "keys: []")
    path.chmod(mode)

    with pytest.raises(ConfigError, match=f"chmod o-rwx '{path}'"):
        list_keys(path)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o440, 0o400])
def test_a_group_may_read_the_file(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "keys", "keys: []")
    path.chmod(mode)

    assert list_keys(path) == ()


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo, dangling = tmp_path / "fifo", tmp_path / "dangling"
    os.mkfifo(fifo, 0o600)
    dangling.symlink_to(tmp_path / "nowhere")

    for path in (tmp_path, fifo, dangling, tmp_path / "none", Path("/dev/null")):
        with pytest.raises(ConfigError, match=str(path)):
            list_keys(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\xfd", b"#" * (1024 * 1024 + 1)], ids=shown)
def test_a_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "keys", content)

    with pytest.raises(ConfigError, match=str(path)):
        list_keys(path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "keys", b"\xef\xbb\xbfkeys:\r\n" + entry().encode())

    assert [key.name for key in list_keys(path)] == ["ci"]
