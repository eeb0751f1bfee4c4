"""The files behind TLS: what they must hold, what is made of them, and what their certificate says of itself."""

from __future__ import annotations

import hashlib
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from discovery.errors import ConfigError

HTTP2 = "h2"
HTTP1 = "http/1.1"
"""What ALPN calls the two; a client that offers neither is told apart by its first bytes."""

# RFC 9113 section 9.2.2 forbids all others for HTTP/2; TLS 1.3 has a list of its own, which is good as it is.
_TLS12_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"
# Certificates of ninety days are commonly renewed thirty before their end: by then something has gone wrong for long.
_SOON = 7 * 24 * 3600

_CERTIFICATE = re.compile(rb"-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----")
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_NO_MATCH = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
_NO_CHECK_TIME = (
    0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h, which `ssl` has no name for
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the server's certificate (with its chain, its own first), key and the clients' CA are; all PEM."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def digest(self) -> bytes:
        """Return what tells one state of the files from another, whatever symbolic links lead there.

        Raises:
            ConfigError: one of them cannot be read, or is not what it should be.
        """
        contents = [
            _read(self.cert, "certificate", _CERTIFICATE, "--tls-cert"),
            _read(self.key, "private key", _PRIVATE_KEY, "--tls-key"),
        ]
        if self.client_ca is not None:
            contents.append(_read(self.client_ca, "certificate", _CERTIFICATE, "--tls-client-ca"))
        return b"".join(hashlib.sha256(content).digest() for content in contents)

    def load(self) -> ssl.SSLContext:
        """Return a new context made from the files.

        Raises:
            ConfigError: they cannot be used, or not together.
        """
        context = _blank_context()
        try:
            context.load_cert_chain(self.cert, self.key, password=self._refuse_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(self._explain(error)) from None
        if self.client_ca is not None:
            _require_clients_of(context, self.client_ca)
        return context

    def _refuse_password(self) -> NoReturn:
        """Stand where OpenSSL would ask for a password on the terminal."""
        raise ConfigError(
            f"{self.key} is encrypted, and nobody is there to type its password: write it without one by"
            f" `openssl pkey -in {self.key} -out FILE`, and give that FILE with --tls-key"
        )

    def _explain(self, error: Exception) -> str:
        reason = getattr(error, "reason", None)
        if reason in _NO_MATCH:
            return (
                f"{self.key} is not the key of the first certificate in {self.cert}: give two that belong together,"
                " with the server's own certificate before those of its chain"
            )
        why = reason.replace("_", " ").lower() if reason else "one of them is damaged"
        return f"cannot use {self.cert} with {self.key}: {why}; give others with --tls-cert and --tls-key"


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when the server's certificate is valid, in Unix time."""

    start: float
    end: float

    def trouble(self, now: float) -> str | None:
        """Return what clients have, or will soon have, against the certificate."""
        if now < self.start:
            return "is not valid yet"
        if now >= self.end:
            return "has expired"
        return "expires soon" if now >= self.end - _SOON else None


def rehearse(context: ssl.SSLContext, cert: Path) -> Validity:
    """Return when the certificate is valid, as a client sees it that trusts nothing but the file `cert`.

    The handshake takes place in memory. It is how `ssl` gives a certificate's dates away, and shows at once what no
    loading does: that clients get through with it.

    Raises:
        ssl.SSLError: such a client refuses it, for another reason than its dates.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.load_verify_locations(cert)
    trusting.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    # In TLS 1.3 the client is through after the server's first flight: before it would have to show its certificate.
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    shown = client.getpeercert() or {}
    start, end = str(shown["notBefore"]), str(shown["notAfter"])
    return Validity(ssl.cert_time_to_seconds(start), ssl.cert_time_to_seconds(end))


def _blank_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS12_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION  # RFC 9113 section 9.2.1
    context.set_alpn_protocols([HTTP2, HTTP1])
    return context


def _require_clients_of(context: ssl.SSLContext, client_ca: Path) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    # What is in the file is trusted as it stands, so an intermediate CA can be given alone.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(client_ca)
    except (OSError, ValueError):
        raise ConfigError(
            f"{client_ca} is damaged; give PEM certificates with --tls-client-ca"
        ) from None


def _read(path: Path, what: str, marker: re.Pattern[bytes], flag: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; give the {what}'s file with {flag}"
        ) from None
    if not marker.search(content):
        raise ConfigError(f"{path} holds no {what} in PEM form; give one that does with {flag}")
    return content
