"""The audit log: a line for each change, none for what changes nothing, and no harm from a disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from discovery._gen.coral.discovery.v1 import (
    LookupColonyRequest,
    RegisterColonyRequest,
    RegisterColonyResponse,
)
from discovery.admin.audit import AuditFile, AuditLog
from discovery.errors import (
    Code,
    ConfigError,
    DiscoveryError,
    MeshIdTakenError,
    ProofRequiredError,
    StoreUnavailableError,
)
from discovery.models import Caller
from discovery.transport.pipeline import Account, Call
from tests.support import KEY, MESH, ManualClock

PATH = "/coral.discovery.v1.DiscoveryService/"


def account(
    revision: int = 1,
    method: str = "RegisterColony",
    error: DiscoveryError | None = None,
    **fields: Any,
) -> Account:
    call = Call(PATH + method, "grpc", "203.0.113.5", caller=Caller("team-a"))
    message = RegisterColonyRequest(**{"mesh_id": MESH, "pubkey": KEY, **fields})
    reply = None if error else RegisterColonyResponse(revision=revision)
    code = Code.OK if error is None else error.code
    return Account(call, message, reply, error, code)


@pytest.fixture
def lines() -> list[Any]:
    return []


@pytest.fixture
def audit(lines: list[Any]) -> AuditLog:
    return AuditLog(ManualClock(), lines.append)


def test_a_change_is_a_line_that_says_who_and_what(audit: AuditLog, lines: list[Any]) -> None:
    audit.witness(account())
    assert lines == [
        {
            "event": "audit",
            "at": "2027-01-15T08:00:00.000000Z",
            "action": "RegisterColony",
            "outcome": "ok",
            "reason": "",
            "mesh_id": MESH,
            "agent_id": "",
            "pubkey": KEY,
            "key": "team-a",
            "address": "203.0.113.5",
            "protocol": "grpc",
        }
    ]


def test_a_renewal_is_no_change(audit: AuditLog, lines: list[Any]) -> None:
    for revision in (1, 1, 2, 2, 1):
        audit.witness(account(revision))
    assert len(lines) == 3


def test_a_refusal_is_a_line_each_time(audit: AuditLog, lines: list[Any]) -> None:
    for _ in range(2):
        audit.witness(account(error=MeshIdTakenError(MESH, 0)))
    assert [(line["outcome"], line["reason"]) for line in lines] == [
        ("ALREADY_EXISTS", "MESH_ID_TAKEN")
    ] * 2


def test_refusals_by_the_thousand_are_counted_and_not_listed(lines: list[Any]) -> None:
    clock = ManualClock()
    audit = AuditLog(clock, lines.append)
    for _ in range(1000):
        audit.witness(account(error=MeshIdTakenError(MESH, 0)))
    assert len(lines) == 100
    clock.advance(1)
    audit.witness(account(error=MeshIdTakenError(MESH, 0)))
    assert lines[100:] == [
        {"event": "audit", "outcome": "unlisted refusals", "count": 900},
        lines[101],
    ]


@pytest.mark.parametrize(
    "error", [StoreUnavailableError("away"), ProofRequiredError("prove it", "key", "nonce")]
)
def test_what_is_nobodys_doing_is_no_line(
    audit: AuditLog, lines: list[Any], error: DiscoveryError
) -> None:
    audit.witness(account(error=error))
    assert lines == []


def test_what_only_asks_is_no_line(audit: AuditLog, lines: list[Any]) -> None:
    call = Call(PATH + "LookupColony", "grpc")
    audit.witness(Account(call, LookupColonyRequest(MESH), None, None, Code.OK))
    assert lines == []


def test_what_a_stranger_writes_is_cut_short(audit: AuditLog, lines: list[Any]) -> None:
    audit.witness(account(mesh_id="m" * 100_000, error=MeshIdTakenError("m", 0)))
    assert len(json.dumps(lines[0])) < 1000


@pytest.fixture
def log() -> LogCapture:
    return LogCapture()


def audit_file(path: Path, log: LogCapture, clock: ManualClock | None = None) -> AuditFile:
    logger = structlog.wrap_logger(None, processors=[log])
    return AuditFile(path, clock or ManualClock(), logger)


def test_lines_are_appended_and_cannot_be_forged(tmp_path: Path, log: LogCapture) -> None:
    for _ in range(2):
        file = audit_file(tmp_path / "audit.log", log)
        file.write({"mesh_id": 'x"}\n{"event": "forged"'})
        file.close()
    lines = (tmp_path / "audit.log").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"mesh_id": 'x"}\n{"event": "forged"'}] * 2


def test_a_file_that_is_rotated_away_is_made_anew(tmp_path: Path, log: LogCapture) -> None:
    path, clock = tmp_path / "audit.log", ManualClock()
    file = audit_file(path, log, clock)
    file.write({"n": 1})
    path.rename(tmp_path / "audit.log.1")
    clock.advance(1)
    file.write({"n": 2})
    file.close()
    assert json.loads(path.read_text()) == {"n": 2}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_disk_that_is_full_is_told_once_and_harms_nobody(log: LogCapture) -> None:
    file = audit_file(Path("/dev/full"), log)
    for _ in range(3):
        file.write({"n": 1})
    file.close()
    assert [entry["event"] for entry in log.entries] == ["audit lines are lost"]


def test_a_file_that_cannot_be_written_is_told_at_the_start(
    tmp_path: Path, log: LogCapture
) -> None:
    with pytest.raises(ConfigError, match="audit-log: cannot write"):
        audit_file(tmp_path / "no" / "audit.log", log)
