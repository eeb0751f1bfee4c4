"""Why a colony or an agent is not found, or is: a verdict in one sentence, from what a replica knows."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from discovery._gen.coral.discovery.admin import v1 as pb
from discovery.ctl.text import ago, counted, rfc3339, short_key
from discovery.errors import ProofRequiredError

_GRANTED = (pb.EventKind.REGISTERED, pb.EventKind.CHANGED)
_ENDS = (pb.EventKind.GONE, pb.EventKind.EXPIRED, pb.EventKind.EVICTED)
_REFUSED = (pb.EventKind.CONFLICT, pb.EventKind.REFUSED)
# A holder renews at a fifth of its lease; one that has not for half of it has missed at least one renewal.
_LATE = 0.5
_UNPROVED = ProofRequiredError.reason
_PROVE = (
    "This server asks who registers to prove the key: take `coral colony start`, or a client that"
    " has the private key."
)
_ALIKE = 0.8
_MOST_ALIKE = 3


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict. `state` is one word for scripts, `hint` says what may help and may be empty."""

    state: str
    verdict: str
    hint: str = ""


def explain(name: str, found: pb.InspectResponse, now: datetime) -> Explanation:
    """Return why `name`, as in `colony my-app-prod`, is there or not."""
    if found.is_set("record"):
        return _registered(name, found, now)
    if (end := _latest_end(found.events)) is not None:
        later = found.events[found.events.index(end) + 1 :]
        return _with_refusals(_ended(name, end, found, now), later, now)
    if found.reserved_for:
        return _with_refusals(_reserved(name, found, now), found.events, now)
    if refused := _refusals(found.events):
        return _refused(name, refused, now)
    return _never_seen(name, found, now)


def alike(mesh_id: str, known: Sequence[str]) -> list[str]:
    """Return the few mesh ids of `known` that `mesh_id` may be a slip of."""
    return difflib.get_close_matches(mesh_id, set(known) - {mesh_id}, _MOST_ALIKE, _ALIKE)


def _registered(name: str, found: pb.InspectResponse, now: datetime) -> Explanation:
    record = found.record
    verdict = (
        f"{name} is registered with key {short_key(record.pubkey)}; last renewed"
        f" {ago(record.last_seen, now)}, its lease ends {ago(record.expires_at, now)}"
    )
    lease = record.expires_at - record.last_seen
    if now - record.last_seen > lease * _LATE:
        return Explanation("late", f"{verdict}: it has missed renewals", "Is its program running?")
    refused = _refusals(_since_granted(found.events))
    others = [event for event in refused if event.pubkey != record.pubkey]
    if others:
        return _with_refusals(Explanation("registered", verdict), others, now)
    return Explanation("registered", verdict, "Not found all the same? Ask with `lookup`.")


def _ended(name: str, end: pb.Event, found: pb.InspectResponse, now: datetime) -> Explanation:
    when = f"{ago(end.at, now)}, at {rfc3339(end.at)}"
    reserved = f"; {_reservation(found, now)}" if found.reserved_for else ""
    if end.kind is pb.EventKind.EVICTED:
        return Explanation("evicted", f"{name} was evicted by an administrator {when}{reserved}")
    if end.kind is pb.EventKind.GONE:
        verdict = f"{name} left {when}: its holder ended the lease{reserved}"
        return Explanation("left", verdict, "Was its program stopped?")
    verdict = f"the lease of {name} expired {when}: nobody renewed it{reserved}"
    return Explanation("expired", verdict, "Is its program running, and does it reach this server?")


def _reserved(name: str, found: pb.InspectResponse, now: datetime) -> Explanation:
    verdict = f"{name} is not registered, and {_reservation(found, now)}"
    return Explanation("reserved", verdict, "Only the holder of that key can register it now.")


def _reservation(found: pb.InspectResponse, now: datetime) -> str:
    until = f"{rfc3339(found.reserved_until)} ({ago(found.reserved_until, now)})"
    return f"reserved for key {short_key(found.reserved_for)} until {until}"


def _refused(name: str, refused: Sequence[pb.Event], now: datetime) -> Explanation:
    last = refused[-1]
    if last.reason == _UNPROVED:
        verdict = (
            f"{name} was never registered: it calls without a proof, lately {ago(last.at, now)}"
        )
        return Explanation("refused", f"{verdict}{_by(last)}", _PROVE)
    verdict = (
        f"{name} was never registered: {counted(len(refused), 'registration')} refused, the last"
        f" {ago(last.at, now)} because of {_why(last)}"
    )
    return Explanation("refused", verdict)


def _never_seen(name: str, found: pb.InspectResponse, now: datetime) -> Explanation:
    since = f"{rfc3339(found.events_since)} ({ago(found.events_since, now)})"
    verdict = f"{name} was never seen by this replica since {since}"
    hint = "Check the mesh id, and which server the colony registers with."
    return Explanation("never_seen", verdict, hint)


def _with_refusals(said: Explanation, events: Sequence[pb.Event], now: datetime) -> Explanation:
    """Add what was refused since then, to what there is to say."""
    if not (refused := _refusals(events)):
        return said
    times = "once" if len(refused) == 1 else f"{len(refused)} times"
    last = refused[-1]
    more = f"refused {times} since, the last {ago(last.at, now)} because of {_why(last)}"
    return Explanation(said.state, f"{said.verdict}; {more}", said.hint)


def _why(event: pb.Event) -> str:
    message = f" ({event.message})" if event.message else ""
    return f"{event.reason or 'an unknown reason'}{_by(event)}{message}"


def _by(event: pb.Event) -> str:
    key = f", key {short_key(event.pubkey)}" if event.pubkey else ""
    return f" from {event.address}{key}" if event.address else key


def _refusals(events: Sequence[pb.Event]) -> list[pb.Event]:
    return [event for event in events if event.kind in _REFUSED]


def _since_granted(events: Sequence[pb.Event]) -> Sequence[pb.Event]:
    granted = [number for number, event in enumerate(events) if event.kind in _GRANTED]
    return events[granted[-1] + 1 :] if granted else events


def _latest_end(events: Sequence[pb.Event]) -> pb.Event | None:
    """Return how the last lease ended: an eviction is told of beside the end that it makes."""
    ends = [event for event in _since_granted(events) if event.kind in _ENDS]
    evictions = [e for e in ends if e.kind is pb.EventKind.EVICTED]
    last = (evictions or ends)[-1:]
    return last[0] if last else None
