"""Reading again what a server was given, while it serves: all or nothing for each part, and nothing lost by any."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from structlog.typing import FilteringBoundLogger

from discovery.config import ServerSettings
from discovery.errors import ConfigError

Reload = Callable[[], bool]
"""Reads a part again; returns whether it changed. If it cannot be used it raises ConfigError, and what was stays."""


def reload_all(parts: Mapping[str, Reload], log: FilteringBoundLogger) -> Sequence[str]:
    """Reload each of `parts`, say how that went, and return the names of those that stay as they were."""
    failed = []
    for name, reload in parts.items():
        try:
            changed = reload()
        except ConfigError as error:
            log.warning("not reloaded; the old stays in force", part=name, why=str(error))
            failed.append(name)
        else:
            log.info("reloaded", part=name, changed=changed)
    return failed


def settings_check(in_force: ServerSettings, reread: Callable[[], ServerSettings]) -> Reload:
    """Return what reads the settings again, and raises ConfigError if any differ: only a start takes them up."""

    def reload() -> bool:
        found = reread()
        changed = [
            name.replace("_", "-")
            for name in ServerSettings.model_fields
            if getattr(found, name) != getattr(in_force, name)
        ]
        if changed:
            raise ConfigError(f"restart to change {', '.join(changed)}")
        return False

    return reload
