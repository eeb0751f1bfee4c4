"""A client for single calls, whose answers are looked at: what proves that a server does the work at all."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from benchmarks.builds import BrokenError
from benchmarks.calls import Call
from benchmarks.workloads import Protocol

HOST = "127.0.0.1"
PATIENCE = 10.0
"""Seconds for one call."""

Probe = Callable[[Call], bytes]
"""Makes one call, checks its answer and returns it; raises WrongAnswerError."""


@contextmanager
def probe(port: int, protocol: Protocol, ca: Path | None) -> Iterator[Probe]:
    """Open a client; with `ca`, the server's certificate authority, over TLS."""
    make = _grpc if protocol is Protocol.GRPC else _connect
    with make(port, protocol, ca) as call_bytes:

        def checked(call: Call) -> bytes:
            answer = call_bytes(call)
            call.check(protocol, answer)
            return answer

        yield checked


@contextmanager
def _grpc(port: int, _protocol: Protocol, ca: Path | None) -> Iterator[Probe]:
    address = f"localhost:{port}" if ca else f"{HOST}:{port}"
    with _channel(address, ca) as channel:

        def call_bytes(call: Call) -> bytes:
            rpc: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.path)
            return rpc(bytes(call.request), timeout=PATIENCE)

        yield call_bytes


def _channel(address: str, ca: Path | None) -> grpc.Channel:
    if ca is None:
        return grpc.insecure_channel(address)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes()))


@contextmanager
def _connect(port: int, protocol: Protocol, ca: Path | None) -> Iterator[Probe]:
    connection = _connection(port, ca)

    def call_bytes(call: Call) -> bytes:
        headers = {"content-type": protocol.content_type}
        connection.request("POST", call.path, call.body(protocol), headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != http.HTTPStatus.OK:
            raise BrokenError(f"{call.path}: HTTP {response.status}: {answer!r}")
        return answer

    try:
        yield call_bytes
    finally:
        connection.close()


def _connection(port: int, ca: Path | None) -> http.client.HTTPConnection:
    if ca is None:
        return http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
    context = ssl.create_default_context(cafile=ca)
    return http.client.HTTPSConnection("localhost", port, timeout=PATIENCE, context=context)


def wait_for(check: Callable[[], bool], seconds: float, what: str) -> None:
    """Ask again and again until `check` says yes.

    Raises:
        BrokenError: it did not in that time.
    """
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise BrokenError(f"{what}: nothing after {seconds:g} s")
        time.sleep(0.02)
