"""Telling how a registration fares, while a registrar works on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from discovery.client import Registered
from discovery.client.registrar import Registrar
from discovery.client.state import RegistrarPhase, RegistrarState
from discovery.runners.presence import Presence
from discovery.runners.report import Report


async def follow_registration(
    registrar: Registrar[Any],
    presence: Presence,
    report: Report,
    announce: Callable[[Registered], None],
) -> None:
    """Report trouble and recovery, and `announce` each grant whose endpoints differ from those announced before."""
    announced: tuple[str, ...] = ()
    told = ""
    async for state in registrar.states():
        trouble = _trouble(state)
        if trouble and trouble != told:
            report.warn(
                state.phase.value, trouble, reason=state.error.reason if state.error else ""
            )
        elif told and state.phase is RegistrarPhase.REGISTERED and not trouble:
            report.say("recovered", "Registered again with discovery service")
        told = trouble
        if state.registered is None or state.phase is not RegistrarPhase.REGISTERED:
            continue
        if presence.observe(state.registered):
            registrar.update(presence.registration())
        elif presence.endpoints != announced:
            announced = presence.endpoints
            announce(state.registered)


def _trouble(state: RegistrarState) -> str:
    if state.error is None:
        return ""
    message = state.error.message
    match state.phase:
        case RegistrarPhase.REFUSED:
            return f"not registered, and not trying again: {message}"
        case RegistrarPhase.RETRYING:
            return f"not registered: {message}; trying again"
        case RegistrarPhase.REGISTERED:
            return f"the lease could not be renewed: {message}; trying again"
    return ""
