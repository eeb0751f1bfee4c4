"""The server's side: it gives challenges and holds proofs against the messages that they came with."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping

from discovery.clock import Clock
from discovery.errors import ProofInvalidError, ProofRequiredError
from discovery.models import Registration
from discovery.proof.header import (
    OLD_PROOF_HEADER,
    PROOF_HEADER,
    Challenge,
    OldProof,
    Proof,
)
from discovery.proof.keys import ServerKey, ServerKeys
from discovery.proof.nonces import CLOCK_TOLERANCE_MS, Nonce, make_nonce, read_nonce
from discovery.proof.seen import SeenNonces
from discovery.proof.statement import Method, Occasion, statement
from discovery.proof.tags import KEY_BYTES, shared_secret, tag
from discovery.proof.text import decode, encode


class Verifier:
    """Verifies on behalf of all servers that have the same keys and share what `seen` remembers.

    It keeps nothing itself, so another one with other keys may take its place at any time.
    """

    def __init__(self, keys: ServerKeys, seen: SeenNonces, clock: Clock) -> None:
        self._keys = keys
        self._seen = seen
        self._clock = clock

    def challenge(self) -> Challenge:
        """Return a new challenge, which is good for two minutes, and for one proof. It is not kept."""
        key = self._keys.first
        nonce = make_nonce(key.nonce_key, secrets.token_bytes(16), self._now_ms())
        return Challenge(encode(key.public), encode(nonce))

    async def verify(
        self, method: Method, registration: Registration, metadata: Mapping[str, str | bytes]
    ) -> str | None:
        """Verify that who sent `registration` holds the private key of its `pubkey`, and sent it now.

        Return the old public key whose holder says the same, in base64, if there is one. Whether that key owns
        anything is not looked at.

        What costs least is checked first, and a nonce is used up last: only who can make a valid proof can use it up.

        Raises:
            ProofRequiredError: there is no proof, or one that was good before or elsewhere. A new one, made with the
                challenge in the error, may do.
            ProofInvalidError: the proof does not hold, and another one made in the same way will not.
            StoreUnavailableError: whether the proof was used before cannot be told now.
        """
        proof, old = self._read(metadata)
        key, nonce = self._check_occasion(proof.occasion)
        said = statement(method, registration, proof.occasion)
        _check_tag(key, registration.pubkey, said, proof.tag)
        if old is not None:
            _check_tag(key, old.pubkey, said, old.tag)
        if not await self._seen.use(nonce):
            raise self._required("this proof was used before, or waited too long to tell")
        return None if old is None else old.pubkey

    def _read(self, metadata: Mapping[str, str | bytes]) -> tuple[Proof, OldProof | None]:
        header, old = metadata.get(PROOF_HEADER), metadata.get(OLD_PROOF_HEADER)
        if header is None:
            raise self._required(f"prove that you hold the private key, in {PROOF_HEADER}")
        try:
            return Proof.read(_ascii(header)), None if old is None else OldProof.read(_ascii(old))
        except ValueError:
            raise ProofInvalidError(
                f"{PROOF_HEADER} or {OLD_PROOF_HEADER} is not in its form"
            ) from None

    def _check_occasion(self, occasion: Occasion) -> tuple[ServerKey, Nonce]:
        if (key := self._keys.find(occasion.server_key)) is None:
            raise self._required("the proof was made for another server's key, or for one of old")
        self._check_time(occasion.at_ms)
        try:
            nonce = read_nonce(key.nonce_key, occasion.nonce)
        except ValueError:
            raise ProofInvalidError("the proof's nonce is none that this server gave") from None
        if not nonce.is_good(self._now_ms()):
            raise self._required("the proof's nonce has expired")
        return key, nonce

    def _check_time(self, at_ms: int) -> None:
        ahead = at_ms - self._now_ms()
        if abs(ahead) > CLOCK_TOLERANCE_MS:
            direction = "ahead of" if ahead > 0 else "behind"
            raise ProofInvalidError(
                f"the clock that the proof was made by is {abs(ahead) / 1000:.1f} s {direction} this server's:"
                f" at most {CLOCK_TOLERANCE_MS // 1000} s are allowed"
            )

    def _required(self, message: str) -> ProofRequiredError:
        challenge = self.challenge()
        return ProofRequiredError(message, challenge.server_key, challenge.nonce)

    def _now_ms(self) -> int:
        return self._clock.now().unix_us // 1000


def _check_tag(key: ServerKey, pubkey: str, said: bytes, given: bytes) -> None:
    try:
        registrant = decode(pubkey, KEY_BYTES)
        secret = shared_secret(key.private, registrant)
    except ValueError:
        raise ProofInvalidError("nobody can hold the private key of this public key") from None
    expected = tag(secret, registrant=registrant, server=key.public, statement=said)
    if not hmac.compare_digest(expected, given):
        raise ProofInvalidError(
            "the proof does not hold: another private key or another message made it"
        )


def _ascii(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("ascii")
