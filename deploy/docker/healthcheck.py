"""Say whether the server in this container lives: exit code 0, or 1.

It asks `/healthz` and not `/readyz`: who restarts what is unhealthy would restart every replica when Redis is away.
The image has no curl.
"""

# ruff: noqa: INP001 - a script of the image, in no package
from __future__ import annotations

import http.client
import os
import sys


def main() -> int:
    """Return the exit code."""
    port = int(os.environ.get("CORAL_DISCOVERY_METRICS_PORT", "9090"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return int(connection.getresponse().status != http.client.OK)
    except (OSError, http.client.HTTPException):
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
