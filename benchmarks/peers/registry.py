"""What the peers in Python share: a map with a TTL, a rough validation, and their command line."""

from __future__ import annotations

import argparse
import base64
import binascii
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TTL = 300
REFRESH_AFTER = 60
CLEANUP_INTERVAL = 60.0

_LONGEST_MESH_ID = 253
_KEY_BYTES = 32
_MOST_ENDPOINTS = 32


class InvalidError(Exception):
    """A registration breaks a rule."""


class TakenError(Exception):
    """Another key holds a live lease on the mesh."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One registration and its lease; times are Unix times in seconds."""

    mesh_id: str
    pubkey: str
    endpoints: Sequence[str]
    metadata: Mapping[str, str]
    last_seen: float
    expires_at: float


class Registry:
    """Colonies by mesh id, in memory."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def register(
        self, mesh_id: str, pubkey: str, endpoints: Sequence[str], metadata: Mapping[str, str]
    ) -> Entry:
        """Store a registration, or renew it.

        Raises:
            InvalidError: it breaks a rule.
            TakenError: another key holds a live lease.
        """
        _validate(mesh_id, pubkey, endpoints)
        now = time.time()
        held = self._entries.get(mesh_id)
        if held is not None and held.pubkey != pubkey and now < held.expires_at:
            raise TakenError
        entry = Entry(mesh_id, pubkey, tuple(endpoints), dict(metadata), now, now + TTL)
        self._entries[mesh_id] = entry
        return entry

    def lookup(self, mesh_id: str) -> Entry | None:
        """Return what is registered and has not expired."""
        entry = self._entries.get(mesh_id)
        return entry if entry is not None and time.time() < entry.expires_at else None

    def clean_up(self) -> None:
        """Forget what has expired."""
        now = time.time()
        self._entries = {name: one for name, one in self._entries.items() if now < one.expires_at}


def _validate(mesh_id: str, pubkey: str, endpoints: Sequence[str]) -> None:
    if not 0 < len(mesh_id) <= _LONGEST_MESH_ID:
        raise InvalidError("mesh_id: 1 to 253 characters")
    if not _is_key(pubkey):
        raise InvalidError("pubkey: the base64 of 32 bytes")
    if not 0 < len(endpoints) <= _MOST_ENDPOINTS:
        raise InvalidError("endpoints: 1 to 32")
    if not all(":" in endpoint for endpoint in endpoints):
        raise InvalidError("endpoints: each with a port")


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def arguments() -> argparse.Namespace:
    """Return the port and the TLS files that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    return parser.parse_args()
