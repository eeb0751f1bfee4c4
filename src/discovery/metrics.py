"""What operators watch: one Metrics object, which owns its registry.

The pipeline tells it of calls, a MeasuredStore of the store, and it asks for connections.

Every label is bounded: a method or protocol that is not known beforehand counts as `unknown`, and no label ever holds
what a client made up. The series that alerts read are there from the start, at zero, so that their first step is seen.
docs/metrics.md lists the metrics, and a test holds it against a running server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from math import nan
from typing import TYPE_CHECKING

from discovery.errors import Code
from discovery.series import Count, Counts, Registry, Spread
from discovery.transport.pipeline import Call, Observation

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

UNKNOWN = "unknown"

_PREFIX = "coral_discovery_"
_PROTOCOLS = ("grpc", "connect", "rest", "websocket")
# What an alert counts must be there before it happens. Series of other statuses come with their first call.
_ALERTS = (Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.INTERNAL, Code.UNAVAILABLE)
_LEASE_EVENTS = ("granted", "renewed", "expired", "released", "conflicted")
_OPERATIONS = (
    *("register", "lookup", "deregister", "evict", "reservation", "leases"),
    *("agents", "count", "sweep", "current"),
)
_OUTCOMES = ("ok", "refused", "unavailable", "cancelled", "error")
# In seconds: a memory store answers within 100 microseconds, and few clients wait for longer than ten seconds.
_BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class Metrics:
    """Every metric of one server."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._made = Registry(_PREFIX)
        self._connections: Mapping[str, int] = {}
        self._certificate_end: Callable[[], float | None] | None = None
        self.store = StoreMetrics(self._made)
        self.undecided = self._made.counter(
            "rate_limit_undecided_total", "Calls that the shared rate limits could not decide on."
        ).labels()
        self.connections_refused = self._made.counter(
            "connections_refused_total", "Connections beyond the limits, closed at once."
        ).labels()

    def observer(self, unary: Iterable[str], streams: Iterable[str]) -> CallMetrics:
        """Return what observes calls, once; of methods with one reply, and with many, by path."""
        return CallMetrics(self._made, unary, streams)

    def follow_connections(self, counts: Mapping[str, int]) -> None:
        """Read in `counts`, at each scrape, how many connections speak each protocol that it has now."""
        self._connections = counts

    def follow_certificate(self, end: Callable[[], float | None]) -> None:
        """Tell, at each scrape, when the TLS certificate ends: in Unix time, None where that is not known."""
        self._certificate_end = end

    @cached_property
    def registry(self) -> CollectorRegistry:
        """What a scrape reads; and of the process, Python and its garbage."""
        # The server serves before anybody asks.
        from prometheus_client import Gauge, GCCollector, Info, PlatformCollector, ProcessCollector

        from discovery.exposition import expose

        registry = expose(self._made)
        open_ = Gauge(f"{_PREFIX}connections", "Open connections.", ["protocol"], registry=registry)
        for protocol in self._connections:
            count = partial(self._connections.__getitem__, protocol)
            open_.labels(protocol).set_function(count)
        if (end := self._certificate_end) is not None:
            certificate = Gauge(
                f"{_PREFIX}tls_certificate_expiration_timestamp_seconds",
                "When the TLS certificate ends.",
                registry=registry,
            )
            certificate.set_function(lambda: end() or nan)
        build = Info(f"{_PREFIX}build", "The version that runs; always 1.", registry=registry)
        build.info({"version": self._version})
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        return registry


# -- Calls ----------------------------------------------------------------------------------------


class CallMetrics:
    """An Observer of calls. What a method needs over each protocol is bound beforehand, so that no call looks it up."""

    def __init__(self, registry: Registry, unary: Iterable[str], streams: Iterable[str]) -> None:
        self._requests = registry.counter(
            "requests_total", "Calls that are over.", "method", "protocol", "status"
        )
        self._in_flight = registry.gauge(
            "requests_in_flight", "Calls of one reply under way.", "method"
        )
        self._seconds = registry.histogram(
            _BUCKETS, "request_duration_seconds", "How long calls of one reply took.", "method"
        )
        self._open = registry.gauge("watch_streams", "Watches under way.", "method")
        self._sent = registry.counter("watch_deliveries_total", "States sent to watches.", "method")
        self._known: dict[tuple[str, str], _Unary | _Stream] = {}
        for protocol in _PROTOCOLS:
            self._known |= {(path, protocol): self._unary(path, protocol) for path in unary}
            self._known |= {(path, protocol): self._stream(path, protocol) for path in streams}
        self._unknown = self._unary(UNKNOWN, UNKNOWN)

    def started(self, call: Call) -> Observation:
        """Count a call that begins: see Observer."""
        observation = self._known.get((call.path, call.protocol), self._unknown)
        observation.under_way.number += 1
        return observation

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Return how often each method has had each status, those that it has had."""
        counts = Counter[tuple[str, str]]()
        for (method, _protocol, status), count in self._requests.series.items():
            counts[method, status] += count.number
        return +counts

    def _unary(self, path: str, protocol: str) -> _Unary:
        method = path.rpartition("/")[2]
        statuses = _Statuses(self._requests, method, protocol)
        return _Unary(self._in_flight.labels(method), self._seconds.labels(method), statuses)

    def _stream(self, path: str, protocol: str) -> _Stream:
        method = path.rpartition("/")[2]
        statuses = _Statuses(self._requests, method, protocol)
        return _Stream(self._open.labels(method), self._sent.labels(method), statuses)


class _Statuses(dict[Code, Count]):
    """How many calls of one method over one protocol had each status."""

    def __init__(self, requests: Counts, method: str, protocol: str) -> None:
        super().__init__()
        self._bind = partial(requests.labels, method, protocol)
        for code in (Code.OK, *_ALERTS):
            self[code] = self._bind(code.name)

    def __missing__(self, code: Code) -> Count:
        count = self[code] = self._bind(code.name)
        return count


class _Unary:
    """The Observation of every call of a method with one reply, over one protocol."""

    __slots__ = ("_seconds", "_statuses", "under_way")

    def __init__(self, under_way: Count, seconds: Spread, statuses: _Statuses) -> None:
        self.under_way = under_way
        self._seconds = seconds
        self._statuses = statuses

    def delivered(self) -> None:
        """See Observation. One reply is no delivery of a watch."""

    def finished(self, code: Code, seconds: float) -> None:
        self.under_way.number -= 1
        self._seconds.observe(seconds)
        self._statuses[code].number += 1


class _Stream:
    """The same of a method with many replies. How long such a call lasts is its client's choice, and not observed."""

    __slots__ = ("_sent", "_statuses", "under_way")

    def __init__(self, under_way: Count, sent: Count, statuses: _Statuses) -> None:
        self.under_way = under_way
        self._sent = sent
        self._statuses = statuses

    def delivered(self) -> None:
        self._sent.number += 1

    def finished(self, code: Code, seconds: float) -> None:
        del seconds
        self.under_way.number -= 1
        self._statuses[code].number += 1


# -- The store ------------------------------------------------------------------------------------


class StoreMetrics:
    """What a store does, and how its leases fare."""

    def __init__(self, registry: Registry) -> None:
        done = registry.counter(
            "store_operations_total", "Store operations that are over.", "operation", "outcome"
        )
        seconds = registry.histogram(
            _BUCKETS,
            "store_operation_duration_seconds",
            "How long store operations took.",
            "operation",
        )
        leases = registry.counter("leases_total", "What became of leases.", "event")
        lookups = registry.counter("lookups_total", "Lookups that the store answered.", "result")
        self._registrations = registry.gauge(
            "registrations", "Live leases, as of the last count.", "kind"
        )
        self.leases = {event: leases.labels(event) for event in _LEASE_EVENTS}
        self.found, self.missed = lookups.labels("found"), lookups.labels("missed")
        self._done = {
            (name, outcome): (done.labels(name, outcome), seconds.labels(name))
            for name in _OPERATIONS
            for outcome in _OUTCOMES
        }

    def done(self, operation: str, outcome: str, seconds: float) -> None:
        """Count an operation that is over."""
        times, spread = self._done[operation, outcome]
        times.number += 1
        spread.observe(seconds)

    def counted(self, kind: str, number: int) -> None:
        """Take in how many live leases there are. Before the first count nobody knows, and there is no series."""
        self._registrations.labels(kind).number = number
