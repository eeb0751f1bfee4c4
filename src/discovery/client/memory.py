"""What an agent knows of its colony, in memory and, if it may, on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from discovery.client.cache import Cached, CacheError, CacheFile
from discovery.models import Endpoint, Lease, Registration


class ColonyMemory:
    """The lease that was last known, and which endpoint last worked.

    `problem` says why the file was not read or not written, and is empty if all is well.
    """

    def __init__(self, mesh_id: str, file: Path | None) -> None:
        """Begin with what `file` holds, if it is given and there."""
        self.lease: Lease | None = None
        self.problem = ""
        self._winner = ""
        self._saved: tuple[Registration, str] | None = None
        self._cache = None if file is None else CacheFile(file, mesh_id)
        if self._cache is not None:
            self._load(self._cache)

    def learn(self, lease: Lease) -> None:
        """Take in what discovery says now."""
        self.lease = lease
        self._save()

    def prefer(self, endpoint: str) -> None:
        """Put `endpoint` first, as long as the colony has it."""
        self._winner = endpoint
        self._save()

    def forget(self, endpoint: str) -> None:
        """Do not put `endpoint` first any more, if that was it."""
        if endpoint == self._winner:
            self.prefer("")

    def endpoints(self) -> tuple[str, ...]:
        """Return what worked last, if the colony still has it, then the others in their order."""
        if self.lease is None:
            return ()
        known = dict.fromkeys(_endpoints_of(self.lease.registration))
        return tuple(sorted(known, key=lambda endpoint: endpoint != self._winner))

    def _load(self, cache: CacheFile) -> None:
        try:
            cached = cache.load()
        except CacheError as error:
            self.problem = str(error)
            return
        if cached is not None:
            self.lease, self._winner = cached.lease, cached.winner
            self._saved = (cached.lease.registration, cached.winner)

    def _save(self) -> None:
        """Write the file if it would hold anything new: a renewal alone is nothing new."""
        if self._cache is None or self.lease is None:
            return
        content = (self.lease.registration, self._winner)
        if content == self._saved:
            return
        try:
            self._cache.save(Cached(self.lease, self._winner))
        except CacheError as error:
            self.problem = str(error)
        else:
            self.problem, self._saved = "", content


def _endpoints_of(registration: Registration) -> Iterator[str]:
    yield from registration.endpoints
    observed = registration.observed_endpoint
    if observed is not None and _carries_wireguard(observed):
        host = f"[{observed.ip}]" if ":" in observed.ip else observed.ip
        yield f"{host}:{observed.port}"


def _carries_wireguard(endpoint: Endpoint) -> bool:
    """Return whether it may: a TCP connection's source says nothing of where UDP arrives."""
    return endpoint.protocol != "tcp" and endpoint.port > 0
