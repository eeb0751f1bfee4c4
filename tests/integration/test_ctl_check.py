"""The black-box check: it passes a server that is sound, and finds what is wrong with one that is not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from discovery.auth import Role, create_key
from discovery.client import DiscoveryClient, Lease, Registered, Registration, WatchEvent
from discovery.clock import SystemClock
from discovery.ctl.access import Access
from discovery.ctl.check.promises import PROMISES
from discovery.ctl.check.report import report
from discovery.ctl.check.run import Result, check
from discovery.ctl.server_keys import rotate
from discovery.errors import (
    InvalidFieldError,
    MeshIdTakenError,
    NotRegisteredError,
    UnreachableError,
    Violation,
)
from discovery.models import HealthReport
from tests.integration.support import LOOPBACK, Running, running, server_process
from tests.unit.ctl.support import printed, printer

EXPIRY = PROMISES[-1]
QUICK = PROMISES[:-1]


async def results_of(access: Access, **kwargs: Any) -> list[Result]:
    return [result async for result in check(access, "check-", 0, **kwargs)]


def broken(results: list[Result]) -> dict[str, str]:
    return {result.promise: result.why for result in results if result.result == "fail"}


async def nothing_is_left(server: Running) -> bool:
    async with DiscoveryClient(server.url) as client:
        return (await client.health()).registered_colonies == 0


async def test_a_sound_server_keeps_every_promise_and_nothing_is_left_of_the_check() -> None:
    async with running() as server:
        results = await results_of(Access(server=server.url))
        assert await nothing_is_left(server)
    assert broken(results) == {}
    assert [result.promise for result in results if result.result == "skip"] == [EXPIRY.sentence]
    assert "--max-wait 300s" in results[-1].why


async def test_a_lease_that_ends_on_time_is_seen_to(tmp_path: Path) -> None:
    with server_process(tmp_path, "--ttl", "1", "--admin-listen", "off") as server:
        access = Access(server=server.url)
        results = [r async for r in check(access, "check-", 5, [EXPIRY])]
    assert [(result.result, result.why) for result in results] == [("pass", "")]


async def test_a_server_that_asks_for_keys_and_proofs_gets_both(tmp_path: Path) -> None:
    keys, server_keys = tmp_path / "keys.yaml", tmp_path / "server.keys"
    roles = (Role.REGISTER, Role.LOOKUP)
    secret = create_key(keys, "check", roles, ["check-*"], now=SystemClock().now())
    rotate(server_keys, 1)
    settings = {
        "auth": "keys",
        "keys_file": str(keys),
        "ownership": "proof",
        "proof_keys": str(server_keys),
    }
    with server_process(tmp_path, *_flags(settings), "--admin-listen", "off") as server:
        access = Access(server=server.url, api_key=secret)
        assert broken(await results_of(access, promises=QUICK)) == {}
        without = broken(await results_of(Access(server=server.url), promises=QUICK))
    assert len(without) == len(QUICK) - 1
    assert all("UNAUTHENTICATED" in why or "401" in why for why in without.values())


async def test_who_cannot_be_reached_is_no_failed_check() -> None:
    with pytest.raises(UnreachableError):
        await results_of(Access(server=f"http://{LOOPBACK}:9"))


def _flags(settings: dict[str, str]) -> list[str]:
    return [
        part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)
    ]


# -- Servers that are not sound: a real one, seen through a client that changes one thing ---------------


class NewRevisions(DiscoveryClient):
    async def register_colony(self, registration: Registration) -> Registered:
        granted = await super().register_colony(registration)
        NewRevisions.count += 1
        return replace(granted, revision=granted.revision + NewRevisions.count)

    count = 0


class NoRefresh(DiscoveryClient):
    async def register_colony(self, registration: Registration) -> Registered:
        return replace(await super().register_colony(registration), refresh_after=0)


class Shuffled(DiscoveryClient):
    async def lookup_colony(self, mesh_id: str) -> Lease:
        lease = await super().lookup_colony(mesh_id)
        said = lease.registration
        return replace(lease, registration=replace(said, endpoints=said.endpoints[::-1]))


class NoConflict(DiscoveryClient):
    async def register_colony(self, registration: Registration) -> Registered:
        try:
            return await super().register_colony(registration)
        except MeshIdTakenError:
            held = await self.lookup_colony(registration.mesh_id)
            await self.deregister_colony(registration.mesh_id, held.registration.pubkey)
            return await super().register_colony(registration)


class NoOwner(DiscoveryClient):
    async def deregister_colony(self, mesh_id: str, pubkey: str) -> bool:
        try:
            held = await self.lookup_colony(mesh_id)
        except NotRegisteredError:
            return False
        return await super().deregister_colony(mesh_id, held.registration.pubkey)


class Undying(DiscoveryClient):
    async def deregister_colony(self, mesh_id: str, pubkey: str) -> bool:
        return True


class OneMistake(DiscoveryClient):
    async def register_colony(self, registration: Registration) -> Registered:
        try:
            return await super().register_colony(registration)
        except InvalidFieldError:
            raise InvalidFieldError((Violation("endpoints", "is wrong"),)) from None


class DeafWatch(DiscoveryClient):
    async def watch_colony(
        self, mesh_id: str, after_revision: int = 0
    ) -> AsyncGenerator[WatchEvent]:
        while True:
            yield WatchEvent(mesh_id, 1, None)


class AgentsAsColonies(DiscoveryClient):
    async def register_agent(self, registration: Registration) -> Registered:
        await self.register_colony(replace(registration, agent_id=""))
        return await super().register_agent(registration)


class Unwell(DiscoveryClient):
    async def health(self) -> HealthReport:
        return replace(await super().health(), status="sick")


@dataclass(frozen=True)
class Seen(Access):
    """The server as it is seen through a client of a kind."""

    kind: type[DiscoveryClient] = DiscoveryClient

    def client(self, prover: Any = None) -> DiscoveryClient:
        return self.kind(self.server, prover=prover)


@pytest.mark.parametrize(
    "kind,sentence",
    [
        (Unwell, "the server says that it is well"),
        (NoRefresh, "a colony is granted a lease"),
        (Shuffled, "a lookup finds what was registered"),
        (NewRevisions, "a renewal keeps the revision, and never shortens the lease"),
        (NoConflict, "a live lease cannot be taken by another key"),
        (NoOwner, "a live lease cannot be removed by another key"),
        (OneMistake, "every mistake of a registration is named"),
        (Undying, "a colony that leaves is not found"),
        (DeafWatch, "a watch tells the state, and then each change"),
        (AgentsAsColonies, "agents are apart from colonies"),
    ],
)
async def test_a_broken_promise_is_found(kind: type[DiscoveryClient], sentence: str) -> None:
    (promise,) = [each for each in PROMISES if each.sentence == sentence]
    async with running() as server:
        (result,) = await results_of(Seen(server=server.url, kind=kind), promises=[promise])
    assert result.result == "fail", result
    assert result.why


# -- What is told of it ---------------------------------------------------------------------------------


async def _given(*results: Result) -> AsyncIterator[Result]:
    for result in results:
        yield result


async def test_a_report_names_each_promise_and_counts_them() -> None:
    results = (
        Result("it holds", "pass", "", 0.1),
        Result("it breaks", "fail", "because", 0.1),
        Result("it waits", "skip", "too long", 0.1),
    )
    made = printer("table")
    assert await report(_given(*results), 3, made) is False
    assert printed(made).splitlines() == [
        "pass  it holds",
        "fail  it breaks: because",
        "skip  it waits: too long",
        "1 passed, 1 failed, 1 skipped",
    ]
    assert await report(_given(results[0], results[2]), 2, printer("json")) is True


async def test_a_report_on_a_terminal_shows_how_far_it_is() -> None:
    made = printer("table", terminal=True)
    assert await report(_given(Result("it holds", "pass", "", 0.1)), 1, made) is True
    assert "of 1 checked" in printed(made)
