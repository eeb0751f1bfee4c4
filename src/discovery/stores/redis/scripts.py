"""The Lua scripts beside this module. Each starts with `common.lua`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib import resources


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name that Redis has for it once it has seen it."""

    text: bytes
    sha: bytes = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest.encode())


def load(name: str) -> Script:
    """Return the script in `<name>.lua`."""
    return Script(_read("common") + b"\n" + _read(name))


def _read(name: str) -> bytes:
    return resources.files(__package__).joinpath(f"{name}.lua").read_bytes()
