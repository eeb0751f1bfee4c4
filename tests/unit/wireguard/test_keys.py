"""Keys are what `wg` makes and reads; the file that keeps one is the owner's alone, and never half written."""

from __future__ import annotations

import base64
import os
import pickle
import shutil
import subprocess
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.errors import ConfigError
from discovery.wireguard.keys import KeyPair, decode_key, load_or_create
from tests.support import examples, shown

# RFC 7748 section 6.1: Alice's keys, and Bob's.
RFC_7748 = [
    (
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    ),
    (
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    ),
]


def _base64(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


# Keys


@pytest.mark.parametrize("private, public", RFC_7748)
def test_the_public_key_is_rfc_7748s(private: str, public: str) -> None:
    assert KeyPair.from_private(_base64(private)).public_key == _base64(public)


@pytest.mark.skipif(shutil.which("wg") is None, reason="wg is not installed")
@examples(20)
@given(st.binary(min_size=32, max_size=32))
def test_the_public_key_is_what_wg_prints(raw: bytes) -> None:
    private = base64.b64encode(raw).decode()
    printed = subprocess.run(
        ["wg", "pubkey"], input=private, stdout=subprocess.PIPE, text=True, check=True
    )

    assert KeyPair.from_private(private).public_key == printed.stdout.strip()


def test_a_new_key_is_clamped_and_another_each_time() -> None:
    keys = [decode_key(KeyPair.generate().private_key) for _ in range(64)]

    assert all(raw[0] & 7 == 0 and raw[31] & 192 == 64 for raw in keys)
    assert len(set(keys)) == 64


@pytest.mark.parametrize(
    "text",
    ["", "x", "A" * 43, "A" * 44, "A" * 42 + "B=", "A" * 43 + "=\n", " " + "A" * 43 + "=", "é" * 44,
     base64.b64encode(bytes(31)).decode(), base64.b64encode(bytes(36)).decode(), "-" * 43 + "="],
    ids=shown,
)  # fmt: skip
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="not a key") as refusal:
        KeyPair.from_private(text)

    assert len(text) < 10 or text not in "".join(traceback.format_exception(refusal.value))


def test_the_private_key_is_in_no_repr() -> None:
    keys = KeyPair.generate()

    assert keys.private_key not in f"{keys!r} {keys} {[keys]}"
    assert keys.public_key in repr(keys)
    assert pickle.loads(pickle.dumps(keys)) == keys


# The file


def test_a_key_is_made_once_and_kept_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "coral" / "private.key"

    keys = load_or_create(path)

    assert load_or_create(path) == keys
    assert path.read_text() == f"{keys.private_key}\n"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert list(path.parent.iterdir()) == [path]


def test_a_file_of_wg_genkey_is_read(tmp_path: Path) -> None:
    path, keys = tmp_path / "key", KeyPair.generate()
    path.touch(0o600)
    path.write_text(f"{keys.private_key}\n")

    assert load_or_create(path) == keys


def test_all_who_start_at_once_end_with_the_same_key(tmp_path: Path) -> None:
    path, count = tmp_path / "state" / "key", 16
    barrier = Barrier(count)

    def start(_: int) -> KeyPair:
        barrier.wait()
        return load_or_create(path)

    with ThreadPoolExecutor(count) as pool:
        keys = set(pool.map(start, range(count)))

    assert len(keys) == 1
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o666])
def test_a_file_that_is_open_to_others_is_refused_with_what_to_do(
    tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "my key"
    load_or_create(path)
    path.chmod(mode)

    with pytest.raises(ConfigError) as refusal:
        load_or_create(path)

    assert str(refusal.value).endswith(f"chmod 600 '{path}'")


@pytest.mark.parametrize(
    "content", ["", "\n", "secretsecret", "A" * 44, "A" * 300, "é", "\0"], ids=shown
)
def test_a_file_that_holds_no_key_is_named_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_text(content)

    with pytest.raises(ConfigError) as refusal:
        load_or_create(path)

    said = "".join(traceback.format_exception(refusal.value))
    assert str(path) in str(refusal.value)
    assert len(content) < 10 or content not in said
    assert path.read_text() == content


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo, dangling, below = tmp_path / "fifo", tmp_path / "dangling", tmp_path / "file" / "key"
    os.mkfifo(fifo, 0o600)
    dangling.symlink_to(tmp_path / "nowhere")
    below.parent.touch()

    for path in (tmp_path, fifo, dangling, below):
        with pytest.raises(ConfigError, match=str(path)):
            load_or_create(path)
