"""The join token: a secret that a colony and its agents share, so that strangers cannot join the mesh.

Discovery lets anybody register an agent under a mesh id. With a token, an agent's registration carries a proof that
only who knows the token can make, for this mesh, agent and key; and both sides give WireGuard a preshared key made of
the token, so that even a key that was registered by somebody else could not complete a handshake.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from discovery.errors import ConfigError
from discovery.wireguard.addresses import framed
from discovery.wireguard.keys import decode_key

PROOF_NAME = "coral-join-proof"
"""The metadata entry of an agent's registration that holds its proof."""
MIN_TOKEN_LENGTH = 16

# RFC 7914; 16 MiB and some 50 ms a guess, because the proof is public and can be tried against off line.
_SCRYPT_COST = {"n": 2**14, "r": 8, "p": 1}


class JoinToken:
    """What a token stands for in one mesh. It has no secret in its repr.

    Making one takes some 50 ms of computing, on purpose.
    """

    def __init__(self, token: str, mesh_id: str) -> None:
        """Derive the mesh's key from the token; white space around it does not count.

        Raises:
            ConfigError: the token is too short to be a secret.
        """
        secret = token.strip()
        if len(secret) < MIN_TOKEN_LENGTH:
            raise ConfigError(
                f"the join token must have at least {MIN_TOKEN_LENGTH} characters:"
                " make one with `openssl rand -base64 24`"
            )
        self._mesh_id = mesh_id.encode()
        salt = framed("coral join token v1", self._mesh_id)
        self._key = hashlib.scrypt(
            secret.encode(errors="surrogateescape"), salt=salt, dklen=32, **_SCRYPT_COST
        )

    def proof(self, agent_id: str, pubkey: str) -> str:
        """Return the proof that the agent with this id and public key knows the token, in base64. It may be public.

        Raises:
            ValueError: `pubkey` is no key.
        """
        return self._mac("coral join proof v1", agent_id.encode(), decode_key(pubkey))

    def verify(self, agent_id: str, pubkey: str, proof: str) -> bool:
        """Tell whether `proof` is this agent's, in a time that says nothing about the right one.

        Raises:
            ValueError: `pubkey` is no key.
        """
        expected = self.proof(agent_id, pubkey)
        return hmac.compare_digest(expected.encode(), proof.encode(errors="replace"))

    def preshared_key(self, colony_pubkey: str, agent_pubkey: str) -> str:
        """Return the preshared key that colony and agent give WireGuard for each other, 32 bytes in base64.

        Raises:
            ValueError: one of the public keys is none.
        """
        keys = decode_key(colony_pubkey), decode_key(agent_pubkey)
        return self._mac("coral preshared key v1", *keys)

    def _mac(self, label: str, *fields: bytes) -> str:
        message = framed(label, self._mesh_id, *fields)
        return base64.b64encode(hmac.digest(self._key, message, "sha256")).decode()
