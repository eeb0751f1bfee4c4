"""A server's keys come from a file that not everybody can read, and go to text and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from discovery.errors import ConfigError
from discovery.proof import ServerKeys, load_server_keys
from discovery.proof.keys import ServerKey
from discovery.proof.text import encode
from tests.support import key, shown
from tests.unit.proof.support import public_of


def _publics(keys: ServerKeys) -> list[bytes]:
    return [each.public for each in keys]


def _written(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "server.keys"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def test_the_first_key_is_published_and_the_others_are_found() -> None:
    keys = ServerKeys.from_text(f"# the newest first\n{key(1)}\n\n  {key(2)}\r\n# {key(3)}\n")

    assert keys.to_text() == f"{key(1)}\n{key(2)}\n"
    assert keys.first.public == _publics(keys)[0]
    assert [keys.find(public) for public in _publics(keys)] == list(keys)
    assert keys.find(bytes(32)) is None


def test_keys_go_to_text_and_back() -> None:
    keys = ServerKeys.generate()
    again = ServerKeys.from_text(keys.to_text())

    assert _publics(again) == _publics(keys)
    assert again.first.nonce_key == keys.first.nonce_key


def test_made_keys_are_new_ones() -> None:
    assert len({ServerKeys.generate().first.public for _ in range(10)}) == 10


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "no key"),
        ("\n# nothing\n", "no key"),
        (f"{key(1)}\nx", "line 2 is not the base64 of 32 bytes"),
        (key(1)[:-1], "line 1 is not"),
        (f"{key(1)} {key(2)}", "line 1 is not"),
        (f"{key(1)}\n\n{key(1)}\n", "line 3 repeats line 1"),
    ],
    ids=shown,
)
def test_what_holds_no_keys_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ServerKeys.from_text(text)
    with pytest.raises(ConfigError, match=said):
        load_server_keys(_written(tmp_path, text))


def test_a_file_is_read(tmp_path: Path) -> None:
    keys = load_server_keys(_written(tmp_path, f"{key(1)}\n", 0o640))

    assert keys.first.public == ServerKeys.from_text(key(1)).first.public


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601])
def test_a_file_that_is_open_to_all_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 640"):
        load_server_keys(_written(tmp_path, key(1), mode))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_server_keys(tmp_path / "none")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_server_keys(tmp_path)


def test_a_file_that_is_no_text_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it is not text") as refusal:
        load_server_keys(_written(tmp_path, b"\xff\xfe" + b"secret" * 10))

    assert "secret" not in repr(refusal.value)


def test_what_is_secret_is_in_no_repr() -> None:
    raw = b"\x42" * 32
    shown_key = repr(ServerKey.from_private(raw))

    assert "nonce" not in shown_key
    assert "private" not in shown_key
    assert str(raw) not in shown_key


def test_the_published_key_is_that_of_the_private_one() -> None:
    assert encode(ServerKeys.from_text(key(7)).first.public) == public_of(key(7))
