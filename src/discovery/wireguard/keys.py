"""WireGuard keys: X25519 (RFC 7748) in the base64 that `wg` prints, and the file that keeps one."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import shlex
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from discovery.errors import ConfigError

KEY_BYTES = 32
# More than a key's 45 bytes, so that what is longer shows.
_READ = 256


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and its public key, both in base64. The private one is in no repr."""

    private_key: str = field(repr=False)
    public_key: str

    @classmethod
    def generate(cls) -> Self:
        """Make a new pair, clamped as `wg genkey` does (RFC 7748 section 5, decodeScalar25519)."""
        raw = bytearray(secrets.token_bytes(KEY_BYTES))
        raw[0] &= 248
        raw[31] = (raw[31] & 127) | 64
        return cls.from_private(base64.b64encode(raw).decode())

    @classmethod
    def from_private(cls, text: str) -> Self:
        """Return the pair of a private key in base64.

        Raises:
            ValueError: it is no key. The message does not repeat it.
        """
        public = X25519PrivateKey.from_private_bytes(decode_key(text)).public_key()
        return cls(text, base64.b64encode(public.public_bytes_raw()).decode())


def decode_key(text: str) -> bytes:
    """Return the 32 bytes of a key in canonical base64.

    Raises:
        ValueError: it is none. The message does not repeat it: it may be a secret with a typing error.
    """
    raw = b""
    with suppress(binascii.Error, ValueError):
        raw = base64.b64decode(text, validate=True)
    if len(raw) != KEY_BYTES or base64.b64encode(raw).decode() != text:
        raise ValueError(f"not a key: it must be the base64 of {KEY_BYTES} bytes")
    return raw


def load(path: Path) -> KeyPair:
    """Return the key pair whose private key is in `path`.

    Raises:
        ConfigError: there is no such file; it can be read by others, holds no key, or cannot be read.
    """
    if not path.exists():
        raise ConfigError(f"there is no key file {path}")
    return load_or_create(path)


def load_or_create(path: Path) -> KeyPair:
    """Return the key pair whose private key is in `path`; if there is no such file, make one, for the owner alone.

    Several processes may do so at once: they end with the same key, and none ever reads half of one.

    Raises:
        ConfigError: the file can be read by others, holds no key, or cannot be read or written.
    """
    try:
        if (text := _read(path)) is None:
            _create(path, KeyPair.generate().private_key)
            text = _read(path) or ""
    except OSError as error:
        raise ConfigError(f"cannot use the key file {path}: {error.strerror}") from None
    try:
        return KeyPair.from_private(text)
    except ValueError:
        raise ConfigError(
            f"{path} holds no WireGuard key: restore it, or remove it to start with a new key"
        ) from None


def _read(path: Path) -> str | None:
    """Return the file's text, or None if there is none."""
    try:
        # A FIFO would wait here for a writer that never comes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        _check_mode(path, os.fstat(descriptor).st_mode)
        return (file.read(_READ) or b"").decode("ascii", "replace").strip()


def _check_mode(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ConfigError(f"the key file {path} is no regular file")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"the key file {path} is open to other users: chmod 600 {shlex.quote(str(path))}"
        )


def _create(path: Path, text: str) -> None:
    """Put a whole file in its place at once, unless another process was first: then that one's stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w") as file:  # noqa: PTH123 - a descriptor has no path
            file.write(f"{text}\n")
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()
