"""How to reach the two APIs of a server, and with what."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from discovery.errors import ConfigError

if TYPE_CHECKING:
    import ssl

    from discovery.client import DiscoveryClient
    from discovery.ctl.admin import AdminClient
    from discovery.proof import Prover

TIMEOUT = 10.0
"""Seconds that one call may take."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a server; clients are imported when they are made.

    Where the admin API (`admin`) and the public one (`server`) are, and what to show and to trust there.

    The key is given by itself or by its file. Without `ca_cert` the system's authorities are trusted.
    """

    admin: str = ""
    server: str = ""
    api_key: str | None = field(default=None, repr=False)
    api_key_file: Path | None = None
    ca_cert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None

    def secret(self) -> str | None:
        """Return the API key, if there is one.

        Raises:
            ConfigError: it is given twice, its file cannot be read, or it is none that a header can hold.
        """
        secret = self._given()
        if secret is not None and not (secret.isascii() and secret.isprintable() and secret):
            raise ConfigError("the API key is empty, or holds what no API key does")
        return secret

    def tls(self) -> ssl.SSLContext:
        """Return how to speak TLS.

        Raises:
            ConfigError: a file cannot be used.
        """
        from discovery.client import tls_context

        return tls_context(self.ca_cert, self.client_cert, self.client_key)

    def admin_client(self) -> AdminClient:
        """Return a client of the admin API; raises ConfigError if it cannot be one."""
        from discovery.ctl.admin import AdminClient

        tls = self.tls() if self.admin.startswith("https://") else None
        return AdminClient(self.admin, timeout=TIMEOUT, tls=tls, api_key=self.secret())

    def client(self, prover: Prover | None = None) -> DiscoveryClient:
        """Return a client of the public API; raises ConfigError if it cannot be one."""
        from discovery.client import DiscoveryClient

        tls = self.tls() if self.server.startswith("https://") else None
        return DiscoveryClient(
            self.server, timeout=TIMEOUT, tls=tls, api_key=self.secret(), prover=prover
        )

    def _given(self) -> str | None:
        if self.api_key_file is None:
            return None if self.api_key is None else self.api_key.strip()
        if self.api_key is not None:
            raise ConfigError("--api-key and --api-key-file: give one of them")
        try:
            return self.api_key_file.read_text().strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"--api-key-file: cannot read {self.api_key_file}: {error}") from None
