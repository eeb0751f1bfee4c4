"""How often each method was answered with each status, for administrators without a Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from discovery.errors import Code
from discovery.transport.pipeline import Account

_UNKNOWN = "unknown"


class Tally:
    """Counts calls. What clients make up counts as `unknown`."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Know the methods of `paths`."""
        methods = {path: path.rpartition("/")[2] for path in paths}
        self._counts = {method: dict.fromkeys(Code, 0) for method in (*methods.values(), _UNKNOWN)}
        self._known = {path: self._counts[method] for path, method in methods.items()}
        self._unknown = self._counts[_UNKNOWN]

    def witness(self, account: Account) -> None:
        """Count a call that is over."""
        self._known.get(account.call.path, self._unknown)[account.code] += 1

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Return how often each method has had each status, those that it has had."""
        return {
            (method, code.name): number
            for method, statuses in self._counts.items()
            for code, number in statuses.items()
            if number
        }
