"""What an API key is, and how the one that a call brings is found.

A secret is `coral_`, which tools that search for leaked secrets can look for, and 256 random bits in base64url (RFC
4648 section 5). Only its SHA-256 is kept. A slow, salted hash guards what people think up, because that can be guessed;
nobody guesses 256 random bits, however fast the hash, and a slow one would let anybody keep the server busy with
guesses.
"""

from __future__ import annotations

import enum
import fnmatch
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from discovery.clock import Instant
from discovery.validation import MAX_ID_LENGTH

EVERY_MESH = "*"
SECRET_BYTES = 32

SECRET = re.compile(r"coral_[A-Za-z0-9_-]{43}", re.ASCII)
"""What a secret looks like."""
_PATTERN = re.compile(rf"[A-Za-z0-9*][A-Za-z0-9._*-]{{0,{MAX_ID_LENGTH - 1}}}", re.ASCII)


class Role(enum.StrEnum):
    """What a key may do. None includes another."""

    REGISTER = "register"
    LOOKUP = "lookup"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key: not its secret, only the SHA-256 of that.

    `meshes` are patterns of whole mesh ids, in which only `*` is special. Times are in microseconds, Unix time; None is
    never, or not known.
    """

    name: str
    digest: bytes = field(repr=False)
    roles: frozenset[Role]
    meshes: tuple[str, ...] = (EVERY_MESH,)
    expires_at_us: int | None = None
    created_at_us: int | None = None
    _mesh: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_mesh", _compiled(self.meshes))

    def allows(self, role: Role, mesh_id: str) -> bool:
        """Return whether the key has this role for this mesh. It does not look at the time."""
        if role not in self.roles:
            return False
        if len(mesh_id) > MAX_ID_LENGTH:
            # No mesh id at all, which is for validation to say. What a match may cost stays bounded.
            return EVERY_MESH in self.meshes
        return self._mesh.match(mesh_id) is not None

    def has_expired(self, now: Instant) -> bool:
        """Return whether the key's time is over. It is the wall clock's time: an expiry is a date."""
        return self.expires_at_us is not None and now.unix_us >= self.expires_at_us


class Keys:
    """The keys of one moment. It never changes."""

    __slots__ = ("_by_digest",)

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        """Hold `keys`, of which no two have a name or a secret in common."""
        self._by_digest = {key.digest: key for key in keys}

    def find(self, secret: str, now: Instant) -> ApiKey | None:
        """Return the key with this secret, None if there is none or it has expired.

        How long that takes says nothing about any secret. The table is searched by the digest, of which a caller cannot
        choose a single bit but by trying, and the beginning of a digest brings nobody nearer to the 256 bits behind it;
        a whole digest is compared in constant time all the same.
        """
        if not SECRET.fullmatch(secret):
            return None
        digest = digest_of(secret)
        key = self._by_digest.get(digest)
        if key is None or not hmac.compare_digest(key.digest, digest) or key.has_expired(now):
            return None
        return key

    def __iter__(self) -> Iterator[ApiKey]:
        return iter(self._by_digest.values())

    def __len__(self) -> int:
        return len(self._by_digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keys) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))


def new_secret() -> str:
    """Return a secret that nobody has."""
    return f"coral_{secrets.token_urlsafe(SECRET_BYTES)}"


def digest_of(secret: str) -> bytes:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def check_pattern(pattern: str) -> None:
    """Check a pattern of mesh ids.

    Raises:
        ValueError: it could match none; the message is the end of a sentence that begins with what it is for.
    """
    if not _PATTERN.fullmatch(pattern):
        raise ValueError(
            f"must hold patterns of 1 to {MAX_ID_LENGTH} of A-Z a-z 0-9 . _ - *, the first none of . _ -"
        )


def _compiled(meshes: tuple[str, ...]) -> re.Pattern[str]:
    # Of what `fnmatch` finds special, a pattern holds only `*`. It makes an atomic group of each `*` but the last, so
    # that nothing is ever tried twice: `*a*a*a*b` costs as little as it looks.
    return re.compile("|".join(map(fnmatch.translate, meshes)))
