"""The proof that a registrant holds the WireGuard private key that it names (docs/security.md has all of it).

A server gives a challenge, its X25519 public key and a nonce:

    verifier = Verifier(load_server_keys(path), MemorySeenNonces(clock), clock)
    challenge = verifier.challenge()

A registrant answers with metadata that goes with its call:

    prover = Prover(private_key)
    metadata = prover.prove(Method.REGISTER_COLONY, registration, challenge, clock.now())

And the server, or another that has the same keys, holds it against the message that came with it:

    await verifier.verify(Method.REGISTER_COLONY, registration, metadata)

Nothing here knows a transport.
"""

from discovery.proof.header import CHALLENGE_HEADER, OLD_PROOF_HEADER, PROOF_HEADER, Challenge
from discovery.proof.keys import ServerKeys, load_server_keys
from discovery.proof.nonces import Nonce
from discovery.proof.prover import Prover
from discovery.proof.seen import MemorySeenNonces, SeenNonces
from discovery.proof.statement import Method
from discovery.proof.verifier import Verifier

__all__ = [
    "CHALLENGE_HEADER",
    "OLD_PROOF_HEADER",
    "PROOF_HEADER",
    "Challenge",
    "MemorySeenNonces",
    "Method",
    "Nonce",
    "Prover",
    "SeenNonces",
    "ServerKeys",
    "Verifier",
    "load_server_keys",
]
