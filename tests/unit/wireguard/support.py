"""A runner that answers for `ip` and `wg` from a table, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass, field

from discovery.wireguard.addresses import mesh_interface
from discovery.wireguard.errors import CommandFailedError
from discovery.wireguard.keys import KeyPair
from discovery.wireguard.tunnel import TunnelSettings

KEYS = KeyPair.from_private("YAnE8mLBMn0i5FYSJF0sgTsvjSVOyHyNzbb4bXOHeF4=")

Answer = str | Exception | list["str | Exception"]


def settings(name: str | None = None, port: int = 41820) -> TunnelSettings:
    """Return the settings of a device whose name no other test has: names are claimed for the whole network."""
    name = name or f"coral-{uuid.uuid4().hex[:8]}"
    return TunnelSettings(name, KEYS, mesh_interface("mesh", KEYS.public_key), port)


def refused(said: str) -> CommandFailedError:
    return CommandFailedError("scripted", said)


def links(*devices: tuple[str, str]) -> str:
    """Return what `ip -json -details link show` prints of devices and their kinds."""
    shown = [{"ifname": name, "linkinfo": {"info_kind": kind}} for name, kind in devices]
    return json.dumps([{"ifname": "lo"}, *shown])


@dataclass
class ScriptedRunner:
    """Answers a command by the longest beginning that it has an answer for; a list is answered one by one."""

    answers: dict[str, Answer] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    stdin: list[str] = field(default_factory=list)
    blocked_at: int | None = None
    """The number of the command that never ends."""

    async def run(self, *argv: str, stdin: str = "") -> str:
        line = " ".join(argv)
        self.ran.append(line)
        self.stdin.append(stdin)
        await asyncio.sleep(0)
        if len(self.ran) - 1 == self.blocked_at:
            await asyncio.get_running_loop().create_future()
        answer = self._answer(line)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _answer(self, line: str) -> str | Exception:
        found = max(
            (a for a in {**DEFAULTS, **self.answers} if line.startswith(a)), key=len, default=""
        )
        answer = self.answers.get(found, DEFAULTS.get(found, ""))
        if not isinstance(answer, list):
            return answer
        return answer.pop(0) if len(answer) > 1 else answer[0]


DEFAULTS: dict[str, str] = {"ip -json": links()}
