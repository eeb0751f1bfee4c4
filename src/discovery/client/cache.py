"""The colony that was last known, in a file: for an agent that starts while discovery is away.

The file is JSON: `winner`, the endpoint that last worked, and `colony`, a LookupColonyResponse in proto3 JSON.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from discovery._gen.coral.discovery.v1 import LookupColonyResponse
from discovery.client.sound import require_colony
from discovery.errors import DiscoveryError
from discovery.models import Lease
from discovery.transport import codec, json_codec

# More than a registration with all its metadata takes, escaped.
_MAX_BYTES = 256 * 1024


class CacheError(Exception):
    """The file cannot be used. The message is one line that says why."""


@dataclass(frozen=True, slots=True)
class Cached:
    """The lease that was last known, and the endpoint that last worked, empty if none did."""

    lease: Lease
    winner: str = ""


class CacheFile:
    """One mesh's file."""

    def __init__(self, path: Path, mesh_id: str) -> None:
        self._path = path
        self._mesh_id = mesh_id

    def load(self) -> Cached | None:
        """Return what was saved, None if there is no file.

        Raises:
            CacheError: it cannot be read, may have been written by somebody else, or does not hold what it should.
        """
        try:
            return self._parse(_read_own(self._path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CacheError(f"cannot read {self._path}: {error.strerror}") from error
        # json's and UTF-8's errors are ValueErrors; nesting without end is a RecursionError.
        except (DiscoveryError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CacheError(f"{self._path} is damaged, and ignored: {error}") from error

    def save(self, cached: Cached) -> None:
        """Replace the file, as a whole. A power cut may leave none or a damaged one, which `load` tells.

        Raises:
            CacheError: it cannot be written. What was there is still there.
        """
        try:
            _make_private(self._path.parent)
            _replace(self._path, _format(cached))
        except OSError as error:
            raise CacheError(f"cannot write {self._path}: {error.strerror}") from error

    def _parse(self, data: bytes) -> Cached:
        members = json.loads(data)
        winner = members["winner"]
        if not isinstance(winner, str):
            raise TypeError("winner is not a string")
        colony = json.dumps(members["colony"]).encode()
        lease = codec.lease_from(json_codec.decode(colony, LookupColonyResponse))
        require_colony(lease, self._mesh_id)
        return Cached(lease, winner)


def _format(cached: Cached) -> bytes:
    colony = json.loads(json_codec.encode(codec.lookup_reply(cached.lease)))
    return json.dumps({"winner": cached.winner, "colony": colony}).encode()


def _read_own(path: Path) -> bytes:
    """Return the file's content, unless others could have put it there: its key decides whom a tunnel trusts."""
    # A FIFO that somebody left there must not block the reader.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is not a regular file")
        if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError("it is not this user's alone to write")
        if about.st_size > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
        return file.read(_MAX_BYTES)


def _make_private(folder: Path) -> None:
    """Make `folder` and those above it that are missing, for this user alone: `parents=True` would open those."""
    if not folder.exists():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _replace(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
