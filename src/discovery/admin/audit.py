"""The audit log: a stream of its own, of who changed what. One JSON object a line.

    {"event": "audit", "at": "2026-11-24T12:00:00.000000Z", "action": "RegisterColony", "outcome": "ok", "reason": "",
     "mesh_id": "my-app-prod", "agent_id": "", "pubkey": "...", "key": "team-a", "address": "203.0.113.5",
     "protocol": "grpc"}

A renewal that changes nothing is no change, and has no line. Values are JSON strings, so that none can forge a line.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from discovery.clock import MICROSECONDS, Clock
from discovery.errors import Code, ConfigError, ProofRequiredError
from discovery.models import lease_name
from discovery.transport.moments import to_datetime
from discovery.transport.pipeline import Account
from discovery.transport.redaction import redacted

_AUDITED = frozenset(
    {"RegisterColony", "DeregisterColony", "RegisterAgent", "DeregisterAgent", "Evict", "Drain"}
)
# What says nothing of who wants to change what, and comes by the thousand while a store is away.
_UNSAID = frozenset({Code.UNAVAILABLE, Code.CANCELLED, Code.DEADLINE_EXCEEDED})
# So many refusals are written each second, and how many more there were: strangers shall not fill a disk.
_REFUSALS = 100
_LONGEST = 253
# Of more names than these, each renewal would be a line; they take about 25 MB.
_REMEMBERED = 100_000
# How often to look whether the file was moved away, by whoever rotates it.
_LOOK_US = MICROSECONDS

# A first call without a proof is no refusal: it is how a challenge is asked for.
_ASKED = ProofRequiredError.reason

Write = Callable[[Mapping[str, object]], None]


class AuditLog:
    """Writes a line for each call that changed something, or was refused to."""

    def __init__(self, clock: Clock, write: Write) -> None:
        self._clock = clock
        self._write = write
        self._revisions: OrderedDict[str, int] = OrderedDict()
        """What was last written of each name, so that a renewal of it is not."""
        self._second = 0
        self._refusals = 0

    def witness(self, account: Account) -> None:
        """Take in a call that is over."""
        method = account.call.path.rpartition("/")[2]
        if method not in _AUDITED:
            return
        if account.code in _UNSAID:
            return
        if account.error is None:
            if _changed_something(account) and not self._repeats(account):
                self._write(self._line(method, account))
        elif account.error.reason != _ASKED:
            self._refused(self._line(method, account))

    def _refused(self, line: Mapping[str, object]) -> None:
        second = self._clock.now().monotonic_us // MICROSECONDS
        if second != self._second:
            if self._refusals > _REFUSALS:
                unlisted = {"event": "audit", "outcome": "unlisted refusals"}
                self._write({**unlisted, "count": self._refusals - _REFUSALS})
            self._second, self._refusals = second, 0
        self._refusals += 1
        if self._refusals <= _REFUSALS:
            self._write(line)

    def _repeats(self, account: Account) -> bool:
        revision = getattr(account.reply, "revision", 0)
        if not revision:
            return False
        message = account.message
        name = lease_name(getattr(message, "mesh_id", ""), getattr(message, "agent_id", ""))
        known = self._revisions.pop(name, 0)
        self._revisions[name] = revision
        if len(self._revisions) > _REMEMBERED:
            self._revisions.popitem(last=False)
        return bool(known == revision)

    def _line(self, method: str, account: Account) -> Mapping[str, object]:
        call, error, message = account.call, account.error, account.message
        at = to_datetime(self._clock.now().unix_us)
        subject = {
            field: redacted(str(getattr(message, field, "")))[:_LONGEST]
            for field in ("mesh_id", "agent_id", "pubkey")
        }
        return {
            "event": "audit",
            "at": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "action": method,
            "outcome": "ok" if error is None else error.code.name,
            "reason": "" if error is None else error.reason,
            **subject,
            "key": call.caller.key_name,
            "address": call.peer or "",
            "protocol": call.protocol,
        }


def _changed_something(account: Account) -> bool:
    """Return whether a call that went well did what it is for: who leaves may have left before."""
    reply = account.reply
    return reply is not None and getattr(reply, "removed", getattr(reply, "evicted", True))


class AuditFile:
    """Appends lines to a file, each with one write. It never harms a call: what cannot be written is lost, and said."""

    def __init__(self, path: Path, clock: Clock, log: FilteringBoundLogger) -> None:
        """Open the file, or make it, for its owner alone.

        Raises:
            ConfigError: it cannot be written.
        """
        self._path = path
        self._clock = clock
        self._log = log
        self._complained = False
        self._look_at_us = 0
        try:
            self._file = self._open()
        except OSError as error:
            raise ConfigError(f"audit-log: cannot write {path}: {error.strerror}") from None

    def write(self, line: Mapping[str, object]) -> None:
        """Append a line."""
        try:
            self._look_for_rotation()
            os.write(self._file, json.dumps(line).encode() + b"\n")
        except OSError as error:
            if not self._complained:
                self._log.error("audit lines are lost", file=str(self._path), why=error.strerror)
            self._complained = True
        else:
            self._complained = False

    def reopen(self) -> bool:
        """Go on in the file that is at the path now, whoever moved the old one; return whether it is another.

        Raises:
            ConfigError: it cannot be written. The old one stays.
        """
        try:
            return self._follow_rotation()
        except OSError as error:
            raise ConfigError(f"audit-log: cannot write {self._path}: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _look_for_rotation(self) -> None:
        now_us = self._clock.now().monotonic_us
        if now_us >= self._look_at_us:
            self._look_at_us = now_us + _LOOK_US
            self._follow_rotation()

    def _follow_rotation(self) -> bool:
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._path), os.fstat(self._file)):  # noqa: PTH116 - both are stats
                return False
        fresh = self._open()
        os.close(self._file)
        self._file = fresh
        return True


def open_audit_log(
    where: str, clock: Clock, log: FilteringBoundLogger
) -> tuple[AuditLog, AuditFile | None]:
    """Return the audit log that goes to the file `where`, and that file; or with `-` to the server's log, and None.

    Raises:
        ConfigError: the file cannot be written.
    """
    if where == "-":
        return AuditLog(clock, lambda line: _say(line, log)), None
    file = AuditFile(Path(where), clock, log)
    return AuditLog(clock, file.write), file


def _say(line: Mapping[str, object], log: FilteringBoundLogger) -> None:
    log.info("audit", **{name: value for name, value in line.items() if name != "event"})
