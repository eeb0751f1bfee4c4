"""Keys files for tests."""

from __future__ import annotations

from pathlib import Path

from discovery.auth.keys import digest_of

# Not made anew in each process: tests are told apart by their parameters.
SECRET = "coral_" + "Aa0-_" * 8 + "Zz9"
OTHER_SECRET = "coral_" + "Bb1-_" * 8 + "Yy8"


def hashed(secret: str) -> str:
    return f"sha256:{digest_of(secret).hex()}"


def entry(name: str = "ci", secret: str = SECRET, more: str = "") -> str:
    return f"  - name: {name}\n    secret: {hashed(secret)}\n    roles: [lookup]\n{more}"


def write(path: Path, content: str | bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
