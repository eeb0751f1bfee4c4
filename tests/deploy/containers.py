"""Runs the services of a compose file without Docker: each in a network namespace, with a root file system of its own.

What Docker would do is done here by the same means: a root that cannot be written, the service's user, no privilege,
its files mounted where compose.yaml says, a name server at 127.0.0.11. Needs root, iproute2, util-linux and dnsmasq.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.network import Host
from tests.e2e.programs import Program, Programs

# An upper layer cannot lie below its own lower one, so it is in memory. What follows are pairs of source and target.
_CONTAIN = """
set -e
lower=$1 work=$2 user=$3; shift 3
mount -t tmpfs none "$work"
mkdir "$work/upper" "$work/scratch" "$work/root"
root=$work/root
mount -t overlay none -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/scratch" "$root"
mkdir -p "$root/etc"
rm -f "$root/etc/resolv.conf"
echo 'nameserver 127.0.0.11' >"$root/etc/resolv.conf"
while [ "$1" != -- ]; do
  mkdir -p "$(dirname "$root$2")"
  if [ -d "$1" ]; then mkdir -p "$root$2"; else : >"$root$2"; fi
  mount --bind "$1" "$root$2"
  shift 2
done
shift
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount -o remount,ro "$root"
exec setpriv --no-new-privs "$@"
"""


# By its path: `env` looks along the service's own.
_CHROOT = "/usr/sbin/chroot"


@dataclass(frozen=True)
class Image:
    """What stands for a service's image: its files, its variables, its user, and how its command begins."""

    root: str = "/"
    variables: Mapping[str, str] = field(default_factory=lambda: {"PATH": "/usr/sbin:/usr/bin"})
    user: int = 65534
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()


@dataclass
class Engine:
    """Starts containers. `folder` is where the compose file is; what they keep goes into `scratch`."""

    programs: Programs
    folder: Path
    scratch: Path
    secrets: Path

    def start(self, host: Host, name: str, service: Mapping[str, Any], image: Image) -> Program:
        """Start a service on a host, by what the compose file says of it."""
        user = service.get("user", image.user)
        variables = {**image.variables, "HOME": "/", **service.get("environment", {})}
        command = _words(service.get("command", image.command))
        work = self.scratch / f"{host.name}.root"
        work.mkdir()
        return self.programs.start_other(
            host,
            *("unshare", "--mount", "sh", "-c", _CONTAIN, "sh", image.root, str(work), str(user)),
            *self._mounts(service, int(user), host.name),
            *("--", "env", "-i", *(f"{key}={value}" for key, value in variables.items())),
            *(_CHROOT, f"--userspec={user}:{user}", "--groups=", str(work / "root")),
            *image.entrypoint,
            *command,
        )

    def name_server(self, host: Host, names: Mapping[str, Sequence[str]]) -> None:
        """Answer for names on a host as Docker does: with the addresses of all who bear them."""
        hosts = self.scratch / f"{host.name}.hosts"
        lines = [f"{address} {name}" for name, addresses in names.items() for address in addresses]
        hosts.write_text("\n".join(lines) + "\n")
        self.programs.start_other(
            host,
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="),
            *("--no-resolv", "--no-hosts", f"--addn-hosts={hosts}", "--user=root"),
            *("--listen-address=127.0.0.11", "--bind-interfaces"),
        )

    def _mounts(self, service: Mapping[str, Any], user: int, name: str) -> list[str]:
        pairs = []
        for volume in service.get("volumes", ()):
            source, target = volume.split(":")[:2]
            pairs += [self._source(source, user, name), target]
        for secret in service.get("secrets", ()):
            pairs += [str(self.secrets / secret), f"/run/secrets/{secret}"]
        for target in service.get("tmpfs", ()):
            pairs += [self._source(target.strip("/"), user, name), target]
        return pairs

    def _source(self, source: str, user: int, name: str) -> str:
        if source.startswith("."):
            return str((self.folder / source).resolve())
        kept = self.scratch / f"{name}.{source}"
        kept.mkdir()
        os.chown(kept, user, user)
        return str(kept)


def _words(command: str | Sequence[str]) -> Sequence[str]:
    """Split a command as compose does."""
    return shlex.split(command) if isinstance(command, str) else command
