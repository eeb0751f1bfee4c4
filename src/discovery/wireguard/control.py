"""wireguard-go's control sockets, by which `wg` finds it: the cross-platform userspace interface of WireGuard."""

from __future__ import annotations

import socket
from pathlib import Path

_FOLDER = Path("/var/run/wireguard")


def is_served(name: str, folder: Path = _FOLDER) -> bool:
    """Return whether a wireguard-go, in whichever network namespace, answers for the device `name`.

    `wg show` would tell too, but removes each socket that it finds with nobody behind it: also that of a wireguard-go
    which has just made it and does not listen yet, and which then ends. A socket that was left behind may stay: the
    next wireguard-go of that name replaces it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(folder / f"{name}.sock"))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except (BlockingIOError, PermissionError):  # it has much to do, or is not ours
            return True
    return True
