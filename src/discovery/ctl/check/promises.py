"""The promises, each with what shows that it is kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from http import HTTPStatus

from discovery.ctl.check.subject import OTHER_ENDPOINTS, Subject
from discovery.errors import (
    DiscoveryError,
    InvalidFieldError,
    MeshIdTakenError,
    NotOwnerError,
    NotRegisteredError,
)
from discovery.models import WatchEvent

_RPC = "/coral.discovery.v1.DiscoveryService"
# What a watcher must be told within, in seconds, however far away the server is.
_SOON = 10.0
_POLL = 0.2
_GRACE = 2.0


class BrokenError(Exception):
    """A promise is not kept; the message says what happened instead."""


class SkippedError(Exception):
    """A promise cannot be checked; the message says why."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A sentence about the server, and what raises BrokenError if it does not hold."""

    sentence: str
    hold: Callable[[Subject], Awaitable[None]]


async def _health(subject: Subject) -> None:
    report = await subject.holder.client.health()
    _must(report.status == "ok", f"the status is {report.status!r}")


async def _register(subject: Subject) -> None:
    granted = await subject.holder.client.register_colony(subject.holder.says(subject.mesh))
    _must(granted.ttl > 0, f"the lease has a TTL of {granted.ttl} s")
    _must(
        0 < granted.refresh_after < granted.ttl,
        f"it shall be renewed after {granted.refresh_after} s of {granted.ttl} s",
    )


async def _renew(subject: Subject) -> None:
    said = subject.holder.says(subject.mesh)
    first = await subject.holder.client.register_colony(said)
    again = await subject.holder.client.register_colony(said)
    _must(again.revision == first.revision, "a renewal that changed nothing has a new revision")
    _must(again.expires_at_us >= first.expires_at_us, "a renewal made the lease shorter")


async def _change(subject: Subject) -> None:
    said = subject.holder.says(subject.mesh)
    first = await subject.holder.client.register_colony(said)
    moved = replace(said, endpoints=OTHER_ENDPOINTS)
    then = await subject.holder.client.register_colony(moved)
    _must(then.revision > first.revision, "other endpoints have no greater revision")
    found = await subject.holder.client.lookup_colony(subject.mesh)
    _must(found.registration.endpoints == OTHER_ENDPOINTS, "a lookup finds the old endpoints")


async def _lookup(subject: Subject) -> None:
    said = subject.holder.says(subject.mesh)
    granted = await subject.holder.client.register_colony(said)
    found = await subject.other.client.lookup_colony(subject.mesh)
    told = found.registration
    _must(told.pubkey == said.pubkey, "a lookup finds another key")
    _must(told.endpoints == said.endpoints, "a lookup finds other endpoints, or another order")
    _must(told.metadata == said.metadata, "a lookup finds other metadata")
    _must(found.revision == granted.revision, "a lookup finds another revision")


async def _conflict(subject: Subject) -> None:
    holder, other = subject.holder, subject.other
    await holder.client.register_colony(holder.says(subject.mesh))
    call = other.client.register_colony(other.says(subject.mesh))
    await _must_raise(MeshIdTakenError, call, "another key took a live lease over")
    found = await other.client.lookup_colony(subject.mesh)
    _must(found.registration.pubkey == holder.pubkey, "the lease is now another key's")


async def _foreign_removal(subject: Subject) -> None:
    holder, other = subject.holder, subject.other
    await holder.client.register_colony(holder.says(subject.mesh))
    call = other.client.deregister_colony(subject.mesh, other.pubkey)
    await _must_raise(NotOwnerError, call, "another key removed a live lease")
    await holder.client.lookup_colony(subject.mesh)


async def _not_found(subject: Subject) -> None:
    call = subject.holder.client.lookup_colony(subject.mesh)
    await _must_raise(NotRegisteredError, call, "something was found")


async def _invalid(subject: Subject) -> None:
    wrong = replace(
        subject.holder.says(subject.mesh), endpoints=("nowhere",), mesh_ipv4="256.0.0.1"
    )
    try:
        await subject.holder.client.register_colony(wrong)
    except InvalidFieldError as error:
        named = {violation.field for violation in error.violations}
        _must(len(named) > 1, f"only {', '.join(named) or 'nothing'} was named of two mistakes")
    else:
        raise BrokenError("a wrong registration was accepted")


async def _deregister(subject: Subject) -> None:
    holder = subject.holder
    await holder.client.register_colony(holder.says(subject.mesh))
    _must(await holder.client.deregister_colony(subject.mesh, holder.pubkey), "nothing was removed")
    await _not_found(subject)
    again = await holder.client.deregister_colony(subject.mesh, holder.pubkey)
    _must(not again, "it could be removed twice")


async def _watch(subject: Subject) -> None:
    holder = subject.holder
    async with aclosing(subject.other.client.watch_colony(subject.mesh)) as states:
        _must((await _next(states)).lease is None, "it begins with a colony that is not there")
        await holder.client.register_colony(holder.says(subject.mesh))
        lease = (await _next(states)).lease
        _must(
            lease is not None and lease.registration.pubkey == holder.pubkey,
            "it does not tell of a registration",
        )
        await holder.client.deregister_colony(subject.mesh, holder.pubkey)
        _must((await _next(states)).lease is None, "it does not tell of a removal")


async def _agents_apart(subject: Subject) -> None:
    holder, mesh, agent = subject.holder, subject.mesh, subject.agent
    await holder.client.register_agent(holder.says(mesh, agent))
    await _not_found(subject)
    found = await subject.other.client.lookup_agent(mesh, agent)
    _must(found.registration.pubkey == holder.pubkey, "the agent has another key")
    listed = [each.registration.agent_id async for each in holder.client.list_agents(mesh)]
    _must(listed == [agent], f"the mesh's agents are said to be {listed}")
    await holder.client.deregister_agent(mesh, agent, holder.pubkey)
    call = holder.client.lookup_agent(mesh, agent)
    await _must_raise(NotRegisteredError, call, "an agent that left was found")


async def _connect(subject: Subject) -> None:
    await subject.holder.client.register_colony(subject.holder.says(subject.mesh))
    found = await subject.http.post(f"{_RPC}/LookupColony", {"meshId": subject.mesh})
    _must(found.status == HTTPStatus.OK, f"a lookup's status is {found.status}")
    _must(found.body.get("pubkey") == subject.holder.pubkey, "a lookup finds another key")
    missing = await subject.http.post(f"{_RPC}/LookupColony", {"meshId": f"{subject.mesh}.none"})
    _must(
        (missing.status, missing.body.get("code")) == (HTTPStatus.NOT_FOUND, "not_found"),
        f"an unknown mesh is answered with {missing.status}, {missing.body.get('code')}",
    )


async def _rest(subject: Subject) -> None:
    await subject.holder.client.register_colony(subject.holder.says(subject.mesh))
    found = await subject.http.get(f"/v1/colony/lookup/{subject.mesh}")
    _must(found.status == HTTPStatus.OK, f"a lookup's status is {found.status}")
    _must(found.body.get("pubkey") == subject.holder.pubkey, "a lookup finds another key")
    missing = await subject.http.get(f"/v1/colony/lookup/{subject.mesh}.none")
    _must(
        missing.status == HTTPStatus.NOT_FOUND, f"an unknown mesh is answered with {missing.status}"
    )
    health = await subject.http.get("/health")
    _must(health.status == HTTPStatus.OK, f"/health is answered with {health.status}")


async def _expiry(subject: Subject) -> None:
    holder = subject.holder
    started = time.monotonic()
    granted = await holder.client.register_colony(holder.says(subject.mesh))
    if granted.ttl > subject.max_wait:
        raise SkippedError(f"it takes {granted.ttl} s: add --max-wait {granted.ttl}s to wait")
    # The lease was granted after `started`, so that until then it cannot have ended.
    while (left := started + granted.ttl - time.monotonic()) > _POLL:
        await asyncio.sleep(min(left - _POLL / 2, 1))
        if time.monotonic() < started + granted.ttl - _POLL / 4:
            await holder.client.lookup_colony(subject.mesh)
    deadline = time.monotonic() + _GRACE
    while time.monotonic() < deadline:
        try:
            await holder.client.lookup_colony(subject.mesh)
        except NotRegisteredError:
            return
        await asyncio.sleep(_POLL)
    raise BrokenError(f"it is found {_GRACE:g} s after its end")


PROMISES = (
    Promise("the server says that it is well", _health),
    Promise("a colony is granted a lease", _register),
    Promise("a lookup finds what was registered", _lookup),
    Promise("a renewal keeps the revision, and never shortens the lease", _renew),
    Promise("a change is found, with a greater revision", _change),
    Promise("a live lease cannot be taken by another key", _conflict),
    Promise("a live lease cannot be removed by another key", _foreign_removal),
    Promise("a mesh that nobody registered is not found", _not_found),
    Promise("every mistake of a registration is named", _invalid),
    Promise("a colony that leaves is not found", _deregister),
    Promise("a watch tells the state, and then each change", _watch),
    Promise("agents are apart from colonies", _agents_apart),
    Promise("Connect answers in JSON over HTTP/1.1", _connect),
    Promise("REST answers", _rest),
    Promise("a lease that is not renewed ends on time", _expiry),
)


def _must(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - it reads as a sentence
    if not holds:
        raise BrokenError(otherwise)


async def _must_raise(kind: type[DiscoveryError], call: Awaitable[object], otherwise: str) -> None:
    try:
        await call
    except kind:
        return
    raise BrokenError(otherwise)


async def _next(states: AsyncGenerator[WatchEvent]) -> WatchEvent:
    try:
        async with asyncio.timeout(_SOON):
            return await anext(states)
    except TimeoutError:
        raise BrokenError(f"it told nothing for {_SOON:g} s") from None
