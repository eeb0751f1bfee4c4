"""What .ci/observe.sh does with a running Prometheus, one step a command: `python -m tests.deploy.observe STEP ...`.

rules FILE               write the rules with every time in them divided by SPEED, and no wait above LONGEST
fleet URL...             be a fleet, until stopped: heartbeats, lookups, watches, and two colonies of one mesh
crowd PORT               open connections and say nothing, until stopped
witness PROMETHEUS       say which alerts fire, each the first time, until stopped
quiet PROMETHEUS ALERT   show what an alert that should have fired goes by
untried NAME...          fail unless these are all the alerts that there are
queries PROMETHEUS FROM  run every query over the time from FROM until now; each must have found something
commands OLD=NEW...      run the runbook's commands, with OLD text replaced by NEW
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from discovery.client import DiscoveryClient
from discovery.errors import DiscoveryError
from discovery.models import Registration
from tests.deploy.observability import RULES, RUNBOOK, Query, alerts, all_queries
from tests.docs.markdown import Block, blocks

SPEED = 60
"""An hour of an alert is a minute here."""

LONGEST = 20
"""How many seconds an alert waits at most before it fires."""

PATIENCE = 120.0
COLONIES = 20
CROWD = 120
"""With the two dozen files that any server has open, well beyond 80 % of the 150 that it may."""

_DURATION = re.compile(r"(\[|for: )(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SUBSTITUTES = {
    "$__rate_interval": "4s",
    "[30d:1m]": "[10m:1s]",  # a run may be over before the clock reaches a full minute
    "$namespace": ".*",
    "$job": "shared",
    "$instance": ".*",
}


def key(number: int) -> str:
    # tests.support has it too, but imports what a server's environment does not have.
    return base64.b64encode(number.to_bytes(32, "big")).decode()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


# -- The rules, faster ----------------------------------------------------------------------------


def _faster(match: re.Match[str]) -> str:
    before, number, unit = match.groups()
    seconds = int(number) * _SECONDS[unit] / SPEED
    return f"{before}{1000 * min(seconds, LONGEST if before == 'for: ' else seconds):.0f}ms"


def write_rules(path: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123 - the name comes from a shell
        file.write(_DURATION.sub(_faster, RULES.read_text()))


# -- Those who call -------------------------------------------------------------------------------


async def fleet(*urls: str) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number, url in enumerate(urls):
            client = DiscoveryClient(url)
            for mesh in range(number, COLONIES, len(urls)):
                tasks.create_task(_again(_colony, client, f"mesh-{mesh}", mesh))
            tasks.create_task(_again(_watcher, client, f"mesh-{number}"))


async def _again(act: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
    while True:
        with suppress(DiscoveryError):
            await act(*arguments)
        await asyncio.sleep(1)


async def _colony(client: DiscoveryClient, mesh: str, number: int) -> None:
    moving = (f"203.0.113.5:{1 + time.time_ns() % 60_000}",)
    pubkey = key(number + 1)
    await client.register_colony(Registration(mesh_id=mesh, pubkey=pubkey, endpoints=moving))
    agent = Registration(mesh_id=mesh, agent_id="agent", pubkey=pubkey, endpoints=moving)
    await client.register_agent(agent)
    await client.lookup_colony(mesh)
    if number == 0:
        await client.register_colony(Registration(mesh_id=mesh, pubkey=key(999), endpoints=moving))
    await client.lookup_colony(f"{mesh}-elsewhere")


async def _watcher(client: DiscoveryClient, mesh: str) -> None:
    async for _state in client.watch_colony(mesh):
        pass


async def crowd(port: str) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", int(port)) for _ in range(CROWD)]
    await asyncio.Event().wait()
    del silent


# -- Prometheus -----------------------------------------------------------------------------------


def ask(prometheus: str, path: str, **parameters: Any) -> Any:
    with urlopen(f"{prometheus}/api/v1/{path}?{urlencode(parameters)}", timeout=PATIENCE) as reply:
        return json.load(reply)["data"]


def witness(prometheus: str) -> None:
    fired: set[str] = set()
    while True:
        for alert in ask(prometheus, "alerts")["alerts"]:
            name = alert["labels"]["alertname"]
            if alert["state"] == "firing" and name not in fired:
                fired.add(name)
                _read(name, alert["annotations"])
        time.sleep(0.2)


def _read(name: str, annotations: dict[str, str]) -> None:
    if broken := [text for text in annotations.values() if "<error" in text or "<no value" in text]:
        sys.exit(f"{name}: {broken}")
    say(f"ok   {name}: {annotations['summary']}")


def show_quiet(prometheus: str, name: str) -> None:
    every = ask(prometheus, "alerts")["alerts"]
    mine = [alert for alert in every if alert["labels"]["alertname"] == name]
    say(f"{name}: {mine or 'not even pending'}")
    for metric in sorted(Query(name, alerts()[name]["expr"]).metrics):
        for series in ask(prometheus, "query", query=metric)["result"][:20]:
            say(f"  {series['metric']} is {series['value'][1]}")


def check_untried(*names: str) -> None:
    if unknown := set(alerts()) ^ set(names):
        sys.exit(f"alerts that nobody tried, or that are not there: {', '.join(sorted(unknown))}")


def run_queries(prometheus: str, since: str) -> None:
    queries = all_queries()
    if empty := [query for query in queries if not _finds(prometheus, query, since)]:
        sys.exit("\n".join(f"{query.place} found nothing: {query.expr}" for query in empty))
    say(f"ok   {len(queries)} queries found something")


def _finds(prometheus: str, query: Query, since: str) -> bool:
    if query.place in alerts():
        return True  # it fired, or .ci/observe.sh says why not
    expr = query.expr
    for old, new in _SUBSTITUTES.items():
        expr = expr.replace(old, new)
    found = ask(prometheus, "query_range", query=expr, start=since, end=time.time(), step="3s")
    values = (float(value) for series in found["result"] for _at, value in series["values"])
    return any(not math.isnan(value) for value in values)


# -- The runbook ----------------------------------------------------------------------------------


async def run_commands(*replacements: str) -> None:
    pairs = [replacement.split("=", 1) for replacement in replacements]
    runnable = [b for b in blocks(RUNBOOK) if b.language == "bash" and b.verb != "skip"]
    turns = asyncio.Semaphore(4)
    results = await asyncio.gather(*(_run(block, pairs, turns) for block in runnable))
    if failed := [result for result in results if result]:
        sys.exit("\n".join(failed))
    say(f"ok   {len(runnable)} blocks of the runbook's commands ran")


async def _run(
    block: Block, replacements: Sequence[Sequence[str]], turns: asyncio.Semaphore
) -> str | None:
    text = block.text
    for old, new in replacements:
        text = text.replace(old, new)
    async with turns:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", text),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    return f"{block.place} failed:\n{output.decode()}" if process.returncode else None


STEPS: dict[str, Callable[..., Any]] = {
    "rules": write_rules,
    "fleet": fleet,
    "crowd": crowd,
    "witness": witness,
    "quiet": show_quiet,
    "untried": check_untried,
    "queries": run_queries,
    "commands": run_commands,
}


def main(step: str, *arguments: str) -> None:
    result = STEPS[step](*arguments)
    if asyncio.iscoroutine(result):
        asyncio.run(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
