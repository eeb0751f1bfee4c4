"""What a parent of workers decides without any: what each is told, how soon it is replaced, and who has the port."""

from __future__ import annotations

import socket
from itertools import islice

import pytest

from discovery.config import ServerSettings
from discovery.errors import ConfigError
from discovery.transport.binding import bind, reserve
from discovery.workers.order import Order
from discovery.workers.parent import delays

REDIS = "redis://:secret@127.0.0.1:6379/0"
LOOPBACK = "127.0.0.1"


def order(index: int, **settings: object) -> Order:
    """Return the order of a worker, as it arrives there."""
    chosen = ServerSettings.model_validate({"workers": 3, "store": REDIS, **settings})
    sent = Order(settings=chosen, index=index, port=4711, beat=5.0).to_line()
    assert sent.endswith(b"\n")
    assert sent.count(b"\n") == 1
    return Order.model_validate_json(sent)


def test_a_worker_is_told_every_setting_and_who_asked_for_it() -> None:
    given = {"port": 0, "cors_origin": ("https://a", "https://b"), "ttl": 60, "drain_delay": 1.5}
    told = order(0, **given).settings
    assert told == ServerSettings.model_validate({"workers": 3, "store": REDIS, **given})
    assert told.model_fields_set == {"workers", "store", *given}


def test_each_worker_has_the_common_port_and_a_side_port_of_its_own() -> None:
    own = [order(index).own_settings() for index in range(3)]
    assert [each.port for each in own] == [4711] * 3
    assert [each.metrics_port for each in own] == [9090, 9091, 9092]
    assert [each.admin_listen for each in own] == ["127.0.0.1:8081", "off", "off"]
    # So a side port that is taken is done without, as with one process, unless somebody asked for it.
    assert all(each.model_fields_set == {"workers", "store"} for each in own)


def test_no_side_port_is_none_for_all() -> None:
    assert [order(index, metrics_port=0).own_settings().metrics_port for index in range(3)] == [
        0
    ] * 3


def test_a_worker_that_keeps_dying_is_replaced_ever_more_slowly() -> None:
    assert list(islice(delays(), 9)) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


# -- The port -------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [LOOPBACK, ""])
def test_who_listens_at_a_reserved_address_gets_all_connections(host: str) -> None:
    with reserve(host, 0) as reserved:
        port = reserved.getsockname()[1]
        with bind(host, port, shared=True) as one, bind(host, port, shared=True) as other:
            for listening in (one, other):
                listening.settimeout(0)
            for _ in range(20):
                socket.create_connection((LOOPBACK, port)).close()
            assert accepted(one) + accepted(other) == 20


def accepted(listening: socket.socket) -> int:
    number = 0
    try:
        while True:
            listening.accept()[0].close()
            number += 1
    except BlockingIOError:
        return number


def test_nobody_listens_at_an_address_that_is_only_reserved() -> None:
    with reserve(LOOPBACK, 0) as reserved, pytest.raises(ConnectionRefusedError):
        socket.create_connection(reserved.getsockname())


def test_an_address_that_is_shared_already_is_not_reserved() -> None:
    with bind(LOOPBACK, 0, shared=True) as other, pytest.raises(ConfigError, match="in use"):
        reserve(LOOPBACK, other.getsockname()[1])


def test_a_system_that_cannot_share_ports_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(ConfigError, match="use --workers 1"):
        reserve(LOOPBACK, 0)
