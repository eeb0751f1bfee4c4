"""Which calls are limited, and to what: the notation of rules, and those that hold unless others are given.

The defaults are far from what a fleet does, and near to what one server can bear. Calls a minute:

| rule | what a fleet was thought to need at most | limit |
|---|---|---|
| address, colonies | 1,000 behind one NAT restart: they leave, register, and retry twice: 4,000 | 6,000 |
| address, agents | 10,000 behind one NAT come back after an outage and retry once: 20,000 | 30,000 |
| address, reads | the same 10,000 look up, poll, watch their mesh and list its agents: 40,000 | 60,000 |
| mesh, each | one mesh has all of the above | twice as much |
| key, each | one key for several sites, or for CI that registers a mesh for each job | ten times as much |

A heartbeat each 60 s is 1 of a mesh's 12,000. Whoever sends 10,000 registrations a second from one address gets 6,000
through at first and then 100 a second: a few per cent of one core.

A mesh has more than one address, so that nobody can use up a mesh's calls, and with that keep its owner from renewing,
from a single address. Against many addresses there are keys and proofs, and the order of checks that they allow.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from discovery.errors import ConfigError

OFF = "off"
"""The rule that takes the defaults away."""


class Scope(enum.Enum):
    """Whose calls are counted together."""

    ADDRESS = "address"
    MESH = "mesh"
    KEY = "key"


class Rate(NamedTuple):
    """So many calls in so many seconds, of which any number at once."""

    amount: int
    seconds: int

    def __str__(self) -> str:
        name, unit = next((n, s) for n, s in _UNITS.items() if self.seconds % s == 0)
        multiples = self.seconds // unit
        return f"{self.amount}/{name}" if multiples == 1 else f"{self.amount}/{multiples}{name}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Calls of `methods` share one `rate` for each address (IPv6: each /64), mesh or key."""

    scope: Scope
    methods: frozenset[str]
    rate: Rate

    def __str__(self) -> str:
        return f"{self.scope.value}:{','.join(sorted(self.methods))}={self.rate}"


_UNITS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}

_COLONIES = frozenset({"RegisterColony", "DeregisterColony"})
_AGENTS = frozenset({"RegisterAgent", "DeregisterAgent"})
_READS = frozenset({"LookupColony", "WatchColony", "LookupAgent", "ListAgents", "WatchAgents"})
_HEALTH = frozenset({"Health"})

METHODS = _COLONIES | _AGENTS | _READS | _HEALTH
"""What can be limited."""

DEFAULT_RULES = (
    Rule(Scope.ADDRESS, _COLONIES, Rate(6_000, 60)),
    Rule(Scope.ADDRESS, _AGENTS, Rate(30_000, 60)),
    Rule(Scope.ADDRESS, _READS | _HEALTH, Rate(60_000, 60)),
    Rule(Scope.MESH, _COLONIES, Rate(12_000, 60)),
    Rule(Scope.MESH, _AGENTS, Rate(60_000, 60)),
    Rule(Scope.MESH, _READS, Rate(120_000, 60)),
    Rule(Scope.KEY, _COLONIES, Rate(60_000, 60)),
    Rule(Scope.KEY, _AGENTS, Rate(300_000, 60)),
    Rule(Scope.KEY, _READS, Rate(600_000, 60)),
)

_RULE = re.compile(r"(address|mesh|key):(\*|\w+(?:,\w+)*)=(\S+)", re.ASCII)
# The notation of `limits`, without what it reads otherwise than people mean it: lists, and nothing of something.
_RATE = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,3})?(second|minute|hour|day)s?", re.ASCII)
_LONGEST = 30 * 86400


def parse_rules(texts: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules that `texts` make of the defaults, as in `mesh:RegisterColony,DeregisterColony=60/minute`.

    `*` is every method. A rule replaces the defaults for its methods and scope. `off` removes all defaults.

    Raises:
        ConfigError: one of them is no rule. The message says what a rule is.
    """
    given = [text.strip() for text in texts]
    rules = tuple(_parse_rule(text) for text in given if text != OFF)
    return rules if OFF in given else (*_without(rules), *rules)


def _without(given: Iterable[Rule]) -> Iterable[Rule]:
    """Yield what the defaults still say where nothing is given."""
    for default in DEFAULT_RULES:
        replaced = (rule.methods for rule in given if rule.scope is default.scope)
        if methods := default.methods.difference(*replaced):
            yield replace(default, methods=methods)


def _parse_rule(text: str) -> Rule:
    parts = _RULE.fullmatch(text)
    if parts is None:
        raise ConfigError(
            f"rate-limit {text!r} must look like mesh:RegisterColony=60/minute, with address, mesh or key"
            f" before the colon and methods or * after it, or be {OFF}"
        )
    methods = METHODS if parts[2] == "*" else frozenset(parts[2].split(","))
    if unknown := sorted(methods - METHODS):
        raise ConfigError(
            f"rate-limit {text!r} names {unknown[0]}; the methods are {', '.join(sorted(METHODS))}"
        )
    return Rule(Scope(parts[1]), methods, _parse_rate(parts[3], text))


def _parse_rate(text: str, rule: str) -> Rate:
    parts = _RATE.fullmatch(text)
    seconds = int(parts[2] or 1) * _UNITS[parts[3]] if parts else 0
    if parts is None or seconds > _LONGEST:
        raise ConfigError(
            f"rate-limit {rule!r} must end in a rate such as 10/second, 60/minute or 1000/2hours:"
            " 1 to 999999999 calls in at most 30 days"
        )
    return Rate(int(parts[1]), seconds)
