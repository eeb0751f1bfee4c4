"""What redis-py raises, translated once."""

from __future__ import annotations

import re

import redis.exceptions

from discovery.errors import StoreUnavailableError

RETRY_AFTER = 1.0
"""What a caller is told to wait, in seconds: enough to connect again, and a failover takes a few of them."""

FAILURES = (redis.exceptions.RedisError, OSError, TimeoutError)
"""What anything done with a connection may raise."""

_MEANINGS = {
    "READONLY": "it is read-only",
    "OOM": "it is out of memory",
    "LOADING": "it is loading its data",
    "MISCONF": "it cannot write to its disk",
    "MASTERDOWN": "its primary is down",
    "CLUSTERDOWN": "its cluster is down",
    "TRYAGAIN": "its cluster is moving the keys",
    "NOREPLICAS": "it has too few replicas",
    "BUSY": "it is busy with a script",
    "UNBLOCKED": "it changed its role",
    "NOAUTH": "it wants other credentials",
    "WRONGPASS": "it wants other credentials",
    "NOPERM": "it does not permit this",
    "WRONGTYPE": "a key of ours holds something else",
    "MOVED": "it is a cluster, for which the URL starts with redis+cluster",
}
# Anywhere in the text: scripts on Redis 6.2 wrap an inner error into one of their own.
_CODE = re.compile(rf"\b({'|'.join(_MEANINGS)})\b")

# After these the server is not, or no longer, the one to ask.
_WRONG_SERVER = {"READONLY", "MASTERDOWN", "CLUSTERDOWN", "UNBLOCKED"}


def unavailable(error: BaseException) -> StoreUnavailableError:
    """Return `error` in our words, with itself as the cause. The words name nothing that callers should not see."""
    translated = StoreUnavailableError(
        f"the store cannot answer now: {_meaning(error)}", retry_after=RETRY_AFTER
    )
    translated.__cause__ = error
    return translated


def from_wrong_server(reply: object) -> bool:
    """Say whether `reply` means that another server should be looked for."""
    return isinstance(reply, redis.exceptions.RedisError) and _code(reply) in _WRONG_SERVER


def _meaning(error: BaseException) -> str:
    if code := _code(error):
        return _MEANINGS[code]
    if isinstance(error, (TimeoutError, redis.exceptions.TimeoutError)):
        return "it does not answer in time"
    if isinstance(error, (OSError, redis.exceptions.ConnectionError)):
        return "it is unreachable"
    return "it refuses"


def _code(error: BaseException) -> str | None:
    # redis-py takes the code out of the text of errors that it has a class for, and wraps some errors into others.
    found = _CODE.search(f"{getattr(error, 'status_code', '')} {error}")
    if found is not None:
        return found[1]
    return None if error.__cause__ is None else _code(error.__cause__)
