"""A server's X25519 keys: what is published, and what else is still accepted while keys change."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Self

from discovery.errors import ConfigError
from discovery.proof.tags import KEY_BYTES, derive
from discovery.proof.text import decode, encode

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

_NONCE_PURPOSE = "coral-discovery nonce v1"


@dataclass(frozen=True, slots=True)
class ServerKey:
    """One key pair, and the key under which its nonces are made. What is secret is in no repr."""

    private: X25519PrivateKey = field(repr=False)
    public: bytes
    nonce_key: bytes = field(repr=False)

    @classmethod
    def from_private(cls, raw: bytes) -> Self:
        """Return the pair of a private key of 32 bytes."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        private = X25519PrivateKey.from_private_bytes(raw)
        return cls(private, private.public_key().public_bytes_raw(), derive(raw, _NONCE_PURPOSE))


class ServerKeys:
    """The keys that all replicas of a service share: the first is published, the others are still accepted."""

    def __init__(self, first: ServerKey, *others: ServerKey) -> None:
        self.first = first
        self._by_public = {key.public: key for key in (first, *others)}

    @classmethod
    def generate(cls) -> Self:
        """Make a new key."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        return cls(ServerKey.from_private(X25519PrivateKey.generate().private_bytes_raw()))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read private keys in base64, one a line, the newest first; empty lines and those that begin with # are none.

        Raises:
            ValueError: a line holds no key, or that of a line before, or there is none. The message does not repeat it.
        """
        keys = list(_keys_in(text))
        if not keys:
            raise ValueError("there is no key in it")
        return cls(*keys)

    def to_text(self) -> str:
        """Return what `from_text` reads. It is secret."""
        return "".join(f"{encode(key.private.private_bytes_raw())}\n" for key in self)

    def find(self, public: bytes) -> ServerKey | None:
        """Return the key with this public key, if it is accepted."""
        return self._by_public.get(public)

    def __iter__(self) -> Iterator[ServerKey]:
        return iter(self._by_public.values())


def load_server_keys(path: Path) -> ServerKeys:
    """Read the file that `ServerKeys.from_text` describes.

    Its group may read it, as that of a mounted Kubernetes Secret does.

    Raises:
        ConfigError: everybody can read it, it cannot be read, or holds something else.
    """
    try:
        with path.open() as file:
            _check_mode(path, os.fstat(file.fileno()).st_mode)
            return ServerKeys.from_text(file.read())
    except OSError as error:
        raise ConfigError(f"cannot read the server keys in {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} holds no server keys: {_said(error)}") from None


def _keys_in(text: str) -> Iterator[ServerKey]:
    found: dict[bytes, int] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if not line or line.startswith("#"):
            continue
        try:
            key = ServerKey.from_private(decode(line, KEY_BYTES))
        except ValueError as error:
            raise ValueError(f"line {number} is {error}") from None
        if (first := found.setdefault(key.public, number)) != number:
            raise ValueError(f"line {number} repeats line {first}")
        yield key


def _check_mode(path: Path, mode: int) -> None:
    if mode & stat.S_IRWXO:
        raise ConfigError(
            f"the server keys in {path} are open to every user: chmod 640 {quote(str(path))}"
        )


def _said(error: ValueError) -> str:
    # A UnicodeDecodeError's words hold a part of what was read.
    return "it is not text" if isinstance(error, UnicodeDecodeError) else str(error)
