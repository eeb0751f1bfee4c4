"""Whether a lease is fit for a tunnel: neither a server nor a file is trusted to hold only what it should."""

from __future__ import annotations

from collections.abc import Iterable

from discovery.errors import MalformedMessageError, Violation
from discovery.models import Lease
from discovery.validation import check_agent_registration, check_registration


def require_colony(lease: Lease, mesh_id: str) -> None:
    """Check a lease on the colony of `mesh_id`.

    Raises:
        MalformedMessageError: it breaks a rule, or is a lease on something else.
    """
    _require(check_registration(lease.registration), lease, mesh_id, "")


def require_agent(lease: Lease, mesh_id: str, agent_id: str) -> None:
    """Check a lease on the agent `agent_id` of `mesh_id`.

    Raises:
        MalformedMessageError: it breaks a rule, or is a lease on something else.
    """
    _require(check_agent_registration(lease.registration), lease, mesh_id, agent_id)


def _require(violations: Iterable[Violation], lease: Lease, mesh_id: str, agent_id: str) -> None:
    found = [f"{field}: {rule}" for field, rule in violations]
    if lease.registration.mesh_id != mesh_id:
        found.append(f"mesh_id: is not {mesh_id!r}")
    if lease.registration.agent_id != agent_id:
        found.append(f"agent_id: is not {agent_id!r}")
    if found:
        raise MalformedMessageError("not a valid registration: " + "; ".join(found))
