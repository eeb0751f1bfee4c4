"""API keys that clients put where they do not belong: what is written down has something else in their place."""

from __future__ import annotations

import re

from discovery.auth.keys import SECRET

# Only where it stands alone: a long name that begins with `coral_` is a name.
_SECRET = re.compile(rf"(?<![A-Za-z0-9_-]){SECRET.pattern}(?![A-Za-z0-9_-])", re.ASCII)
_INSTEAD = "coral_..."


def holds_secret(text: str) -> bool:
    """Return whether there is what looks like an API key in `text`."""
    return _SECRET.search(text) is not None


def redacted(text: str) -> str:
    """Return `text` without what looks like an API key."""
    return _SECRET.sub(_INSTEAD, text)
