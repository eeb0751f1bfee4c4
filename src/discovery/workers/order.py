"""What a parent tells a worker, and what it hears: lines over the worker's standard input and output."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from discovery.config import ServerSettings


class Command(StrEnum):
    """What the parent says, after the order. When it says no more, because it is gone, its workers go too."""

    STOP = "stop"
    HURRY = "hurry"
    RELOAD = "reload"


class Report(StrEnum):
    """What a worker says."""

    READY = "ready"
    """It accepts connections."""
    ALIVE = "alive"
    DRAIN = "drain"
    """An administrator wants the server to stop, which is all workers."""
    FAILED = "failed"
    """It cannot start; why follows on the same line."""


class Order(BaseModel):
    """The first line: what to serve. So a password is in no list of processes, and a new worker is as the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: ServerSettings
    """Those of all workers."""
    index: int
    """Which of them this is, from 0."""
    port: int
    """Where they listen."""
    beat: float
    """How often it says that its event loop turns, in seconds."""

    def to_line(self) -> bytes:
        """Return it as it is sent. What nobody has set is not said, because some defaults are but offers."""
        return self.model_dump_json(exclude_unset=True).encode() + b"\n"

    def own_settings(self) -> ServerSettings:
        """Return what this worker goes by: a side port of its own, and for the first alone the admin API."""
        every = self.settings
        own: dict[str, object] = {"port": self.port}
        if every.metrics_port:
            own["metrics_port"] = every.metrics_port + self.index
        if self.index:
            own["admin_listen"] = "off"
        # `model_copy` would have it that somebody asked for these.
        return ServerSettings.model_construct(every.model_fields_set, **{**dict(every), **own})
