"""Registering a colony by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from discovery.ctl.access import Access
from discovery.ctl.records import Fields
from discovery.ctl.text import rfc3339
from discovery.errors import ConfigError
from discovery.models import Registration
from discovery.proof import Prover
from discovery.transport.moments import to_datetime
from discovery.validation import check_registration, require
from discovery.wireguard.keys import load


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who is to be registered, and what proves it."""

    registration: Registration
    prover: Prover | None = None


def make_applicant(
    mesh: str,
    endpoints: Iterable[str],
    metadata: Iterable[str],
    pubkey: str | None,
    key_file: Path | None,
) -> Applicant:
    """Return the applicant that options describe, with the key in `key_file` or with `pubkey`.

    Raises:
        ConfigError: there is no key, or two, or the file cannot be used; or metadata is not `KEY=VALUE`.
        InvalidFieldError: something else breaks a rule.
    """
    if (pubkey is None) == (key_file is None):
        raise ConfigError("give the colony's key, by --pubkey or by --key-file")
    pair = None if key_file is None else load(key_file)
    registration = Registration(
        mesh,
        pubkey or (pair.public_key if pair else ""),
        tuple(endpoints),
        dict(_parsed(metadata)),
    )
    require(check_registration(registration))
    return Applicant(registration, Prover(pair.private_key) if pair else None)


async def register(access: Access, applicant: Applicant) -> Fields:
    """Register, and return what was granted, as plain values.

    Raises:
        DiscoveryError: it was refused, or nobody answered.
    """
    async with access.client(applicant.prover) as client:
        granted = await client.register_colony(applicant.registration)
    return {
        "mesh_id": applicant.registration.mesh_id,
        "pubkey": applicant.registration.pubkey,
        "ttl_seconds": granted.ttl,
        "expires_at": rfc3339(to_datetime(granted.expires_at_us)),
        "revision": granted.revision,
    }


def _parsed(metadata: Iterable[str]) -> Iterator[tuple[str, str]]:
    for each in metadata:
        name, equals, value = each.partition("=")
        if not equals:
            raise ConfigError(f"--metadata must be KEY=VALUE, not {each!r}")
        yield name, value
