"""What `coral-discoveryctl keys` does to the file: make a key, list the keys, revoke one.

The file stays as a person wrote it, but for the entry that comes or goes. Whatever is written has been read back first:
a file that is laid out in a way which cannot be changed so is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from discovery.auth.editing import first_entry, with_entry, without_entry
from discovery.auth.files import make_folder, read, read_if_any, replace, sole_writer
from discovery.auth.keys import (
    EVERY_MESH,
    ApiKey,
    Keys,
    Role,
    check_pattern,
    digest_of,
    new_secret,
)
from discovery.auth.reading import MAX_LIST, Reader, parse_keys
from discovery.auth.times import format_time
from discovery.clock import MICROSECONDS, Instant
from discovery.errors import ConfigError
from discovery.validation import check_id


def create_key(
    path: Path,
    name: str,
    roles: Iterable[Role],
    meshes: Iterable[str] = (EVERY_MESH,),
    *,
    now: Instant,
    expires_at_us: int | None = None,
) -> str:
    """Add a key to the file and return its secret, which is nowhere else. Calling it twice is an error.

    Without a file, one is made for its owner alone. Those who call at once are served one after the other, and nothing
    that was acknowledged is lost.

    Raises:
        ConfigError: the name is taken, something given breaks a rule, or the file cannot be used. Nothing has changed.
    """
    secret = new_secret()
    created_at_us = now.unix_us // MICROSECONDS * MICROSECONDS
    key = ApiKey(
        name, digest_of(secret), frozenset(roles), tuple(meshes), expires_at_us, created_at_us
    )
    _require_sound(key, now)
    path = _real(path)
    make_folder(path)
    with sole_writer(path):
        _add(path, key)
    return secret


def list_keys(path: Path) -> tuple[ApiKey, ...]:
    """Return the keys in the file, in its order, expired ones too.

    Raises:
        ConfigError: the file cannot be used.
    """
    return tuple(parse_keys(read(path)[1], path))


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of the file. Servers that read it refuse the key a second later. Calling it twice is an error.

    Raises:
        ConfigError: there is no key of this name, or the file cannot be used. Nothing has changed.
    """
    path = _real(path)
    with sole_writer(path):
        _remove(path, name)


def _real(path: Path) -> Path:
    """Return where the file is, so that a symbolic link to it stays one."""
    return Path(os.path.realpath(path))


def _require_sound(key: ApiKey, now: Instant) -> None:
    for violation in check_id("name", key.name):
        raise ConfigError(f"the key's name {violation.description}")
    if not key.roles or not 0 < len(key.meshes) <= MAX_LIST:
        raise ConfigError(f"a key must have a role, and 1 to {MAX_LIST} mesh patterns")
    if key.has_expired(now):
        raise ConfigError("the key would have expired already: its end must be in the future")
    try:
        for pattern in key.meshes:
            check_pattern(pattern)
    except ValueError as error:
        raise ConfigError(f"the key's meshes {error}") from None


def _add(path: Path, key: ApiKey) -> None:
    text = read_if_any(path)
    reader, entry = Reader(path), _entry(key)
    if reader.is_blank(text):
        _replace(path, first_entry(text, entry), Keys([key]))
        return
    keys = reader.keys(text)
    if any(other.name == key.name for other in keys):
        raise ConfigError(f"{path} already has a key named {key.name}")
    _replace(path, with_entry(text, *reader.entries(text), entry), Keys([*keys, key]))


def _remove(path: Path, name: str) -> None:
    _, text = read(path)
    reader = Reader(path)
    keys = list(reader.keys(text))
    index = next((i for i, key in enumerate(keys) if key.name == name), None)
    if index is None:
        raise ConfigError(f"{path} has no key of this name")
    del keys[index]
    _replace(path, without_entry(text, *reader.entries(text), index), Keys(keys))


def _replace(path: Path, text: str | None, expected: Keys) -> None:
    if text is None or not _reads_as(text, path, expected):
        raise ConfigError(
            f"{path} is laid out so that only a person can edit it: make `keys` a list"
            " with a line `- name: ...` for each key"
        )
    replace(path, text)


def _reads_as(text: str, path: Path, expected: Keys) -> bool:
    try:
        return parse_keys(text, path) == expected
    except ConfigError:
        return False


def _entry(key: ApiKey) -> str:
    import yaml

    fields: dict[str, object] = {
        "name": key.name,
        "secret": f"sha256:{key.digest.hex()}",
        "roles": [role.value for role in Role if role in key.roles],
        "meshes": list(key.meshes),
    }
    for field, moment in (("expires", key.expires_at_us), ("created", key.created_at_us)):
        if moment is not None:
            fields[field] = format_time(moment)
    return str(yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, width=2**31))
