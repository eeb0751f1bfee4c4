"""The run itself: every server beside the others, round by round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import grpc
import trustme

from benchmarks.builds import BrokenError, Scratch, SkipError
from benchmarks.calls import Call, WrongAnswerError, calls_of, preparation
from benchmarks.generators import Loader, Target, h2load
from benchmarks.probing import probe
from benchmarks.results import Latency, Load, Results, Row, sample_of
from benchmarks.servers import Instance, Place, Server, Start, Tls, started
from benchmarks.workloads import Protocol, Workload

LOADER = "load"
"""The load program's name among what was skipped."""

KEEPS_UP = 0.9
"""Of the rate that latency is measured at; whoever answers fewer calls has a queue, not a latency."""

Progress = Callable[[str], None]
"""Is told what happens now, once for each step."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, and for how long."""

    servers: Sequence[Server]
    workloads: Sequence[Workload]
    rounds: int
    seconds: float
    """Of one round of one server."""
    warm_up: float
    """Seconds, once for each server and workload."""

    def steps(self) -> int:
        """Return about how many steps there are to be told of."""
        each = self.rounds + 2  # before them the warm-up, after them the latency
        pairs = sum(
            workload.transport.protocol in server.protocols
            for workload in self.workloads
            for server in self.servers
        )
        return pairs * each


@dataclass(frozen=True, slots=True)
class Bench:
    """The servers that run, and what calls them."""

    instances: Mapping[tuple[str, bool], Instance]
    """By name, and whether over TLS."""
    loader: Loader | None
    folder: Path

    def able(self, workload: Workload) -> list[Instance]:
        """Return the servers that can be given a workload, if there is a load generator for it."""
        if self.loader is None and not workload.repeats_one_call:
            return []
        return [
            instance
            for (_, tls), instance in self.instances.items()
            if tls == workload.transport.tls
            and workload.transport.protocol in instance.server.protocols
        ]

    def load(self, workload: Workload, instance: Instance, seconds: float, rate: float = 0) -> Load:
        """Prepare a server, prove that it answers right, then load it; as fast as it answers, or at a rate.

        Raises:
            BrokenError, WrongAnswerError, grpc.RpcError: it does not answer right.
        """
        target = Target(instance.port, workload.transport, instance.ca)
        calls = calls_of(workload, instance.server.schema)
        answer = self._prepare(workload, target, instance, calls)
        before = instance.cpu_seconds()
        load = self._run(workload, target, calls, answer, seconds, rate)
        return replace(load, cpu_seconds=instance.cpu_seconds() - before)

    def _run(
        self,
        workload: Workload,
        target: Target,
        calls: Sequence[Call],
        answer: bytes,
        seconds: float,
        rate: float,
    ) -> Load:
        if self.loader is None or (workload.repeats_one_call and not rate):
            return h2load(target, calls[0], answer, seconds, self.folder)
        return self.loader(target, calls, self.folder, seconds=seconds, rate=rate)

    def _prepare(
        self, workload: Workload, target: Target, instance: Instance, calls: Sequence[Call]
    ) -> bytes:
        with probe(target.port, target.protocol, target.ca) as ask:
            for call in preparation(workload, instance.server.schema):
                ask(call)
            return ask(calls[0])


@contextmanager
def running(plan: Plan, scratch: Scratch, results: Results, told: Progress) -> Iterator[Bench]:
    """Start every server of the plan that can be had here; why another cannot is noted in the results."""
    over_tls = sorted({workload.transport.tls for workload in plan.workloads})
    with ExitStack() as stack:
        tls = certificate(scratch.folder)
        instances = {
            (server.name, secure): stack.enter_context(
                started(server, start, tls if secure else None)
            )
            for server, start in _prepared(plan, scratch, stack, results, told)
            for secure in over_tls
        }
        for instance in instances.values():
            _begin(instance)
        yield Bench(instances, _loader(scratch, results), scratch.folder)


def _prepared(
    plan: Plan, scratch: Scratch, stack: ExitStack, results: Results, told: Progress
) -> Iterator[tuple[Server, Callable[[Place], Start]]]:
    for server in plan.servers:
        told(f"starting {server.name}")
        try:
            start = server.prepare(scratch, stack)
        except SkipError as reason:
            results.skipped[server.name] = str(reason)
        else:
            yield server, start


def _begin(instance: Instance) -> None:
    calls = instance.server.schema.begin()
    if not calls:
        return
    with probe(instance.port, Protocol.GRPC, instance.ca) as ask:
        for call in calls:
            ask(call)


def _loader(scratch: Scratch, results: Results) -> Loader | None:
    try:
        return Loader(scratch.go / "load")
    except SkipError as reason:
        results.skipped[LOADER] = (
            f"{reason}: no changes, no mix, no TLS, no call a connection, no latency"
        )
        return None


def certificate(folder: Path) -> Tls:
    """Write a certificate for localhost, and its authority's, into `folder`."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    tls = Tls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(tls.ca)
    issued.cert_chain_pems[0].write_to_path(tls.cert)
    issued.private_key_pem.write_to_path(tls.key)
    return tls


@dataclass(frozen=True, slots=True)
class _Step:
    """One thing to do to one server, and where its numbers, or its failure, go."""

    what: str
    row: Row
    do: Callable[[], None]

    def attempt(self) -> None:
        """Do it, unless an earlier step of this row failed."""
        if self.row.error:
            return
        try:
            self.do()
        except (BrokenError, WrongAnswerError, grpc.RpcError) as error:
            self.row.error = str(error)


def measure(plan: Plan, bench: Bench, results: Results, told: Progress) -> None:
    """Run every workload of the plan into the results."""
    for workload in plan.workloads:
        able = bench.able(workload)
        results.rows[workload.name] = rows = {one.server.name: Row() for one in able}
        for step in _steps(plan, bench, workload, able, rows):
            told(f"{workload.name}: {step.what}")
            step.attempt()


def _steps(
    plan: Plan,
    bench: Bench,
    workload: Workload,
    able: Sequence[Instance],
    rows: Mapping[str, Row],
) -> Iterator[_Step]:
    def step(what: str, instance: Instance, do: Callable[[Row, Instance], None]) -> _Step:
        row = rows[instance.server.name]
        return _Step(f"{instance.server.name}, {what}", row, partial(do, row, instance))

    def warm(_row: Row, instance: Instance) -> None:
        bench.load(workload, instance, plan.warm_up)

    def sample(row: Row, instance: Instance) -> None:
        row.samples.append(sample_of(good(bench.load(workload, instance, plan.seconds))))

    def latency(row: Row, instance: Instance) -> None:
        row.latency = _latency(bench, workload, instance, plan.seconds, row.rate / 2)

    yield from (step("warm-up", instance, warm) for instance in able)
    for number in range(plan.rounds):
        yield from (step(f"round {number + 1}", one, sample) for one in _turned(able, number))
    if bench.loader is not None:
        yield from (step("latency", instance, latency) for instance in able)


def good(load: Load) -> Load:
    """Return what was counted, if every call was answered right; raise BrokenError if not."""
    if load.failed:
        raise BrokenError(f"{load.failed} of {load.calls + load.failed} failed: {load.example}")
    if not load.calls:
        raise BrokenError("no call was answered in time")
    return load


def _latency(
    bench: Bench, workload: Workload, instance: Instance, seconds: float, rate: float
) -> Latency | None:
    load = good(bench.load(workload, instance, seconds, rate))
    reached = load.calls / load.seconds
    if load.p50_ms is None or load.p99_ms is None or reached < KEEPS_UP * rate:
        return None
    return Latency(reached, load.p50_ms, load.p99_ms)


def _turned(instances: Sequence[Instance], by: int) -> Sequence[Instance]:
    """Return the servers in another order each round, so that none always follows the same one."""
    turn = by % len(instances) if instances else 0
    return (*instances[turn:], *instances[:turn])
