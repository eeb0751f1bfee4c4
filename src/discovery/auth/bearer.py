"""The bearer token of a call (RFC 6750 section 2.1), from the metadata of any protocol."""

from __future__ import annotations

import re
from collections.abc import Mapping

from discovery.errors import UnauthenticatedError

# RFC 9110 section 11.4: a scheme of any case, and here one token68 (section 11.2) and nothing more.
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.ASCII | re.IGNORECASE)


def bearer(metadata: Mapping[str, str | bytes]) -> str | None:
    """Return the token of the call's `authorization`, None if it has none.

    Raises:
        UnauthenticatedError: there is one that is no bearer token, or more than one. The message repeats none of it.
    """
    # A mapping that keeps repeated headers shows each of them as an item.
    values = [value for name, value in metadata.items() if name.lower() == "authorization"]
    if not values:
        return None
    match = _BEARER.fullmatch(values[0].strip(" \t")) if isinstance(values[0], str) else None
    if match is None or len(values) > 1:
        raise UnauthenticatedError("authorization must be one `Bearer KEY`")
    return match[1]
