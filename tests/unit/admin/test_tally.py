from __future__ import annotations

import pytest

from discovery.admin.tally import Tally
from discovery.errors import Code, NotRegisteredError
from discovery.transport.pipeline import Account, Call

LOOKUP = "/coral.discovery.v1.DiscoveryService/LookupColony"


def over(code: Code, path: str = LOOKUP) -> Account:
    error = NotRegisteredError("nothing") if code is Code.NOT_FOUND else None
    return Account(Call(path, "grpc"), None, None, error, code)


@pytest.fixture
def tally() -> Tally:
    return Tally([LOOKUP])


def test_each_status_of_a_method_is_counted_apart(tally: Tally) -> None:
    for code in (Code.OK, Code.OK, Code.NOT_FOUND):
        tally.witness(over(code))
    assert dict(tally.counts()) == {("LookupColony", "OK"): 2, ("LookupColony", "NOT_FOUND"): 1}


def test_a_call_that_its_caller_gave_up_did_not_go_well(tally: Tally) -> None:
    tally.witness(over(Code.CANCELLED))
    tally.witness(over(Code.DEADLINE_EXCEEDED))
    assert {status for _, status in tally.counts()} == {"CANCELLED", "DEADLINE_EXCEEDED"}


def test_what_clients_make_up_is_unknown(tally: Tally) -> None:
    for number in range(3):
        tally.witness(over(Code.UNIMPLEMENTED, f"/made/up-{number}"))
    assert dict(tally.counts()) == {("unknown", "UNIMPLEMENTED"): 3}
