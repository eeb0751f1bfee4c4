"""A rolling restart of three replicas behind haproxy, under load from real clients: no call may fail.

    python -m tests.soak.rolling --rounds 1

What the clients do:

- grpcio, as it comes: no retry policy. It sends a call again by itself only where a server never processed it
  (RST_STREAM with REFUSED_STREAM, or a GOAWAY that names an earlier stream). UNAVAILABLE is a failed call. Each
  client has a connection of its own, as in processes of their own; one has many calls and a watch under way at once.
- `DiscoveryClient`, which repeats nothing: where a call is UNAVAILABLE, this script does what its callers do: wait as
  long as RetryInfo says, or 0.1 s, and call again, up to `--retries` times. How often that was needed is reported.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from discovery._gen.coral.discovery.v1 import (
    LookupColonyRequest,
    LookupColonyResponse,
    RegisterColonyResponse,
    WatchColonyRequest,
    WatchColonyResponse,
)
from discovery.client import DiscoveryClient
from discovery.errors import DiscoveryError
from discovery.models import Registration
from discovery.transport import codec
from tests.integration.support import LOOPBACK
from tests.redis.servers import free_port, running
from tests.soak.replicas import PATIENCE, Replica, may_try_again, progress, say
from tests.support import key, registration

SERVICE = "/coral.discovery.v1.DiscoveryService"
CALL_TIMEOUT = 10.0
WATCHED = "watched"

HAPROXY = """
global
  maxconn 4000
defaults
  mode tcp
  timeout connect 2s
  timeout client 1h
  timeout server 1h
  option redispatch 1
  retries 3
frontend discovery
  bind {host}:{port}
  default_backend replicas
backend replicas
  balance leastconn
  option httpchk GET /readyz
  default-server check inter {inter}ms fall {fall} rise 1
"""


class Tally:
    """What became of the calls, by kind of client."""

    def __init__(self) -> None:
        self.answered: collections.Counter[str] = collections.Counter()
        self.retried: collections.Counter[str] = collections.Counter()
        self.failed: collections.Counter[str] = collections.Counter()
        self.slowest = 0.0
        self.phase = "before"

    def failure(self, kind: str, why: str) -> None:
        self.failed[f"{kind}, {self.phase}: {why}"] += 1

    def took(self, kind: str, seconds: float) -> None:
        self.answered[kind] += 1
        self.slowest = max(self.slowest, seconds)


class GrpcioClient:
    """Calls through a grpcio channel with default settings, but for a connection of its own."""

    def __init__(self, port: int) -> None:
        own = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(f"{LOOPBACK}:{port}", options=own)
        self._register = self._unary("RegisterColony", RegisterColonyResponse)
        self._lookup = self._unary("LookupColony", LookupColonyResponse)
        self._watch = self._channel.unary_stream(
            f"{SERVICE}/WatchColony",
            request_serializer=bytes,
            response_deserializer=WatchColonyResponse.FromString,
        )

    async def register(self, wanted: Registration) -> None:
        await self._register(codec.register_request(wanted), timeout=CALL_TIMEOUT)

    async def lookup(self, mesh_id: str) -> None:
        await self._lookup(LookupColonyRequest(mesh_id), timeout=CALL_TIMEOUT)

    async def watch(self, mesh_id: str, after: int) -> AsyncIterator[int]:
        """Yield the revisions, until the stream ends with an error."""
        async for reply in self._watch(WatchColonyRequest(mesh_id, after)):
            yield reply.revision

    async def close(self) -> None:
        await self._channel.close()

    def _unary(self, name: str, reply: Any) -> Any:
        return self._channel.unary_unary(
            f"{SERVICE}/{name}", request_serializer=bytes, response_deserializer=reply.FromString
        )


class Load:
    """The clients, and what they hear."""

    def __init__(self, port: int, options: argparse.Namespace) -> None:
        self._port = port
        self._options = options
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.tally = Tally()
        self.seen: dict[str, int] = {}
        """The revision that each watcher saw last."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Call for the length of the block; what is under way at its end is waited for."""
        async with AsyncExitStack() as stack:
            for number in range(self._options.clients):
                single = await self._grpcio(stack)
                self._start(self._calls("grpcio", f"g-{number}", single.register, single.lookup))
            busy = await self._grpcio(stack)
            for number in range(self._options.concurrency):
                self._start(self._calls("grpcio-busy", f"b-{number}", busy.register, busy.lookup))
            for number in range(self._options.clients):
                ours = await stack.enter_async_context(self._client())
                self._start(self._our_calls(f"d-{number}", ours))
            watcher = await stack.enter_async_context(self._client())
            watches = [
                asyncio.create_task(self._watch("grpcio-busy", busy.watch)),
                asyncio.create_task(self._watch("ours", _revisions(watcher))),
            ]
            yield
            self._stopping = True
            await asyncio.gather(*self._tasks)
            await self._catch_up()
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)

    def _client(self) -> DiscoveryClient:
        return DiscoveryClient(f"http://{LOOPBACK}:{self._port}", timeout=CALL_TIMEOUT)

    async def _grpcio(self, stack: AsyncExitStack) -> GrpcioClient:
        client = GrpcioClient(self._port)
        stack.push_async_callback(client.close)
        return client

    def _start(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _our_calls(self, name: str, client: DiscoveryClient) -> None:
        async def register(wanted: Registration) -> None:
            await self._again(lambda: client.register_colony(wanted))

        async def lookup(mesh_id: str) -> None:
            await self._again(lambda: client.lookup_colony(mesh_id))

        await self._calls("ours", name, register, lookup)

    async def _again(self, call: Callable[[], Awaitable[object]]) -> None:
        for left in reversed(range(self._options.retries + 1)):
            try:
                await call()
            except DiscoveryError as error:
                if not (left and may_try_again(error)):
                    raise
                self.tally.retried[f"{type(error).__name__}, {self.tally.phase}: {error}"] += 1
                await asyncio.sleep(error.retry_after or 0.1)
            else:
                return

    async def _calls(
        self,
        kind: str,
        name: str,
        register: Callable[[Registration], Awaitable[None]],
        lookup: Callable[[str], Awaitable[None]],
    ) -> None:
        """Register once, then look up and renew in turn."""
        wanted = registration(mesh_id=name, pubkey=key(1 + sum(name.encode())))
        turn = 0
        while not self._stopping:
            await self._one(kind, lookup(name) if turn % 2 else register(wanted))
            turn += 1
            await asyncio.sleep(self._options.think)

    async def _one(self, kind: str, call: Awaitable[None]) -> None:
        started = time.monotonic()
        try:
            await call
        except grpc.aio.AioRpcError as error:
            self.tally.failure(kind, f"{error.code().name} {error.details()}")
        except DiscoveryError as error:
            self.tally.failure(kind, f"{type(error).__name__} {error}")
        else:
            self.tally.took(kind, time.monotonic() - started)

    async def _watch(self, kind: str, watch: Callable[[str, int], AsyncIterator[int]]) -> None:
        """Watch, and again whenever the stream ended with an error, as any watcher must."""
        while True:
            try:
                async for revision in watch(WATCHED, self.seen.get(kind, 0)):
                    self.seen[kind] = revision
            except (grpc.aio.AioRpcError, DiscoveryError):
                self.tally.retried[f"{kind}: a watch ended"] += 1
            await asyncio.sleep(0.1)

    async def _catch_up(self) -> None:
        """Change what is watched, and count as failed each watcher that does not see it."""
        async with self._client() as client:
            changed = await client.register_colony(registration(mesh_id=WATCHED, public_port=443))
        for _ in range(200):
            if not self._behind(changed.revision):
                return
            await asyncio.sleep(0.05)
        for kind in self._behind(changed.revision):
            self.tally.failure(kind, "its watcher is behind")

    def _behind(self, revision: int) -> list[str]:
        return [kind for kind in ("grpcio-busy", "ours") if self.seen.get(kind) != revision]


def _revisions(client: DiscoveryClient) -> Callable[[str, int], AsyncIterator[int]]:
    async def watch(mesh_id: str, after: int) -> AsyncIterator[int]:
        async with aclosing(client.watch_colony(mesh_id, after)) as states:
            async for state in states:
                yield state.revision

    return watch


@asynccontextmanager
async def balancer(
    directory: Path, replicas: list[Replica], options: argparse.Namespace
) -> AsyncIterator[int]:
    """Run haproxy in front of `replicas`; yield its port."""
    port, path = free_port(), directory / "haproxy.cfg"
    settings = HAPROXY.format(
        host=LOOPBACK, port=port, inter=options.check_interval, fall=options.check_fall
    )
    servers = (
        f"  server {each.name} {LOOPBACK}:{each.port} port {each.metrics_port}\n"
        for each in replicas
    )
    path.write_text(settings + "".join(servers))
    binary = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if binary is None:
        raise SystemExit("haproxy is not installed: apt-get install haproxy")
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(binary, "-f", str(path), "-db", stderr=quiet)
    try:
        await _listens(port)
        yield port
    finally:
        process.kill()
        await process.wait()


async def _listens(port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection(LOOPBACK, port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def roll(replicas: list[Replica], tally: Tally, options: argparse.Namespace) -> None:
    """Restart one after the other, each once the last is ready and the balancer knows it."""
    for turn in range(options.rounds):
        for replica in replicas:
            tally.phase = f"{replica.name} stops"
            took = await replica.stop()
            tally.phase = f"{replica.name} starts"
            await replica.start()
            await asyncio.sleep(options.settle)
            answered, failed = sum(tally.answered.values()), sum(tally.failed.values())
            progress(
                f"round {turn + 1}: {replica.name} stopped in {took:.1f} s and is back; "
                f"{answered} calls answered, {failed} failed"
            )
    tally.phase = "after"


async def soak(options: argparse.Namespace, directory: Path) -> int:
    """Run it all; return the exit code."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(running(port=free_port()))
        arguments = ("--store", f"{redis.url}/0", *options.server_option)
        replicas = [Replica(f"replica-{n}", directory, *arguments) for n in (1, 2, 3)]
        for replica in replicas:
            stack.push_async_callback(replica.kill)
            await replica.launch()
        for replica in replicas:
            await replica.ready()
        port = await stack.enter_async_context(balancer(directory, replicas, options))
        await asyncio.sleep(options.settle)
        load = Load(port, options)
        async with load.running():
            await asyncio.sleep(1.0)
            await roll(replicas, load.tally, options)
    return report(load.tally, [line for each in replicas for line in each.problems()])


def report(tally: Tally, problems: list[str]) -> int:
    """Print what happened; return the exit code."""
    for kind, number in sorted(tally.answered.items()):
        say(f"{kind}: {number} calls answered")
    for what, number in tally.retried.most_common():
        say(f"tried again {number} times: {what}")
    for what, number in tally.failed.most_common():
        say(f"FAILED {number} times: {what}")
    for line in problems[:20]:
        say(f"LOGGED {line}")
    say(f"slowest call {tally.slowest:.2f} s; {sum(tally.failed.values())} failed")
    return int(bool(tally.failed or problems))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.rolling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=2, help="times that every replica restarts")
    parser.add_argument("--clients", type=int, default=10, help="of each kind")
    parser.add_argument("--concurrency", type=int, default=8, help="calls of the busy client")
    parser.add_argument(
        "--think", type=float, default=0.02, help="seconds between a client's calls"
    )
    parser.add_argument("--retries", type=int, default=5, help="of DiscoveryClient's callers")
    parser.add_argument("--settle", type=float, default=1.5, help="seconds between two restarts")
    parser.add_argument("--check-interval", type=int, default=250, help="haproxy's, milliseconds")
    parser.add_argument("--check-fall", type=int, default=2, help="failed checks that take out")
    parser.add_argument(
        "--server-option", action="append", default=[], help="for the replicas, as in =--ttl=60"
    )
    return parser.parse_args()


def main() -> int:
    """Run the command."""
    with tempfile.TemporaryDirectory(prefix="coral-rolling-") as directory:
        return asyncio.run(soak(_options(), Path(directory)))


if __name__ == "__main__":
    sys.exit(main())
