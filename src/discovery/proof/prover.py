"""The registrant's side: it makes proofs."""

from __future__ import annotations

from collections.abc import Mapping

from discovery.clock import Instant
from discovery.models import Registration
from discovery.proof.header import (
    OLD_PROOF_HEADER,
    PROOF_HEADER,
    Challenge,
    OldProof,
    Proof,
)
from discovery.proof.statement import Method, Occasion, statement
from discovery.proof.tags import KEY_BYTES, shared_secret, tag
from discovery.proof.text import decode, encode


class Prover:
    """Proves with a WireGuard private key; if there is an old one, with that too, to move from its key to the new.

    Raises:
        ValueError: a key is not the base64 of 32 bytes. The message does not repeat it.
    """

    def __init__(self, private_key: str, old_private_key: str | None = None) -> None:
        self._holder = _Holder(private_key)
        self._old_holder = None if old_private_key is None else _Holder(old_private_key)

    def prove(
        self, method: Method, registration: Registration, challenge: Challenge, now: Instant
    ) -> Mapping[str, str]:
        """Return the metadata that proves a call, by the name of each header.

        It is good for one attempt within a minute: another attempt takes another challenge.

        Raises:
            ValueError: the challenge is not well formed, or its key is one that nothing can be proved to.
        """
        occasion = challenge.occasion(now.unix_us // 1000)
        said = statement(method, registration, occasion)
        proof = Proof(occasion, self._holder.tag(said, occasion))
        headers = {PROOF_HEADER: proof.header()}
        if (old := self._old_holder) is not None:
            old_proof = OldProof(encode(old.public), old.tag(said, occasion))
            headers[OLD_PROOF_HEADER] = old_proof.header()
        return headers


class _Holder:
    """Somebody who holds a private key."""

    def __init__(self, private_key: str) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        self._private = X25519PrivateKey.from_private_bytes(decode(private_key, KEY_BYTES))
        self.public = self._private.public_key().public_bytes_raw()

    def tag(self, said: bytes, occasion: Occasion) -> bytes:
        """Return the tag of the statement `said` to the server of the occasion."""
        server = occasion.server_key
        secret = shared_secret(self._private, server)
        return tag(secret, registrant=self.public, server=server, statement=said)
