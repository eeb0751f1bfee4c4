"""The RFD's manual test, by hand as it were: `buf curl` against a server in a process of its own."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.integration.support import (
    PATIENCE,
    ROOT,
    ServerProcess,
    clean_environment,
    script,
    server_process,
)
from tests.support import KEY, OTHER_KEY

MESH = "my-app-prod"
REGISTRATION = {
    "mesh_id": MESH,
    "pubkey": KEY,
    "endpoints": ["203.0.113.42:41820"],
    "metadata": {"region": "eu"},
}


@dataclass(frozen=True, slots=True)
class Printed:
    """What `buf curl` printed: the reply, or the error."""

    code: str
    reply: Mapping[str, Any]


def buf_curl(server: ServerProcess, method: str, data: Mapping[str, object]) -> Printed:
    result = subprocess.run(
        [
            *(script("buf"), "curl", "--schema", "proto"),
            *("--protocol", "grpc", "--http2-prior-knowledge"),
            *("--data", json.dumps(data)),
            f"{server.url}/coral.discovery.v1.DiscoveryService/{method}",
        ],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    if result.returncode == 0:
        return Printed("ok", json.loads(result.stdout))
    return Printed(json.loads(result.stderr)["code"], {})


def test_registers_a_colony_and_finds_it(child: ServerProcess) -> None:
    registered = buf_curl(child, "RegisterColony", REGISTRATION)
    found = buf_curl(child, "LookupColony", {"mesh_id": MESH})
    assert registered.reply["success"] is True
    assert registered.reply["ttl"] == 300
    assert found.reply["meshId"] == MESH
    assert found.reply["pubkey"] == KEY
    assert found.reply["endpoints"] == ["203.0.113.42:41820"]
    assert found.reply["metadata"] == {"region": "eu"}
    assert found.reply["expiresAt"] == registered.reply["expiresAt"]


def test_is_told_what_was_wrong(child: ServerProcess) -> None:
    buf_curl(child, "RegisterColony", REGISTRATION)
    taken = buf_curl(child, "RegisterColony", {**REGISTRATION, "pubkey": OTHER_KEY})
    invalid = buf_curl(child, "RegisterColony", {**REGISTRATION, "pubkey": "secret"})
    assert (taken.code, invalid.code) == ("already_exists", "invalid_argument")
    assert (
        buf_curl(child, "ListAgents", {"mesh_id": MESH, "page_size": -1}).code == "invalid_argument"
    )


def test_finds_the_agents_of_a_mesh(child: ServerProcess) -> None:
    agent = {**REGISTRATION, "agent_id": "api"}
    assert buf_curl(child, "RegisterAgent", agent).reply["success"] is True
    found = buf_curl(child, "LookupAgent", {"mesh_id": MESH, "agent_id": "api"}).reply
    listed = buf_curl(child, "ListAgents", {"mesh_id": MESH}).reply
    assert (found["agentId"], found["pubkey"]) == ("api", KEY)
    assert listed == {"agents": [found]}
    assert buf_curl(child, "LookupColony", {"mesh_id": MESH}).code == "not_found"


def test_counts_the_colonies(child: ServerProcess) -> None:
    buf_curl(child, "RegisterColony", REGISTRATION)
    health = buf_curl(child, "Health", {}).reply
    assert (health["status"], health["registeredColonies"]) == ("ok", 1)


def test_finds_nothing_once_a_short_ttl_is_over_and_not_before(tmp_path: Path) -> None:
    """The one test that lets real time pass: each `buf curl` takes some of it."""
    with server_process(tmp_path, "--ttl", "1") as server:
        registered = buf_curl(server, "RegisterColony", REGISTRATION)
        expires_at = datetime.fromisoformat(registered.reply["expiresAt"])
        give_up_at = time.monotonic() + PATIENCE
        while (found := buf_curl(server, "LookupColony", {"mesh_id": MESH})).code == "ok":
            assert found.reply["expiresAt"] == registered.reply["expiresAt"]
            assert time.monotonic() < give_up_at
        assert found.code == "not_found"
        assert time.time() >= expires_at.timestamp()
