from __future__ import annotations

import stat
from pathlib import Path

import pytest

from discovery.auth import Role
from discovery.cli.ctl.access_keys import _Role
from discovery.clock import Instant
from discovery.ctl.access import Access
from discovery.ctl.expiry import parse_expiry
from discovery.ctl.registering import make_applicant
from discovery.ctl.server_keys import rotate
from discovery.errors import ConfigError, InvalidFieldError
from discovery.proof import load_server_keys
from discovery.proof.text import encode
from discovery.wireguard.keys import load_or_create
from tests.support import KEY, MESH

NOW = Instant(1_800_000_000_000_000, 0)


def published(path: Path) -> list[str]:
    return [encode(key.public) for key in load_server_keys(path)]


def test_a_server_key_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys"
    assert rotate(path, 1) == published(path)
    assert len(published(path)) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_rotation_puts_the_new_key_first_and_keeps_so_many_older_ones(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    (first,) = rotate(path, 2)
    second, *_ = rotate(path, 2)
    third, *_ = rotate(path, 2)
    assert published(path) == [third, second, first]
    fourth, *_ = rotate(path, 1)
    assert published(path) == [fourth, third]
    assert len(rotate(path, 0)) == 1


def test_a_rotation_leaves_no_other_file_and_keeps_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    rotate(path, 1)
    path.chmod(0o640)
    rotate(path, 1)
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("content,mode", [("no key", 0o600), ("", 0o644)])
def test_a_file_that_is_none_of_keys_is_left_alone(tmp_path: Path, content: str, mode: int) -> None:
    path = tmp_path / "keys"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigError):
        rotate(path, 1)
    assert path.read_text() == content


def test_an_expiry_is_a_time_or_a_duration_from_now() -> None:
    assert parse_expiry("2027-01-15T08:00:10Z", NOW) == NOW.unix_us + 10_000_000
    assert parse_expiry("1h30m", NOW) == NOW.unix_us + 5_400_000_000
    for wrong in ("", "tomorrow", "5", "2027-01-15", "-1h"):
        with pytest.raises(ConfigError, match="--expires must be"):
            parse_expiry(wrong, NOW)


def test_the_api_key_comes_from_one_place(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("from-file\n")
    assert Access().secret() is None
    assert Access(api_key=" given ").secret() == "given"
    assert Access(api_key_file=path).secret() == "from-file"
    with pytest.raises(ConfigError, match="one of them"):
        Access(api_key="given", api_key_file=path).secret()
    with pytest.raises(ConfigError, match="cannot read"):
        Access(api_key_file=tmp_path / "none").secret()


@pytest.mark.parametrize("wrong", ["", "a\nb", "ключ"])
def test_what_no_header_can_hold_is_no_api_key_and_is_not_repeated(wrong: str) -> None:
    with pytest.raises(ConfigError, match="the API key is empty, or holds"):
        Access(api_key=wrong).secret()


def test_an_access_shows_no_secret() -> None:
    assert "s3cret" not in repr(Access(api_key="s3cret"))


def test_an_applicant_has_one_key_and_proves_it_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "private"
    pair = load_or_create(path)
    endpoints = ("192.0.2.1:1",)
    by_file = make_applicant(MESH, endpoints, ["a=b=c"], None, path)
    assert by_file.registration.pubkey == pair.public_key
    assert by_file.registration.metadata == {"a": "b=c"}
    assert by_file.prover is not None
    assert make_applicant(MESH, endpoints, (), KEY, None).prover is None
    for pubkey, file in ((None, None), (KEY, path)):
        with pytest.raises(ConfigError, match="--pubkey or by --key-file"):
            make_applicant(MESH, endpoints, (), pubkey, file)
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        make_applicant(MESH, endpoints, ["a"], KEY, None)
    with pytest.raises(InvalidFieldError, match=r"pubkey.*endpoints"):
        make_applicant(MESH, ["nowhere"], (), "wrong", None)


def test_the_roles_on_the_command_line_are_all_there_are() -> None:
    assert [role.value for role in _Role] == [role.value for role in Role]
