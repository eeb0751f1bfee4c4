"""Durations as people write them in configuration: Go's notation, as in `60s`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

# https://pkg.go.dev/time#ParseDuration, without a sign: what lasts is never negative.
_GO_DURATION = re.compile(r"(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+", re.ASCII)


def parse_duration(value: object) -> float:
    """Return the seconds of a duration in Go's notation, as `60s`, `1h30m` or `500ms`.

    A bare number is refused, because it does not say of what.

    Raises:
        ValueError: it is none; the message is the end of a sentence that begins with the setting's name.
    """
    if not (isinstance(value, str) and _GO_DURATION.fullmatch(value)):
        raise ValueError("must be a duration such as 500ms, 60s or 1h30m")
    import durationpy

    try:
        return durationpy.from_str(value).total_seconds()
    except durationpy.DurationError:
        raise ValueError("must be a duration that is not so long") from None


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""A setting's type: seconds, given in Go's notation."""
