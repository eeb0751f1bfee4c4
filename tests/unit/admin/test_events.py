"""What happened lately: bounded whatever strangers do, true of each name, and honest to readers who are slow."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from discovery._gen.coral.discovery.v1 import RegisterAgentRequest, RegisterColonyRequest
from discovery.admin.events import EventLog, Kind
from discovery.errors import (
    Code,
    DiscoveryError,
    DrainingError,
    MeshIdTakenError,
    ProofRequiredError,
    RateLimitedError,
    StoreUnavailableError,
)
from discovery.models import Caller, Lease, WatchEvent
from discovery.transport.pipeline import Account, Call
from tests.support import KEY, MESH, OTHER_KEY, ManualClock, registration

PATH = "/coral.discovery.v1.DiscoveryService/"
TAKEN = MeshIdTakenError(MESH, 0)
UNPROVED = ProofRequiredError("prove it", "key", "nonce")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def events(clock: ManualClock) -> EventLog:
    return EventLog(clock)


def refused(error: DiscoveryError | None = TAKEN, **fields: Any) -> Account:
    agent = "agent_id" in fields
    message = (RegisterAgentRequest if agent else RegisterColonyRequest)(
        **{"mesh_id": MESH, "pubkey": OTHER_KEY, **fields}
    )
    method = "RegisterAgent" if agent else "RegisterColony"
    call = Call(PATH + method, "grpc", "203.0.113.9", caller=Caller("team-a"))
    code = Code.OK if error is None else error.code
    return Account(call, message, None, error, code)


def granted(revision: int, mesh_id: str = MESH, last_seen_us: int = 1) -> WatchEvent:
    lease = Lease(registration(mesh_id=mesh_id), revision, last_seen_us, 10, granted_at_us=1)
    return WatchEvent(mesh_id, revision, lease)


def kinds(events: EventLog, agent_id: str = "") -> list[Kind]:
    return [event.kind for event in events.history(MESH, agent_id)]


def test_a_first_grant_a_change_and_an_end_are_told_apart(events: EventLog) -> None:
    events.changed(granted(1))
    events.changed(granted(2, last_seen_us=2))
    events.changed(WatchEvent(MESH, 3, None))
    events.changed(granted(4))
    assert kinds(events) == [Kind.REGISTERED, Kind.CHANGED, Kind.GONE, Kind.REGISTERED]


def test_a_conflict_tells_who_tried(events: EventLog) -> None:
    events.witness(refused())
    (event,) = events.history(MESH, "")
    assert (event.kind, event.reason, event.pubkey) == (Kind.CONFLICT, "MESH_ID_TAKEN", OTHER_KEY)
    assert (event.key_name, event.address) == ("team-a", "203.0.113.9")


@pytest.mark.parametrize("error", [None, StoreUnavailableError("away"), DrainingError("stops")])
def test_what_went_well_or_could_not_be_answered_is_no_refusal(
    events: EventLog, error: DiscoveryError | None
) -> None:
    events.witness(refused(error))
    assert not kinds(events)


def test_who_calls_without_a_proof_again_and_again_is_remembered_once(events: EventLog) -> None:
    for _ in range(3):
        events.witness(refused(UNPROVED))
    (event,) = events.history(MESH, "")
    assert (event.kind, event.reason, event.pubkey) == (Kind.REFUSED, "PROOF_REQUIRED", OTHER_KEY)


@pytest.mark.parametrize(
    "outcome, left", [(None, 0), (TAKEN, 1), (StoreUnavailableError("away"), 1)]
)
def test_a_call_without_a_proof_is_forgotten_once_its_caller_proved(
    events: EventLog, outcome: DiscoveryError | None, left: int
) -> None:
    events.witness(refused(UNPROVED))
    events.witness(refused(outcome))
    assert len(kinds(events)) == left


def test_another_keys_proof_does_not_hide_who_calls_without_one(events: EventLog) -> None:
    events.witness(refused(UNPROVED))
    events.witness(refused(None, pubkey=KEY))
    assert kinds(events) == [Kind.REFUSED]


async def test_no_reader_is_told_of_calls_without_a_proof(events: EventLog) -> None:
    with events.reader("", frozenset()) as reader:
        events.witness(refused(UNPROVED))
        events.witness(refused())
        event, _ = await reader.read()
    assert event.kind is Kind.CONFLICT


def test_a_crowd_without_proofs_does_not_push_out_what_was_refused(events: EventLog) -> None:
    events.witness(refused())
    for number in range(10_001):
        events.witness(refused(UNPROVED, mesh_id=f"crowd-{number}"))
    assert kinds(events) == [Kind.CONFLICT]
    assert not events.history("crowd-0", "")


@pytest.mark.parametrize("agent_id", ["", "a\nb", "a" * 254])
def test_a_refused_agent_without_a_valid_name_says_nothing_of_the_colony(
    events: EventLog, agent_id: str
) -> None:
    events.witness(refused(agent_id=agent_id))
    assert not kinds(events)


def test_a_key_that_is_none_is_not_repeated(events: EventLog) -> None:
    events.witness(refused(pubkey="\x1b[2J\nforged"))
    assert [event.pubkey for event in events.history(MESH, "")] == [""]


def test_a_name_keeps_its_latest_events(events: EventLog) -> None:
    for revision in range(1, 31):
        events.changed(granted(revision, last_seen_us=revision))
    assert [event.revision for event in events.history(MESH, "")] == list(range(11, 31))


def test_refusals_do_not_push_out_what_became_of_a_lease(
    events: EventLog, clock: ManualClock
) -> None:
    events.changed(granted(1))
    for _ in range(100):
        clock.advance(1)
        events.witness(refused())
    assert kinds(events) == [Kind.REGISTERED, *[Kind.CONFLICT] * 20]


def test_a_crowd_of_refused_names_does_not_push_out_those_that_are_registered(
    events: EventLog,
) -> None:
    events.changed(granted(1))
    for number in range(10_001):
        events.witness(refused(RateLimitedError("too many"), mesh_id=f"crowd-{number}"))
    assert kinds(events) == [Kind.REGISTERED]
    assert not events.history("crowd-0", "")
    assert events.history("crowd-10000", "")


async def test_a_slow_reader_is_told_how_much_it_missed(events: EventLog) -> None:
    with events.reader("", frozenset()) as reader:
        for revision in range(1, 1004):
            events.changed(granted(revision))
        event, missed = await reader.read()
        assert (event.revision, missed) == (4, 3)
        assert (await reader.read())[1] == 0


async def test_a_reader_is_given_what_it_asks_for(events: EventLog) -> None:
    with events.reader("mesh-", frozenset({Kind.GONE})) as reader:
        events.changed(granted(1))
        events.changed(WatchEvent("other", 2, None))
        events.changed(WatchEvent(MESH, 3, None))
        event, _ = await reader.read()
    assert event.revision == 3


async def test_a_reader_that_waits_is_woken_by_the_end(events: EventLog) -> None:
    with events.reader("", frozenset()) as reader:
        reading = asyncio.create_task(reader.read())
        await asyncio.sleep(0)
        events.close(DrainingError("stops"))
        with pytest.raises(DrainingError):
            await reading


def test_a_holder_is_named_in_its_events(events: EventLog) -> None:
    events.changed(granted(1))
    assert events.history(MESH, "")[0].pubkey == KEY
