"""What was measured, and what it says: medians, spreads and ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """What was counted in one run of a load generator."""

    calls: int
    """Answered, and answered right."""
    failed: int
    seconds: float
    example: str = ""
    """What one of the failed calls was told."""
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_seconds: float = 0.0
    """Processor time that the server used meanwhile."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one server."""

    rate: float
    """Calls a second."""
    cpu_us: float
    """Processor time of the server for one call, in microseconds: it hardly depends on what else the machine does."""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long calls take at a rate that the server keeps up with."""

    rate: float
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class Row:
    """One server under one workload."""

    samples: list[Sample] = field(default_factory=list)
    latency: Latency | None = None
    error: str = ""
    """Why there are no numbers: they are worth nothing once a call failed."""

    @property
    def measured(self) -> bool:
        """Whether the numbers mean anything."""
        return bool(self.samples) and not self.error

    @property
    def rate(self) -> float:
        """Calls a second, the median of all rounds."""
        return median(sample.rate for sample in self.samples)

    @property
    def cpu_us(self) -> float:
        """Processor time of a call, the median of all rounds."""
        return median(sample.cpu_us for sample in self.samples)

    @property
    def spread(self) -> float:
        """How far the slowest round is from the fastest, as a share of the median."""
        rates = [sample.rate for sample in self.samples]
        return (max(rates) - min(rates)) / self.rate


Rows = Mapping[str, Row]
"""By server."""


@dataclass(slots=True)
class Results:
    """All of a run."""

    machine: Mapping[str, str]
    seconds: float
    rounds: int
    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    """By workload, then by server."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a server, or the load program, was left out."""


def sample_of(load: Load) -> Sample:
    """Return a round's numbers."""
    return Sample(load.calls / load.seconds, load.cpu_seconds / load.calls * MICROSECONDS)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times one server does what another does."""

    by_rate: float
    by_cpu: float


def ratio(rows: Rows, one: str, other: str) -> Ratio | None:
    """Return how many times faster `one` is, or None unless both were measured."""
    first, second = rows.get(one), rows.get(other)
    if first is None or second is None or not (first.measured and second.measured):
        return None
    return Ratio(first.rate / second.rate, second.cpu_us / first.cpu_us)


@dataclass(frozen=True, slots=True)
class Target:
    """What is promised: on these workloads, `one` is at least `times` as fast as `other`."""

    workloads: Sequence[str]
    one: str
    other: str
    times: float


_GRPC = ("lookup/grpc", "lookup/grpc-conns", "heartbeat/grpc", "heartbeat/grpc-conns")
_CONNECT = ("lookup/proto", "lookup/json", "heartbeat/proto", "heartbeat/json")

TARGETS = (
    Target(_GRPC, "coral", "grpcio", 10),
    Target(_GRPC, "coral", "connect-go", 1),
    Target(_CONNECT, "coral", "connectrpc", 3),
    Target(_CONNECT, "coral", "connect-go", 0.5),
    Target(_GRPC, "coral-general", "grpcio", 1.2),
    Target(("lookup/grpc", "heartbeat/grpc"), "coral-redis", "coral", 1 / 3),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target on one workload."""

    workload: str
    target: Target
    ratio: Ratio

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.ratio.by_rate >= self.target.times


def verdicts(rows: Mapping[str, Rows], targets: Sequence[Target] = TARGETS) -> list[Verdict]:
    """Return each target on each of its workloads, where both servers were measured."""
    return [
        Verdict(workload, target, found)
        for target in targets
        for workload in target.workloads
        if (found := ratio(rows.get(workload, {}), target.one, target.other)) is not None
    ]
