"""How often each method was answered with each status, for administrators without a Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from discovery.transport.pipeline import Account

_UNKNOWN = "unknown"


class Tally:
    """Counts calls. What clients make up counts as `unknown`."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Know the methods of `paths`."""
        self._methods = {path: path.rpartition("/")[2] for path in paths}
        self._counts: Counter[tuple[str, str]] = Counter()

    def witness(self, account: Account) -> None:
        """Count a call that is over."""
        method = self._methods.get(account.call.path, _UNKNOWN)
        self._counts[method, account.code.name] += 1

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Return how often each method had each status."""
        return self._counts
