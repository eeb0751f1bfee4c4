"""How often a call may be made, and how much may be registered. Nothing here knows a transport or a store.

A `RateLimiter` checks a call's address, mesh and key against `Rule`s. Each rule has a meter, which counts by name:

| meter | counts | by | a rule costs |
|---|---|---|---|
| `MemoryMeter` | the calls to this process | GCRA: a token bucket, one number for each name | 2 us |
| `SharedMeter` | those to all replicas, in Redis | the sliding window counter of `limits` | 3 us, or a round trip |

**Why these.** A fixed window lets twice its rate through around its edge, and everybody returns at the same moment. A
moving window is exact, but keeps one entry for each call: 60,000 for an address at the default rate. The sliding window
counter and GCRA keep one or two numbers and admit evenly; neither refuses who keeps an even pace below the rate.

**Why the memory meter is our own.** `limits` 5.8 has a MemoryStorage, which starts a task at nearly each hit that goes
through every name there is: with one name a hit took 10 us, with 20,000 names 84 us and rising, the loop stood still
for 3 to 13 ms at a time, and nothing bounds the number of names. GCRA is ten lines, and 2 us with any number of them.

**Where to check.** The address before a message is read: that is what makes a flood cheap to refuse. Mesh and key after
the caller has shown that it may act for them (its API key, its proof), or else strangers could use up what is theirs.

What replicas share is not imported here, because settings are parsed without it: `shared` counts in `redis`, through a
`circuit` that does not ask a server which is slow or lost, and `tolerant` decides while nobody is asked.
"""

from __future__ import annotations

from discovery.ratelimits.limiter import Limiter, Meter, RateLimiter
from discovery.ratelimits.memory import MemoryMeter
from discovery.ratelimits.rules import DEFAULT_RULES, METHODS, Rate, Rule, Scope, parse_rules

__all__ = [
    "DEFAULT_RULES",
    "METHODS",
    "Limiter",
    "MemoryMeter",
    "Meter",
    "Rate",
    "RateLimiter",
    "Rule",
    "Scope",
    "parse_rules",
]
