"""Three replicas on one valkey, killed and restarted at random under thousands of colonies.

    python -m tests.soak.chaos --colonies 500 --seconds 30

Colonies register and renew, some of them in a contest for one mesh; others look up and watch. All call whichever
replica answers. What must hold, throughout and at the end:

- a registration that was acknowledged is found, with what was acknowledged, until its lease can have ended;
- no mesh was ever granted to two keys at the same time;
- a lookup is never told NOT_FOUND while a lease lives;
- no watcher goes back, and each ends on the latest state.

valkey writes each change to disk before it answers, so nothing acknowledged is lost with it (with
`--forgetful` it does not, and this must fail). All clocks are this host's.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from discovery.client import DiscoveryClient
from discovery.errors import DiscoveryError, MeshIdTakenError, NotRegisteredError
from discovery.models import Lease, Registered, Registration
from tests.redis.servers import Server, running
from tests.soak.replicas import Replica, may_try_again, progress, say
from tests.support import key, registration

T = TypeVar("T")

CALL_TIMEOUT = 5.0
CONNECTIONS = 4
"""To each replica."""
STORE_TIMEOUT = 2.0
CATCH_UP = 30.0
"""Seconds that the last events may take: a replica may be about to connect anew."""
MICROSECONDS = 1_000_000


def now_us() -> int:
    return time.time_ns() // 1000


@dataclass(frozen=True)
class Grant:
    """A lease as it was acknowledged."""

    wanted: Registration
    revision: int
    granted_us: int
    expires_us: int


@dataclass
class Mesh:
    """What is known of one mesh."""

    mesh_id: str
    grants: list[Grant] = field(default_factory=list)
    unknown: list[tuple[int, Registration]] = field(default_factory=list)
    """Calls that failed, which may have been carried out nonetheless: when they were over, and what they wanted."""

    @property
    def latest(self) -> Grant | None:
        return max(self.grants, key=lambda grant: grant.granted_us, default=None)

    def holds_until(self) -> int:
        return max((grant.expires_us for grant in self.grants), default=0)

    def add(self, grant: Grant) -> str | None:
        """Take in a grant; return what is wrong with it."""
        for other in self.grants:
            apart = grant.granted_us >= other.expires_us or other.granted_us >= grant.expires_us
            if other.wanted.pubkey != grant.wanted.pubkey and not apart:
                return f"two owners of {self.mesh_id}: {other} and {grant}"
        self.grants.append(grant)
        del self.grants[:-20]
        return None

    def may_hold(self, latest: Grant) -> list[Registration]:
        """Return what may be found: what was acknowledged, or a call without an answer that came later.

        The server gives up on a call when its client does; so later is: not over long before the grant.
        """
        since = latest.granted_us - round((CALL_TIMEOUT + STORE_TIMEOUT) * MICROSECONDS)
        return [latest.wanted, *(wanted for ended, wanted in self.unknown if ended >= since)]


class Replicas:
    """The replicas, as a client with all their addresses calls them."""

    def __init__(self, replicas: list[Replica], chance: random.Random) -> None:
        self._chance = chance
        self._clients = [
            [DiscoveryClient(each.url, timeout=CALL_TIMEOUT) for _ in range(CONNECTIONS)]
            for each in replicas
        ]
        self.answered: collections.Counter[str] = collections.Counter()
        self.refused: collections.Counter[str] = collections.Counter()
        self.took: list[float] = []
        self.slowest_refusal = 0.0

    def any(self) -> DiscoveryClient:
        return self._chance.choice(self._chance.choice(self._clients))

    def one_of_each(self) -> list[DiscoveryClient]:
        return [clients[0] for clients in self._clients]

    async def once(self, name: str, call: Callable[[DiscoveryClient], Awaitable[T]]) -> T:
        """Call one of them."""
        started = time.monotonic()
        try:
            answer = await call(self.any())
        except DiscoveryError as error:
            self.refused[f"{name}: {type(error).__name__}"] += 1
            self.slowest_refusal = max(self.slowest_refusal, time.monotonic() - started)
            raise
        self.answered[name] += 1
        self.took.append(time.monotonic() - started)
        return answer

    def close(self) -> None:
        for clients in self._clients:
            for client in clients:
                client.close()


class Soak:
    """The colonies, the readers and what they learn."""

    def __init__(self, options: argparse.Namespace, replicas: Replicas) -> None:
        self._options = options
        self._replicas = replicas
        self._chance = random.Random(options.seed)
        self._stopping = asyncio.Event()
        self.meshes = [Mesh(f"mesh-{number}") for number in range(options.colonies)]
        self.violations: list[str] = []
        self.watched: dict[str, list[int]] = {}
        """For each watched mesh, the revisions that its watchers saw last."""

    # -- What they do ---------------------------------------------------------------------------

    def start(self) -> list[asyncio.Task[None]]:
        """Start all colonies and lookups, which `stop` ends."""
        contested = range(0, len(self.meshes), 10)
        work = [self._colony(mesh, key(1)) for mesh in self.meshes]
        work += [self._colony(self.meshes[number], key(2)) for number in contested]
        work += [self._reader() for _ in range(self._options.readers)]
        return [asyncio.create_task(each) for each in work]

    def start_watches(self) -> list[asyncio.Task[None]]:
        """Start the watchers, which the caller cancels. Two watch each mesh, wherever they happen to connect."""
        number = min(self._options.watchers // 2, len(self.meshes))
        chosen = self._chance.sample(self.meshes, number)
        self.watched = {mesh.mesh_id: [0, 0] for mesh in chosen}
        return [
            asyncio.create_task(self._watch(mesh_id, which))
            for mesh_id in self.watched
            for which in (0, 1)
        ]

    def stop(self) -> None:
        self._stopping.set()

    async def _colony(self, mesh: Mesh, pubkey: str) -> None:
        """Register and renew as a colony does; now and then what it says of itself is something else."""
        wait, turn = (
            self._chance.uniform(0, min(self._options.ttl / 5, self._options.seconds / 3)),
            0,
        )
        while await self._pause(wait):
            turn += self._chance.random() < 0.3
            wanted = registration(mesh_id=mesh.mesh_id, pubkey=pubkey, public_port=1 + turn)
            wait = await self._register(mesh, wanted)

    async def _register(self, mesh: Mesh, wanted: Registration) -> float:
        """Call once; return after how many seconds to call again."""
        try:
            granted = await self._replicas.once("register", lambda c: c.register_colony(wanted))
        except MeshIdTakenError as refusal:
            left: float = refusal.expires_at_us / MICROSECONDS - time.time()
            most: float = self._options.ttl / 5
            return 1 + max(0.0, min(most, left))
        except DiscoveryError as error:
            mesh.unknown.append((now_us(), wanted))
            if not may_try_again(error):
                self.violations.append(f"register {mesh.mesh_id}: {error!r}")
            return (error.retry_after or 0.2) * self._chance.uniform(1, 2)
        self._note(mesh, wanted, granted)
        return float(granted.refresh_after)

    def _note(self, mesh: Mesh, wanted: Registration, granted: Registered) -> None:
        ttl_us = granted.ttl * MICROSECONDS
        expires_us = granted.expires_at_us
        problem = mesh.add(Grant(wanted, granted.revision, expires_us - ttl_us, expires_us))
        if problem is not None:
            self.violations.append(problem)

    async def _reader(self) -> None:
        while await self._pause(self._chance.uniform(0.5, 1.5) * self._options.think):
            await self._look_up(self._chance.choice(self.meshes))

    async def _look_up(self, mesh: Mesh) -> None:
        holds_until = mesh.holds_until()
        try:
            await self._replicas.once("lookup", lambda c: c.lookup_colony(mesh.mesh_id))
        except NotRegisteredError:
            if now_us() < holds_until:
                self.violations.append(f"{mesh.mesh_id} was NOT_FOUND within its lease")
        except DiscoveryError as error:
            if not may_try_again(error):
                self.violations.append(f"lookup {mesh.mesh_id}: {error!r}")

    async def _watch(self, mesh_id: str, which: int) -> None:
        """Watch, and again after the last revision that was seen whenever the stream ended with an error."""
        seen = self.watched[mesh_id]
        while True:
            try:
                async with aclosing(
                    self._replicas.any().watch_colony(mesh_id, seen[which])
                ) as states:
                    async for state in states:
                        if state.revision < seen[which]:
                            self.violations.append(
                                f"a watcher of {mesh_id} went back from {seen[which]} to {state}"
                            )
                        seen[which] = state.revision
            except DiscoveryError as error:
                self._replicas.refused[f"watch: {type(error).__name__}"] += 1
                await asyncio.sleep(self._chance.uniform(0.1, 0.5))

    async def _pause(self, seconds: float) -> bool:
        """Wait; return whether to go on."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return True
        return False

    # -- What must hold in the end ----------------------------------------------------------------

    async def check(self) -> int:
        """Look everything up, at every replica in turn; return how many leases had to be there."""
        clients = self._replicas.one_of_each()
        expected = 0
        for start in range(0, len(self.meshes), 50):
            batch = self.meshes[start : start + 50]
            answers = await asyncio.gather(
                *(self._check(mesh, clients[n % len(clients)]) for n, mesh in enumerate(batch))
            )
            expected += sum(answers)
        return expected

    async def _check(self, mesh: Mesh, client: DiscoveryClient) -> bool:
        latest = mesh.latest
        found = await self._find(mesh.mesh_id, client)
        if latest is None or now_us() >= latest.expires_us:
            return False  # never acknowledged, or the lease may have ended before it was looked for
        if (problem := _difference(mesh, latest, found)) is not None:
            self.violations.append(problem)
        return True

    async def _find(self, mesh_id: str, client: DiscoveryClient) -> Lease | None:
        try:
            return await client.lookup_colony(mesh_id)
        except NotRegisteredError:
            return None

    async def check_watchers(self) -> None:
        """Give the watchers the time that the last events may take, then name those that are behind."""
        deadline = time.monotonic() + CATCH_UP
        while behind := await self._behind():
            if time.monotonic() > deadline:
                self.violations += behind
                return
            await asyncio.sleep(0.2)

    async def _behind(self) -> list[str]:
        behind = []
        for mesh_id, seen in self.watched.items():
            lease = await self._find(mesh_id, self._replicas.any())
            if lease is not None and set(seen) != {lease.revision}:
                behind.append(f"watchers of {mesh_id} are at {seen}, and it is at {lease.revision}")
        return behind


def _difference(mesh: Mesh, latest: Grant, found: Lease | None) -> str | None:
    """Return how what was found is not what was acknowledged, if it is not."""
    if found is None:
        return f"{mesh.mesh_id} is lost: {latest}"
    if found.registration.pubkey != latest.wanted.pubkey:
        return f"{mesh.mesh_id} has another owner: {found} instead of {latest}"
    if found.expires_at_us < latest.expires_us or found.revision < latest.revision:
        return f"{mesh.mesh_id} is older than acknowledged: {found} instead of {latest}"
    if found.registration not in mesh.may_hold(latest):
        return f"{mesh.mesh_id} has other content: {found} instead of {latest}"
    if found.registration == latest.wanted and found.expires_at_us == latest.expires_us:
        return None if found.revision == latest.revision else f"{mesh.mesh_id}: {found} {latest}"
    return None


class Faults:
    """Kills replicas and valkey, and brings them back."""

    def __init__(
        self, options: argparse.Namespace, replicas: list[Replica], valkey: Server
    ) -> None:
        self._options = options
        self._replicas = replicas
        self._valkey = valkey
        self._chance = random.Random(options.seed + 1)
        self.done: collections.Counter[str] = collections.Counter()

    async def run(self, until: float) -> None:
        """Go on until the time `until`, then leave everything running."""
        replicas = (self._kill_replicas(until, number) for number in (0, 1))
        await asyncio.gather(self._kill_valkey(until), *replicas)
        for replica in self._replicas:
            await replica.ready()

    async def _kill_valkey(self, until: float) -> None:
        while await self._wait(until, 2 * self._options.pace):
            self.done["valkey killed"] += 1
            await asyncio.to_thread(self._valkey.kill)
            await asyncio.sleep(self._chance.uniform(0.0, 1.5))
            await self._valkey.start()

    async def _kill_replicas(self, until: float, number: int) -> None:
        """Kill replicas of those that this one of two may: so one is always left, and two may be away at once."""
        mine = self._replicas[number::2]
        while await self._wait(until, self._options.pace):
            victim = self._chance.choice(mine)
            self.done["replica killed"] += 1
            await victim.kill()
            await asyncio.sleep(self._chance.uniform(0.0, 2.0))
            await victim.launch()

    async def _wait(self, until: float, seconds: float) -> bool:
        """Wait about `seconds`; return whether it is not yet the time `until`."""
        await asyncio.sleep(min(self._chance.uniform(0.5, 1.5) * seconds, _left(until)))
        return _left(until) > 0


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())


async def show(soak: Soak, replicas: Replicas, faults: Faults, until: float) -> None:
    """Print a line now and then."""
    while True:
        registered = sum(bool(mesh.grants) for mesh in soak.meshes)
        progress(
            f"{_left(until):4.0f} s left, {registered} registered, {dict(replicas.answered)} answered, "
            f"{sum(replicas.refused.values())} refused, {dict(faults.done)}, {len(soak.violations)} violations"
        )
        await asyncio.sleep(5)


async def run(options: argparse.Namespace, directory: Path) -> int:
    """Run it all; return the exit code."""
    async with AsyncExitStack() as stack:
        durable = () if options.forgetful else ("--appendonly", "yes", "--appendfsync", "always")
        valkey = await stack.enter_async_context(running(*durable))
        store = f"{valkey.url}?timeout={STORE_TIMEOUT}"
        arguments = ("--store", store, "--ttl", str(options.ttl), *options.server_option)
        processes = [Replica(f"replica-{n}", directory, *arguments) for n in (1, 2, 3)]
        for process in processes:
            stack.push_async_callback(process.kill)
            await process.launch()
        for process in processes:
            await process.ready()
        replicas = Replicas(processes, random.Random(options.seed + 2))
        stack.callback(replicas.close)
        soak, faults = Soak(options, replicas), Faults(options, processes, valkey)
        expected = await _through(options, soak, replicas, faults)
    problems = [line for process in processes for line in process.problems()]
    return report(soak, replicas, faults, expected, problems)


async def _through(
    options: argparse.Namespace, soak: Soak, replicas: Replicas, faults: Faults
) -> int:
    """Load, faults, rest, checks; return how many leases had to be found."""
    until = time.monotonic() + options.seconds
    colonies, watches = soak.start(), soak.start_watches()
    shown = asyncio.create_task(show(soak, replicas, faults, until))
    try:
        await faults.run(until)
        soak.stop()
        await asyncio.gather(*colonies)
        expected = await soak.check()
        await soak.check_watchers()
    finally:
        for task in (shown, *watches, *colonies):
            task.cancel()
        await asyncio.gather(shown, *watches, *colonies, return_exceptions=True)
    return expected


def report(
    soak: Soak, replicas: Replicas, faults: Faults, expected: int, problems: list[str]
) -> int:
    """Print what happened; return the exit code."""
    acknowledged = sum(bool(mesh.grants) for mesh in soak.meshes)
    say(f"meshes: {len(soak.meshes)}, registered: {acknowledged}, lease still running: {expected}")
    say(f"watchers: {2 * len(soak.watched)}")
    say(f"faults: {dict(faults.done)}")
    say(f"answered: {dict(replicas.answered)}")
    say(f"refused: {dict(replicas.refused)}")
    if len(replicas.took) > 1:
        cuts = statistics.quantiles(replicas.took, n=100)
        say(f"seconds to an answer: median {cuts[49]:.3f}, p99 {cuts[98]:.3f}")
    say(f"seconds to a refusal: at most {replicas.slowest_refusal:.3f}")
    for line in soak.violations[:20]:
        say(f"VIOLATION {line}")
    for line in problems[:20]:
        say(f"LOGGED {line}")
    say(f"{len(soak.violations)} violations, {len(problems)} defects logged")
    if not expected:
        say("FAILED: no lease was left to look for")
    return int(bool(soak.violations or problems or not expected))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--colonies", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--ttl", type=int, default=120, help="of leases, in seconds")
    parser.add_argument("--readers", type=int, default=20, help="that look up")
    parser.add_argument(
        "--think", type=float, default=0.2, help="seconds between a reader's lookups"
    )
    parser.add_argument("--watchers", type=int, default=60)
    parser.add_argument("--pace", type=float, default=5.0, help="seconds between two kills, about")
    parser.add_argument(
        "--forgetful",
        action="store_true",
        help="valkey keeps nothing: to see that this script notices",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--server-option",
        action="append",
        default=[],
        help="for the replicas, as in =--log-level=debug",
    )
    return parser.parse_args()


def main() -> int:
    """Run the command."""
    with tempfile.TemporaryDirectory(prefix="coral-chaos-") as directory:
        return asyncio.run(run(_options(), Path(directory)))


if __name__ == "__main__":
    sys.exit(main())
