"""What a proof is made of: X25519 (RFC 7748), HKDF (RFC 5869) and HMAC (RFC 2104), the last two with SHA-256.

The registrant has its own private key and the server's public one, the server has its own private key and the
registrant's public one. Both come to the same secret, nobody else does, and so a tag that is made with it shows the
server that it comes from the registrant.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from discovery.proof.statement import LABEL

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

KEY_BYTES = 32
TAG_BYTES = 32


def shared_secret(private: X25519PrivateKey, public: bytes) -> bytes:
    """Return what both have in common.

    Raises:
        ValueError: `public` has no secret in common with anybody (RFC 7748 section 6.1: a point of small order gives
            zero with every private key, so that anybody could prove to hold its private key).
    """
    # Here, in `keys` and in `prover` it is imported where keys are used: most servers have none, and start without.
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    return private.exchange(X25519PublicKey.from_public_bytes(public))


def tag(secret: bytes, *, registrant: bytes, server: bytes, statement: bytes) -> bytes:
    """Return the tag of `statement` under a shared secret; `registrant` and `server` are the two public keys.

    Both are in the salt, because several public keys may have one secret in common (RFC 7748 section 7).
    """
    return hmac.digest(derive(secret, LABEL, registrant + server), statement, "sha256")


def derive(secret: bytes, purpose: str, salt: bytes | None = None) -> bytes:
    """Return the key for one purpose that comes of `secret`."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=purpose.encode()).derive(
        secret
    )
