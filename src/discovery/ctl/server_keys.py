"""The file of a server's X25519 keys (docs/security.md): make it, or put a new key in front of those in it."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from discovery.auth.files import make_folder, replace, sole_writer
from discovery.proof import ServerKeys, load_server_keys
from discovery.proof.text import encode


def rotate(path: Path, keep: int) -> list[str]:
    """Put a new key first in the file, keep the `keep` newest of the others, and return the public keys in base64.

    Without a file one is made, for its owner alone. Whoever reads it meanwhile reads the old one or the new one.

    Raises:
        ConfigError: the file holds something else, is open to everybody, or cannot be written. Nothing has changed.
    """
    path = Path(os.path.realpath(path))
    make_folder(path)
    with sole_writer(path):
        old = load_server_keys(path) if path.exists() else ()
        keys = ServerKeys(ServerKeys.generate().first, *islice(old, keep))
        replace(path, keys.to_text())
    return [encode(key.public) for key in keys]
