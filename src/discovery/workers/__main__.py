"""`python -m discovery.workers`, as a parent starts a worker, and nobody else."""

from __future__ import annotations

import gc
import os
import signal
import sys

from discovery.lean import import_structlog


def main() -> None:
    """Run a worker to its end."""
    # A terminal sends these to all its processes; the parent passes on what they mean. So, before all that takes time:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A parent that stands still holds up nobody.
    os.set_blocking(sys.stdout.fileno(), False)
    gc.disable()  # until it serves, as in the CLI
    import_structlog()

    import uvloop

    from discovery.workers.worker import work

    sys.exit(uvloop.run(work()))


if __name__ == "__main__":
    main()
