"""Where the admin API may be asked without a key, and by whom."""

from __future__ import annotations

import pytest

from discovery.admin.port import AdminAddress, LocalNames
from discovery.errors import PermissionDeniedError
from discovery.transport.pipeline import Call


@pytest.mark.parametrize(
    "where", ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1", "unix:/a"]
)
def test_this_machine_is_trusted(where: str) -> None:
    address = AdminAddress.parse(where)
    assert address is not None
    assert address.trusted


@pytest.mark.parametrize("where", [":1", "0.0.0.0:1", "[::]:1", "10.0.0.1:1", "127.example.com:1"])
def test_everywhere_else_is_not(where: str) -> None:
    address = AdminAddress.parse(where)
    assert address is not None
    assert not address.trusted


def call(host: str | None) -> Call:
    return Call("/a/B", "connect", metadata={} if host is None else {"host": host})


@pytest.mark.parametrize("host", [None, "127.0.0.1:8081", "localhost:8081", "localhost", "[::1]:1"])
async def test_a_caller_that_names_this_machine_is_let_in(host: str | None) -> None:
    LocalNames().admit(call(host))


@pytest.mark.parametrize(
    "host", ["evil.example:8081", "127.0.0.1.evil.example", "", "localhost.evil"]
)
async def test_a_page_whose_name_was_made_to_lead_here_is_refused(host: str) -> None:
    with pytest.raises(PermissionDeniedError):
        LocalNames().admit(call(host))
