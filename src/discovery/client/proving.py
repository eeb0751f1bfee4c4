"""Proving to a server that asks for it that a private key is held (docs/security.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from discovery.clock import SystemClock
from discovery.errors import ProofInvalidError, ProofRequiredError
from discovery.models import Registration
from discovery.proof import CHALLENGE_HEADER, Challenge, Method, Prover

R = TypeVar("R")

Proof = Mapping[str, str]
_NO_PROOF: Proof = {}


class Proving:
    """Makes a proof for each call that takes one, once a server has given a challenge.

    A challenge is good for one call. The reply to a call that was proved brings the next, so that only the first call
    is made twice; one whose challenge is too old, or was used by another call at the same time, as well.
    """

    def __init__(self, prover: Prover | None) -> None:
        """Prove with `prover`; without one nothing is ever proved."""
        self._prover = prover
        self._clock = SystemClock()
        self._challenge: Challenge | None = None

    def hear(self, metadata: Mapping[str, str | bytes]) -> None:
        """Take the next challenge from the metadata of a reply, if there is one."""
        header = metadata.get(CHALLENGE_HEADER)
        if isinstance(header, str):
            with suppress(ValueError):
                self._challenge = Challenge.read(header)

    async def call(
        self,
        method: Method,
        registration: Registration,
        make: Callable[[Proof], Awaitable[R]],
    ) -> R:
        """Make a call by `make`, with a proof of `registration` if the server has asked for one.

        Raises:
            DiscoveryError: what `make` raises. ProofRequiredError is raised if there is nothing to prove with.
        """
        try:
            return await make(self._prove(method, registration))
        except ProofRequiredError as error:
            if self._prover is None:
                raise
            self._challenge = Challenge(error.server_key, error.nonce)
        return await make(self._prove(method, registration))

    def _prove(self, method: Method, registration: Registration) -> Proof:
        challenge, self._challenge = self._challenge, None
        if challenge is None or self._prover is None:
            return _NO_PROOF
        try:
            return self._prover.prove(method, registration, challenge, self._clock.now())
        except ValueError:
            raise ProofInvalidError("the server's challenge is none that can be answered") from None
