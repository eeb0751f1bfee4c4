"""What may follow --store, and what is said about what may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from discovery.errors import ConfigError
from discovery.stores import open_store, public_name
from discovery.stores.memory import MemoryStore
from discovery.stores.redis import RedisStore
from discovery.stores.redis.routes import Cluster, Dialer, Fixed, Sentinels


def route_of(url: str) -> Any:
    store = open_store(url, prefix="coral")
    assert isinstance(store, RedisStore)
    return store._backend.servers[0].lane._link._route


def wire_of(dialer: Dialer, address: tuple[str, int] = ("h", 1)) -> Any:
    return dialer._make(address)


@pytest.mark.parametrize(
    "url, host, port, db, username, password",
    [
        ("redis://h", "h", 6379, 0, None, None),
        ("redis://h:1/2", "h", 1, 2, None, None),
        ("redis://h/2?timeout=1", "h", 6379, 2, None, None),
        ("redis://h?db=3", "h", 6379, 3, None, None),
        ("redis://:s%40%2Fecret@h", "h", 6379, 0, None, "s@/ecret"),
        ("redis://me:s@cret@[2001:db8::1]:1", "2001:db8::1", 1, 0, "me", "s@cret"),
        ("redis://me@h", "h", 6379, 0, "me", None),
    ],
)
def test_one_server(
    url: str, host: str, port: int, db: int, username: str | None, password: str | None
) -> None:
    route = route_of(url)

    assert type(route) is Fixed
    wire = wire_of(route._dialer, route._address)
    assert type(wire) is Connection
    assert (wire.host, wire.port, wire.db) == (host, port, db)
    assert (wire.username, wire.password) == (username, password)


def test_time_limits_and_retries_are_ours_and_not_the_drivers() -> None:
    wire = wire_of(route_of("redis://h")._dialer)

    assert (wire.socket_timeout, wire.socket_connect_timeout) == (None, None)
    assert wire.retry.get_retries() == 0
    assert wire.health_check_interval == 0


def test_a_unix_socket() -> None:
    wire = wire_of(route_of("unix://me:secret@/run/redis%20/socket?db=2")._dialer)

    assert type(wire) is UnixDomainSocketConnection
    assert (wire.path, wire.db) == ("/run/redis /socket", 2)
    assert (wire.username, wire.password) == ("me", "secret")


def test_tls(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    wire = wire_of(route_of(f"rediss://h?ssl_ca_certs={ca}&ssl_check_hostname=no")._dialer)

    assert type(wire) is SSLConnection
    assert (wire.ca_certs, wire.check_hostname) == (str(ca), False)
    assert wire_of(route_of("rediss://h")._dialer).check_hostname is True


def test_sentinels() -> None:
    url = "redis+sentinel://me:secret@a,b:2,[::1]:3/main/4?sentinel_password=other"
    route = route_of(url)

    assert type(route) is Sentinels
    assert list(route._sentinels) == [("a", 26379), ("b", 2), ("::1", 3)]
    assert route._service == b"main"
    primary, guide = wire_of(route._dialer), wire_of(route._guides)
    assert (primary.username, primary.password, primary.db) == ("me", "secret", 4)
    assert (guide.username, guide.password, guide.db) == (None, "other", 0)
    assert route._guides._timeout < route._dialer._timeout


def test_a_cluster() -> None:
    route = route_of("rediss+cluster://:secret@a:1,b")

    assert type(route) is Cluster
    assert route._nodes == {("a", 1), ("b", 6379)}
    assert all(type(wire_of(d)) is SSLConnection for d in (route._dialer, route._guides))
    assert wire_of(route._guides).password == "secret"


def test_memory_is_a_store_too() -> None:
    assert isinstance(open_store("memory"), MemoryStore)


@pytest.mark.parametrize(
    "url, said",
    [
        ("memories", "unknown store"),
        ("postgres://me:hush@h/0", "unknown store"),
        ("redis", "looks like"),
        ("redis:/h", "looks like"),
        ("rediss+unix://h", "looks like"),
        ("unixs:///x", "unknown store"),
        ("redis://", "a host is"),
        ("redis://a,b", "one host"),
        ("redis://h:port", "a host is"),
        ("redis://h:99999", "a port is"),
        ("redis://:hush/me@h", "a host is"),
        ("redis://me:hu/sh@h", "a host is"),
        ("redis://:hush@h/zero", "a database is"),
        ("redis://h?wait=1", "the options"),
        ("redis://h?hush", "the options"),
        ("redis://h?timeout", "a timeout is"),
        ("redis://h?timeout=0", "a timeout is"),
        ("redis://h?timeout=61", "a timeout is"),
        ("redis://h?timeout=nan", "a timeout is"),
        ("redis://h?timeout=soon", "a timeout is"),
        ("rediss://h?ssl_check_hostname=perhaps", "yes or no"),
        ("rediss://h?ssl_ca_certs=/no/such/file", "ssl_ca_certs names no file"),
        ("redis+sentinel://h", "the service"),
        ("redis+cluster://h/1", "no databases"),
        ("unix://", "a path"),
    ],
)
def test_what_cannot_work_is_said_and_no_password_with_it(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        open_store(url)

    assert said in str(refusal.value)
    assert "hu" not in str(refusal.value)


@pytest.mark.parametrize("prefix", ["", "a{b}", "ü", "a b", "x" * 65])
def test_a_prefix_that_would_not_do_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="prefix"):
        open_store("redis://h", prefix=prefix)


@pytest.mark.parametrize(
    "url, shown",
    [
        ("memory", "memory"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://me:secret@h/0?timeout=1", "redis://h/0"),
        (
            "redis+sentinel://:s@ecret@a,b/main?sentinel_password=secret",
            "redis+sentinel://a,b/main",
        ),
        ("unix:///run/redis", "unix:///run/redis"),
        ("redis://me:secr/e?t@h", "redis://h"),
    ],
)
def test_what_may_be_shown_of_a_url(url: str, shown: str) -> None:
    assert public_name(url) == shown
