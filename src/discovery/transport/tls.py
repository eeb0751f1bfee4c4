"""TLS for the public port, and the renewal of its certificate while it is open.

Every renewal builds a whole new `ssl.SSLContext` and puts it in the place of the old one; each new connection takes
the `context` of its moment. The other two ways were tried on CPython 3.11 to 3.13 with OpenSSL 3.0, and both break a
promise:

* `load_cert_chain` on the context in use: a key that does not match leaves it without any certificate, so that every
  handshake fails from then on, and `load_verify_locations` only adds: a client CA that was taken away stays trusted.
* `sni_callback`, moving each handshake to the new context: session tickets and `verify_mode` stay those of the first
  context. A client whose CA was taken away resumes its session and is let in, and a client CA that is added later is
  not asked for at all.

With a new context a connection that is open keeps what it agreed on, and a session that was begun under the old files
is not resumed: its client is verified anew. The price is one full handshake for each client after a renewal.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from datetime import UTC, datetime

from structlog.typing import FilteringBoundLogger

from discovery.clock import MICROSECONDS, Clock
from discovery.errors import ConfigError
from discovery.transport.tls_files import HTTP1, HTTP2, TlsFiles, Validity, rehearse

__all__ = ["CHECK_INTERVAL", "HTTP1", "HTTP2", "ServerTls", "TlsFiles"]

CHECK_INTERVAL = 10.0
"""How often to look at the files, in seconds."""


class ServerTls:
    """The TLS side of a server: its `context`, kept as new as its files."""

    def __init__(self, files: TlsFiles, log: FilteringBoundLogger, clock: Clock) -> None:
        """Load the files.

        Raises:
            ConfigError: they cannot be used; the message says what to do.
        """
        self._files = files
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._refused: tuple[bytes, str] | None = None
        self._seen = self._in_force = files.digest()
        self._take(files.load())
        self._warn_of_trouble()

    @property
    def context(self) -> ssl.SSLContext:
        """What a connection that is made now is to use: ask anew for each. With a CA it demands client certificates."""
        return self._context

    @property
    def not_after(self) -> float | None:
        """When the certificate in force ends, in Unix time; None if it could not be told."""
        return self._validity.end if self._validity is not None else None

    def reload(self) -> bool:
        """Take up files that changed, and return whether that was so.

        It blocks, on the files and for the milliseconds that a handshake takes.

        Raises:
            ConfigError: they cannot be used, half-written ones among them. That changes nothing.
        """
        with self._lock:  # `watch` may be at it, in its thread
            return self._reload()

    def reload_if_changed(self) -> bool:
        """Do as `reload`, but for files that cannot be used.

        That is logged once for each state of theirs, and the next call tries again.
        """
        with self._lock:
            try:
                return self._reload()
            except ConfigError as error:
                self._complain(str(error))
                return False

    async def watch(self, interval: float = CHECK_INTERVAL) -> None:
        """Take up changed files every `interval` seconds, until cancelled."""
        while True:
            await asyncio.sleep(interval)
            # In a thread: the files may lie on a network's file system.
            await asyncio.to_thread(self.reload_if_changed)

    def _reload(self) -> bool:
        self._seen = b""
        self._seen = self._files.digest()
        changed = self._seen != self._in_force
        if changed:
            self._take(self._files.load())
        self._in_force, self._refused = self._seen, None
        if changed:
            self._log.info("TLS certificate renewed", **self._described())
        self._warn_of_trouble()
        return changed

    def _take(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._validity = self._rehearse(context)
        self._trouble: str | None = None

    def _rehearse(self, context: ssl.SSLContext) -> Validity | None:
        try:
            return rehearse(context, self._files.cert)
        except (OSError, ValueError) as error:
            why = getattr(error, "verify_message", None) or str(error)
            path = str(self._files.cert)
            self._log.warning("TLS certificate may be refused by clients", path=path, why=why)
            return None

    def _complain(self, error: str) -> None:
        if self._refused != (self._seen, error):
            self._refused = self._seen, error
            self._log.warning("TLS files cannot be used; the old ones stay in force", error=error)

    def _warn_of_trouble(self) -> None:
        """Say what is wrong with the certificate's dates, each time that it becomes something else."""
        now = self._clock.now().unix_us / MICROSECONDS
        trouble = self._validity.trouble(now) if self._validity is not None else None
        if trouble is not None and trouble != self._trouble:
            self._log.warning(f"TLS certificate {trouble}", **self._described())
        self._trouble = trouble

    def _described(self) -> dict[str, str]:
        end = self.not_after
        until = "unknown" if end is None else datetime.fromtimestamp(end, UTC).isoformat()
        return {"path": str(self._files.cert), "not_after": until}
