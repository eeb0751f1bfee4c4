"""The check of a call: whose it is, which rules hold for it, and what a refusal says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Protocol

from discovery.errors import RateLimitedError
from discovery.models import site_of
from discovery.ratelimits.rules import METHODS, Rule, Scope

_SITES = 4096
"""How many addresses' sites are remembered: it takes 5 us to work one out."""

# The address first: a call that is refused for its address must not use up what its mesh or key has.
_ORDER = (Scope.ADDRESS, Scope.MESH, Scope.KEY)


class Meter(Protocol):
    """Counts the calls of one rule, by name."""

    async def take(self, name: str) -> float:
        """Count a call, if the rate has room for it.

        Returns:
            0 if it was counted, else the seconds until there is room. What is refused does not count.
        """
        ...


class Limiter(Protocol):
    """Says whether a call may be made."""

    async def check(
        self,
        method: str,
        *,
        address: str | None = None,
        mesh_id: str | None = None,
        key: str | None = None,
    ) -> None:
        """Count a call of `method`, the last part of its path, for each name that is given.

        So a caller may check the address before it reads the message, and the rest afterwards. `address` is an IP
        address, None on a unix socket; `key` the name of an API key. They may hold anything.

        Raises:
            RateLimitedError: one of them has used up its rate. For others the call may have been counted.
            StoreUnavailableError: nobody can tell, and such calls are to be refused.
        """
        ...


class RateLimiter:
    """A Limiter by rules. It does no more than its meters do: with those in memory it never suspends."""

    def __init__(
        self,
        rules: Iterable[Rule],
        meter: Callable[[Rule], Meter],
        spread: Callable[[], float] = random.random,
    ) -> None:
        """Let `meter` make the meter of each rule; `spread` gives random numbers in [0, 1)."""
        metered = [(rule, meter(rule)) for rule in sorted(rules, key=_place)]
        self._limits = {
            method: [
                (_place(rule), meter, _refusal(method, rule))
                for rule, meter in metered
                if method in rule.methods
            ]
            for method in METHODS
        }
        self._site_of = lru_cache(_SITES)(site_of)
        self._spread = spread

    async def check(
        self,
        method: str,
        *,
        address: str | None = None,
        mesh_id: str | None = None,
        key: str | None = None,
    ) -> None:
        """See Limiter."""
        names = (address and self._site_of(address), mesh_id, key)
        for place, meter, refusal in self._limits.get(method, ()):
            if (name := names[place]) and (wait := await meter.take(name)):
                # Those who are refused together are told to come back one after the other.
                raise RateLimitedError(refusal, retry_after=wait + self._spread() * (1 + wait / 4))


def _place(rule: Rule) -> int:
    return _ORDER.index(rule.scope)


def _refusal(method: str, rule: Rule) -> str:
    return f"too many calls of {method} for one {rule.scope.value}: at most {rule.rate}"
