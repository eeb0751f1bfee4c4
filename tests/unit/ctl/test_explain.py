from __future__ import annotations

import pytest

from discovery._gen.coral.discovery.admin import v1 as pb
from discovery.ctl.explain import Explanation, alike, explain
from tests.support import KEY, OTHER_KEY
from tests.unit.ctl.support import NOW, before, event, inspected, record


def explained(found: pb.InspectResponse) -> Explanation:
    return explain("colony 'm'", found, NOW)


def test_a_live_lease_is_registered_and_says_how_fresh_it_is() -> None:
    told = explained(inspected(event("registered", 3600), record=record()))
    assert told.state == "registered"
    assert "last renewed 30s ago, its lease ends in 4m30s" in told.verdict


def test_a_lease_that_is_not_renewed_any_more_is_late() -> None:
    told = explained(inspected(record=record(last_seen=before(200), expires_at=before(-100))))
    assert told.state == "late"
    assert "missed renewals" in told.verdict


def test_a_live_lease_names_who_else_wants_it() -> None:
    conflict = event("conflict", 5, pubkey=OTHER_KEY, reason="MESH_ID_TAKEN", address="192.0.2.9")
    told = explained(inspected(event("registered", 99), conflict, record=record()))
    assert told.state == "registered"
    assert "refused once since, the last 5s ago because of MESH_ID_TAKEN from 192.0.2.9" in (
        told.verdict
    )


def test_a_conflict_that_the_holder_had_before_its_lease_does_not_matter() -> None:
    conflict = event("conflict", 100, pubkey=OTHER_KEY, reason="MESH_ID_TAKEN")
    told = explained(inspected(conflict, event("registered", 99, pubkey=KEY), record=record()))
    assert "MESH_ID_TAKEN" not in told.verdict


def test_a_name_that_nobody_tried_was_never_seen_and_says_since_when() -> None:
    told = explained(inspected())
    assert told.state == "never_seen"
    assert "never seen by this replica since 2026-11-24T10:00:00Z (2h0m ago)" in told.verdict
    assert told.hint


def test_a_lease_that_is_over_tells_when_it_ended() -> None:
    told = explained(inspected(event("registered", 400), event("expired", 100)))
    assert told.state == "expired"
    assert "expired 1m40s ago, at 2026-11-24T11:58:20Z: nobody renewed it" in told.verdict


def test_who_left_was_not_forgotten_by_anybody() -> None:
    told = explained(inspected(event("registered", 400), event("gone", 100)))
    assert told.state == "left"
    assert "left 1m40s ago, at 2026-11-24T11:58:20Z: its holder ended the lease" in told.verdict


@pytest.mark.parametrize("order", [("gone", "evicted"), ("evicted", "gone")])
def test_an_eviction_is_no_ordinary_end_whichever_event_comes_first(order: tuple[str, str]) -> None:
    events = (event("registered", 400), event(order[0], 9), event(order[1], 9))
    told = explained(inspected(*events))
    assert told.state == "evicted"
    assert "by an administrator 9s ago" in told.verdict


def test_an_old_eviction_is_forgotten_when_the_name_came_back_and_left() -> None:
    events = (event("evicted", 400), event("registered", 300), event("gone", 10))
    assert explained(inspected(*events)).state == "left"


def test_what_was_refused_after_the_end_is_told_with_it() -> None:
    refused = [
        event("refused", 20, reason="RATE_LIMITED"),
        event("refused", 10, reason="UNAUTHENTICATED"),
    ]
    told = explained(inspected(event("registered", 400), event("gone", 100), *refused))
    assert told.state == "left"
    assert "refused 2 times since, the last 10s ago because of UNAUTHENTICATED" in told.verdict


def test_what_was_refused_before_the_end_is_not() -> None:
    conflict = event("conflict", 50, pubkey=OTHER_KEY, reason="MESH_ID_TAKEN")
    told = explained(inspected(event("registered", 400), conflict, event("gone", 10)))
    assert "MESH_ID_TAKEN" not in told.verdict


def test_who_was_only_ever_refused_is_told_why() -> None:
    refusal = event("refused", 3, reason="INVALID_FIELD", message="pubkey: must be base64")
    told = explained(inspected(event("refused", 60, reason="QUOTA"), refusal))
    assert told.state == "refused"
    assert "2 registrations refused" in told.verdict
    assert "INVALID_FIELD (pubkey: must be base64)" in told.verdict


def test_who_only_ever_called_without_a_proof_is_told_to_prove() -> None:
    unproved = event("refused", 7, reason="PROOF_REQUIRED", pubkey=KEY, address="192.0.2.9")
    told = explained(inspected(unproved))
    assert told.state == "refused"
    assert told.verdict == (
        "colony 'm' was never registered: it calls without a proof, lately 7s ago"
        f" from 192.0.2.9, key {KEY[:10]}…"
    )
    assert "prove the key" in told.hint


def test_a_holder_that_asks_for_a_challenge_is_not_refused() -> None:
    asked = event("refused", 1, reason="PROOF_REQUIRED", pubkey=KEY)
    told = explained(inspected(event("registered", 99), asked, record=record()))
    assert told.state == "registered"
    assert "refused" not in told.verdict


def test_an_ended_lease_tells_that_its_holder_comes_without_a_proof() -> None:
    unproved = event("refused", 5, reason="PROOF_REQUIRED", pubkey=KEY)
    told = explained(inspected(event("registered", 400), event("expired", 100), unproved))
    assert told.state == "expired"
    assert "refused once since, the last 5s ago because of PROOF_REQUIRED" in told.verdict


def test_a_reserved_name_says_for_whom_and_until_when() -> None:
    told = explained(inspected(reserved_for=KEY, reserved_until=before(-3600)))
    assert told.state == "reserved"
    assert f"reserved for key {KEY[:10]}… until 2026-11-24T13:00:00Z (in 1h0m)" in told.verdict


def test_a_name_that_ended_and_is_reserved_says_both() -> None:
    gone = event("gone", 10)
    told = explained(inspected(gone, reserved_for=KEY, reserved_until=before(-60)))
    assert told.state == "left"
    assert "reserved for key" in told.verdict


def test_finds_what_was_perhaps_meant() -> None:
    known = ["my-app-prod", "my-app-prod", "unrelated"]
    assert alike("my-app-prd", known) == ["my-app-prod"]
    assert alike("my-app-prod", known) == []
    assert alike("zzz", known) == []
