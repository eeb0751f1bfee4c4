from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.auth import format_time, parse_time
from tests.support import examples, shown

NEW_YEAR_2027 = 1_798_761_600_000_000


@pytest.mark.parametrize(
    "text, moment",
    [
        ("2027-01-01T00:00:00Z", NEW_YEAR_2027),
        ("2027-01-01t00:00:00z", NEW_YEAR_2027),
        ("2027-01-01 00:00:00+00:00", NEW_YEAR_2027),
        ("2027-01-01T01:30:00+01:30", NEW_YEAR_2027),
        ("2026-12-31T22:00:00-02:00", NEW_YEAR_2027),
        ("2027-01-01T00:00:00.000001Z", NEW_YEAR_2027 + 1),
    ],
)
def test_a_time_is_rfc_3339(text: str, moment: int) -> None:
    assert parse_time(text) == moment


@pytest.mark.parametrize(
    "text",
    ["", "2027-01-01", "2027-01-01T00:00:00", "2027-01-01T00:00Z", "20270101T000000Z", "2027-W01-1T00:00:00Z",
     "2027-13-01T00:00:00Z", "2027-02-30T00:00:00Z", "2027-01-01T24:00:01Z", "0000-01-01T00:00:00Z", "1798761600",
     "2027-01-01T00:00:00+25:00", "2027-01-01T00:00:00Z\n", "٢027-01-01T00:00:00Z", "never"],
    ids=shown,
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time"):
        parse_time(text)


@examples(100)
@given(st.integers(-(10**15), 10**17))
def test_what_is_written_is_read_back(moment: int) -> None:
    assert parse_time(format_time(moment)) == moment
