"""Challenges and proofs as call metadata: ASCII, so that gRPC, Connect and REST carry them alike."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from discovery.proof.nonces import NONCE_BYTES
from discovery.proof.statement import Occasion
from discovery.proof.tags import KEY_BYTES, TAG_BYTES
from discovery.proof.text import decode, encode

PROOF_HEADER = "coral-proof"
"""With a call: the proof that its sender holds the key that the message names."""

OLD_PROOF_HEADER = "coral-proof-old"
"""With a call beside PROOF_HEADER: the proof that the holder of another key, an old one, says the same."""

CHALLENGE_HEADER = "coral-challenge"
"""With the reply to a call that was proved: the challenge for the next one."""

_VERSION = "v1"
# A whole number without leading zeros, so that a proof has one form. 15 digits last until the year 33,658.
_TIME = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a server wants a proof made with: its public key, and a nonce that is good once. Both are base64."""

    server_key: str
    nonce: str

    def header(self) -> str:
        """Return it as metadata; `read` reads it back."""
        return f"{_VERSION} {self.server_key} {self.nonce}"

    @classmethod
    def read(cls, header: str) -> Self:
        """Read what `header` makes.

        Raises:
            ValueError: it is something else.
        """
        server_key, nonce = _parts(header, 2)
        challenge = cls(server_key, nonce)
        challenge.occasion(at_ms=0)
        return challenge

    def occasion(self, at_ms: int) -> Occasion:
        """Return the occasion of answering this challenge at `at_ms`.

        Raises:
            ValueError: it is not well formed.
        """
        return Occasion(decode(self.server_key, KEY_BYTES), decode(self.nonce, NONCE_BYTES), at_ms)


@dataclass(frozen=True, slots=True)
class Proof:
    """On what occasion the key that the message names was proved, and the tag that proves it."""

    occasion: Occasion
    tag: bytes

    def header(self) -> str:
        """Return it as metadata; `read` reads it back."""
        said = self.occasion
        return " ".join(
            (
                _VERSION,
                encode(said.server_key),
                str(said.at_ms),
                encode(said.nonce),
                encode(self.tag),
            )
        )

    @classmethod
    def read(cls, header: str) -> Self:
        """Read what `header` makes.

        Raises:
            ValueError: it is something else.
        """
        server_key, at_ms, nonce, tag = _parts(header, 4)
        if not _TIME.fullmatch(at_ms):
            raise ValueError("not a time in milliseconds")
        return cls(Challenge(server_key, nonce).occasion(int(at_ms)), decode(tag, TAG_BYTES))


@dataclass(frozen=True, slots=True)
class OldProof:
    """The tag that the holder of `pubkey`, in base64, made on the same occasion of the same statement."""

    pubkey: str
    tag: bytes

    def header(self) -> str:
        """Return it as metadata; `read` reads it back."""
        return f"{_VERSION} {self.pubkey} {encode(self.tag)}"

    @classmethod
    def read(cls, header: str) -> Self:
        """Read what `header` makes.

        Raises:
            ValueError: it is something else.
        """
        pubkey, tag = _parts(header, 2)
        return cls(pubkey, decode(tag, TAG_BYTES))


def _parts(header: str, count: int) -> list[str]:
    version, *parts = header.split(" ")
    if version != _VERSION or len(parts) != count:
        raise ValueError(f"not {_VERSION} and {count} parts after it")
    return parts
