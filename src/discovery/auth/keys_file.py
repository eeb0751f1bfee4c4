"""The keys of a running server: kept as new as their file, and never lost to a bad one."""

from __future__ import annotations

from pathlib import Path

from structlog.typing import FilteringBoundLogger

from discovery.auth.files import State, read, state_of
from discovery.auth.keys import Keys
from discovery.auth.reading import parse_keys
from discovery.clock import MICROSECONDS, Clock
from discovery.errors import ConfigError

CHECK_INTERVAL_US = 1 * MICROSECONDS
"""How often to look at the file, at most: a revoked key is refused after this time."""


class KeysFile:
    """The last good state of a keys file."""

    def __init__(self, path: Path, log: FilteringBoundLogger, clock: Clock) -> None:
        """Read the file.

        Raises:
            ConfigError: it cannot be used; the message says where and why.
        """
        self._path = path
        self._log = log
        self._clock = clock
        self._settled = False
        self._bad = False
        self._state: State | None
        self._state, text = read(path)
        self._keys = parse_keys(text, path)
        self._check_at_us = clock.now().monotonic_us + CHECK_INTERVAL_US

    def current(self) -> Keys:
        """Return the keys now. It looks at the file at most once a second, and blocks while it reads one that changed.

        A file that is bad or gone changes nothing: that is logged once, and once more when it is good again.
        """
        now_us = self._clock.now().monotonic_us
        if now_us >= self._check_at_us:
            self._check_at_us = now_us + CHECK_INTERVAL_US
            self._check()
        return self._keys

    def reload(self) -> bool:
        """Read the file at once; return whether its keys are others than before.

        Raises:
            ConfigError: it is bad or gone. The old keys stay.
        """
        before = self._keys
        self._check_at_us = self._clock.now().monotonic_us + CHECK_INTERVAL_US
        self._settled = False
        self._read()
        return self._keys != before

    def _check(self) -> None:
        state = state_of(self._path)
        unchanged = state is not None and state == self._state
        if unchanged and self._settled:
            return
        # What is written while the file is read, or in the same tick of the file system's clock, may not show in its
        # state: a file that changed is read once more, a second later.
        self._settled = unchanged
        self._reload()

    def _reload(self) -> None:
        try:
            self._read()
        except ConfigError as error:
            self._complain(error)

    def _read(self) -> None:
        # Only a file that was read has a state: one that could not be is tried again each time.
        self._state = None
        self._state, text = read(self._path)
        self._take(parse_keys(text, self._path))

    def _complain(self, error: ConfigError) -> None:
        if not self._bad:
            self._log.warning("keys file cannot be used; the old keys stay", error=str(error))
        self._bad = True

    def _take(self, keys: Keys) -> None:
        if self._bad or keys != self._keys:
            self._log.info("keys file read", path=str(self._path), keys=len(keys))
        self._bad = False
        self._keys = keys
