"""Looks one colony up, again and again until SIGTERM, over gRPC and over HTTP/1.1; then prints what came of it.

    python -m tests.deploy.callers 10.141.0.2:8080

Nothing is tried again here: whatever is lost on the way is a failure.
"""

from __future__ import annotations

import collections
import json
import signal
import sys
import threading
from collections.abc import Callable

import grpc
import httpx

from discovery._gen.coral.discovery.v1 import (
    LookupColonyRequest,
    LookupColonyResponse,
    RegisterColonyResponse,
)
from discovery.transport import codec
from tests.support import MESH, registration

_SERVICE = "/coral.discovery.v1.DiscoveryService"
_TIMEOUT = 10.0


def _grpc(target: str) -> Callable[[], object]:
    channel = grpc.insecure_channel(target, options=[("grpc.enable_retries", 0)])
    register = channel.unary_unary(
        f"{_SERVICE}/RegisterColony",
        request_serializer=bytes,
        response_deserializer=RegisterColonyResponse.FromString,
    )
    register(codec.register_request(registration()), timeout=_TIMEOUT)
    lookup = channel.unary_unary(
        f"{_SERVICE}/LookupColony",
        request_serializer=bytes,
        response_deserializer=LookupColonyResponse.FromString,
    )
    return lambda: lookup(LookupColonyRequest(MESH), timeout=_TIMEOUT)


def _http(target: str) -> Callable[[], object]:
    client = httpx.Client(base_url=f"http://{target}", timeout=_TIMEOUT, trust_env=False)
    return lambda: client.get(f"/v1/colony/lookup/{MESH}").raise_for_status()


def _call(call: Callable[[], object], over: threading.Event, tally: dict[str, int]) -> None:
    while not over.wait(0.005):
        try:
            call()
        except (grpc.RpcError, httpx.HTTPError) as error:
            tally[" ".join(str(error).split())] += 1
        else:
            tally["answered"] += 1


def main() -> None:
    [target] = sys.argv[1:]
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    tallies: dict[str, dict[str, int]] = {}
    threads = []
    for name, call in (("grpc", _grpc(target)), ("http/1.1", _http(target))):
        tallies[name] = collections.Counter()
        threads.append(threading.Thread(target=_call, args=(call, over, tallies[name])))
        threads[-1].start()
    sys.stdout.write("calling\n")
    sys.stdout.flush()
    over.wait()
    for thread in threads:
        thread.join()
    sys.stdout.write(f"{json.dumps(tallies)}\n")


if __name__ == "__main__":
    main()
