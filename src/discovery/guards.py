"""Who may call: the guards of the pipeline, each on what decides without knowing a transport.

In this order: the rate of the caller's address, before anything is read that costs more; its API key; its proof; and
only then the rates of the mesh and the key, so that nobody uses up what is not theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import betterproto

from discovery._gen.coral.discovery import v1 as pb
from discovery.auth import ApiKey, KeysFile, Role, bearer
from discovery.clock import Clock
from discovery.errors import (
    PermissionDeniedError,
    RateLimitedError,
    UnauthenticatedError,
    Violation,
)
from discovery.models import Registration, site_of
from discovery.proof import CHALLENGE_HEADER, Method, Verifier
from discovery.ratelimits import Limiter
from discovery.remembered import Remembered
from discovery.transport import agent_codec, codec
from discovery.transport.calming import Turns
from discovery.transport.messages import plain
from discovery.transport.pipeline import Call, Guard
from discovery.transport.redaction import holds_secret
from discovery.validation import (
    check_agent,
    check_agent_registration,
    check_id,
    check_pubkey,
    check_registration,
    require,
)

# What needs no key: probes have none, and it tells nothing of any mesh.
_OPEN = frozenset({"Health"})
_SHOWN = ("mesh_id", "agent_id", "pubkey")
_ROLES: Mapping[str, Role] = {
    **dict.fromkeys(
        ("RegisterColony", "DeregisterColony", "RegisterAgent", "DeregisterAgent"), Role.REGISTER
    ),
    **dict.fromkeys(
        ("LookupColony", "WatchColony", "LookupAgent", "ListAgents", "WatchAgents"), Role.LOOKUP
    ),
}


class AddressLimits(Guard):
    """Limits how often an address may call."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._turns = Turns()
        self._refusing = asyncio.Lock()

    async def admit(self, call: Call) -> None:
        """See Guard.

        Raises:
            RateLimitedError: too often.
        """
        try:
            await self._limiter.check(_method(call), address=call.peer)
        except RateLimitedError:
            call.hush(partial(self._turns.take, site_of(call.peer or "")))
            async with self._refusing:  # one by one: what came at once does not keep others waiting
                await asyncio.sleep(0)
            raise


class MisplacedKeys(Guard):
    """Refuses an API key where something else belongs that is in logs, in errors or in what administrators see."""

    def __init__(self) -> None:
        self._check = Remembered(_refuse_misplaced_keys)

    def allow(self, call: Call, message: betterproto.Message) -> None:
        """See Guard.

        Raises:
            InvalidFieldError: there is one.
        """
        del call
        self._check(message)


def _refuse_misplaced_keys(message: betterproto.Message) -> None:
    said = plain(message)
    texts = {name: getattr(said, name, "") for name in _SHOWN}
    texts["endpoints"] = " ".join(getattr(said, "endpoints", ()))
    why = "this is an API key, which does not belong here"
    require(Violation(name, why) for name, text in texts.items() if holds_secret(text))


class NameLimits(Guard):
    """Limits how often calls may be made for a mesh, and with an API key."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def allow(self, call: Call, message: betterproto.Message) -> None:
        """See Guard.

        Raises:
            RateLimitedError: too often.
        """
        key, mesh_id = call.caller.key_name or None, getattr(message, "mesh_id", None)
        await self._limiter.check(_method(call), mesh_id=mesh_id, key=key)


class KeyGuard(Guard):
    """Asks for an API key that may do what the call does, for the mesh that it names.

    It looks at nothing that is registered, so an answer never tells a stranger whether a mesh exists.
    """

    def __init__(self, keys: KeysFile, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    def admit(self, call: Call) -> None:
        """See Guard.

        Raises:
            UnauthenticatedError: there is no key that is known.
        """
        if _method(call) not in _OPEN:
            call.caller = replace(call.caller, key_name=self._key(call).name)

    def allow(self, call: Call, message: betterproto.Message) -> None:
        """See Guard.

        Raises:
            PermissionDeniedError: the key may not do this.
        """
        if (role := _ROLES.get(_method(call))) is not None:
            key, mesh_id = self._key(call), str(getattr(message, "mesh_id", ""))
            if not key.allows(role, mesh_id):
                raise PermissionDeniedError(
                    f"the API key {key.name!r} may not {role.value} in this mesh"
                )

    def still_allow(self, call: Call) -> None:
        """See Guard: a key may have expired, or been revoked, since a watch began.

        Raises:
            UnauthenticatedError: it has.
        """
        if _method(call) not in _OPEN:
            self._key(call)

    def _key(self, call: Call) -> ApiKey:
        secret = bearer(call.metadata)
        if secret is None:
            raise UnauthenticatedError("an API key is needed: authorization: Bearer KEY")
        key = self._keys.current().find(secret, self._clock.now())
        if key is None:
            raise UnauthenticatedError("the API key is unknown, has expired or was revoked")
        return key


class AdminGuard(KeyGuard):
    """Asks for an API key with the role `admin`, whatever the call is."""

    def allow(self, call: Call, message: betterproto.Message) -> None:
        """See Guard.

        Raises:
            PermissionDeniedError: the key has another role.
        """
        del message
        key = self._key(call)
        if Role.ADMIN not in key.roles:
            raise PermissionDeniedError(f"the API key {key.name!r} is no administrator's")


class ProofGuard(Guard):
    """Asks whoever registers or leaves to prove that they hold the private key that they name (docs/security.md).

    The answer to a proof that holds brings the challenge for the next one, so that a heartbeat takes one round trip.
    """

    def __init__(self, verifier: Callable[[], Awaitable[Verifier]]) -> None:
        """`verifier` provides what verifies; it may raise StoreUnavailableError."""
        self._verifier = verifier

    async def allow(self, call: Call, message: betterproto.Message) -> None:
        """See Guard.

        Raises:
            InvalidFieldError: the message breaks rules.
            ProofRequiredError, ProofInvalidError, StoreUnavailableError: see Verifier.
        """
        subject = _SUBJECTS.get(_method(call))
        if subject is None:
            return
        registration = subject(message)
        method, verifier = Method(_method(call)), await self._verifier()
        old = await verifier.verify(method, registration, call.metadata)
        if old is not None:
            call.caller = replace(call.caller, old_pubkey=old)
        call.reply_metadata[CHALLENGE_HEADER] = verifier.challenge().header()


def _method(call: Call) -> str:
    return call.path.rpartition("/")[2]


def _colony(message: pb.RegisterColonyRequest) -> Registration:
    registration = codec.registration_from(message)
    require(check_registration(registration))
    return registration


def _leaving_colony(message: pb.DeregisterColonyRequest) -> Registration:
    require((*check_id("mesh_id", message.mesh_id), *check_pubkey(message.pubkey)))
    return Registration(message.mesh_id, message.pubkey)


def _agent(message: pb.RegisterAgentRequest) -> Registration:
    registration = agent_codec.registration_from(message)
    require(check_agent_registration(registration))
    return registration


def _leaving_agent(message: pb.DeregisterAgentRequest) -> Registration:
    require((*check_agent(message.mesh_id, message.agent_id), *check_pubkey(message.pubkey)))
    return Registration(message.mesh_id, message.pubkey, agent_id=message.agent_id)


_SUBJECTS: Mapping[str, Callable[[Any], Registration]] = {
    "RegisterColony": _colony,
    "DeregisterColony": _leaving_colony,
    "RegisterAgent": _agent,
    "DeregisterAgent": _leaving_agent,
}
"""Whom each call that takes a proof is about."""
