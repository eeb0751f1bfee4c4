"""`coral-discoveryctl`, as somebody types it, against a server in a process of its own."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from discovery import __version__
from discovery.client import DiscoveryClient
from discovery.errors import NotRegisteredError
from tests.integration.support import (
    LOOPBACK,
    PATIENCE,
    ServerProcess,
    clean_environment,
    script,
    server_process,
)
from tests.support import KEY, OTHER_KEY, registration

ENDPOINT = "203.0.113.5:41820"


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    errors: str

    def json(self) -> Any:
        assert self.code == 0, self.errors
        return json.loads(self.out)

    def error(self) -> str:
        """Return what it said on stderr, which must be one line."""
        (line,) = self.errors.splitlines()
        return line.removeprefix("coral-discoveryctl: ")


class Ctl:
    """Runs `coral-discoveryctl` against one server."""

    def __init__(self, variables: Mapping[str, str], url: str) -> None:
        self._environment = clean_environment(**variables)
        self._environment.pop("NO_COLOR", None)
        self.url = url

    def popen(self, *arguments: str, **kwargs: Any) -> subprocess.Popen[str]:
        streams: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        command = [script("coral-discoveryctl"), *arguments]
        environment = {**self._environment, **kwargs.pop("variables", {})}
        return subprocess.Popen(command, env=environment, text=True, **{**streams, **kwargs})

    def run(self, *arguments: str, **variables: str) -> Ended:
        process = self.popen(*arguments, variables=variables)
        out, err = process.communicate(timeout=2 * PATIENCE)
        return Ended(process.returncode, out, err)

    @contextmanager
    def following(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command that follows something; SIGINT ends it, and that is no error."""
        with self.popen(*arguments) as process:
            try:
                yield process
                process.send_signal(signal.SIGINT)
                assert process.wait(timeout=PATIENCE) == 0
            finally:
                process.kill()


def next_line(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return json.loads(line)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    with server_process(folder, "--admin-listen", f"unix:{folder}/admin") as process:
        yield process


@pytest.fixture
def ctl(server: ServerProcess, folder: Path) -> Ctl:
    variables = {
        "CORAL_DISCOVERY_ADMIN": f"unix:{folder}/admin",
        "CORAL_DISCOVERY_ENDPOINT": server.url,
    }
    return Ctl(variables, server.url)


@pytest.fixture
def mesh(request: pytest.FixtureRequest) -> str:
    """A mesh for each test: they share one server."""
    return f"m{zlib.crc32(request.node.name.encode())}"


def register(ctl: Ctl, mesh: str, key: str = KEY) -> Ended:
    return ctl.run("colonies", "register", mesh, "--pubkey", key, "--endpoint", ENDPOINT)


# -- Seeing ----------------------------------------------------------------------------------------------


def test_status_is_an_object_and_a_table(ctl: Ctl) -> None:
    status = ctl.run("status", "--output", "json").json()
    assert (status["version"], status["store"], status["draining"]) == (
        __version__,
        "memory",
        False,
    )
    table = ctl.run("status").out
    assert "STORE" in table
    assert "\x1b" not in table


def test_lists_colonies_and_agents_for_jq_and_for_people(ctl: Ctl, mesh: str) -> None:
    said = ctl.run(
        *("colonies", "register", mesh, "--pubkey", KEY, "--endpoint", ENDPOINT),
        *("--metadata", "region=eu", "--output", "yaml"),
    )
    assert yaml.safe_load(said.out)["ttl_seconds"] == 300
    (colony,) = ctl.run("colonies", "list", "--prefix", mesh, "--output", "json").json()
    assert (colony["mesh_id"], colony["pubkey"], colony["metadata"]) == (
        mesh,
        KEY,
        {"region": "eu"},
    )
    assert ctl.run("colonies", "get", mesh, "-o", "json").json() == colony
    assert "region=eu" in ctl.run("colonies", "get", mesh).out
    assert f"{KEY[:10]}…" in ctl.run("colonies", "list", "--prefix", mesh).out
    assert ctl.run("agents", "list", mesh, "--output", "json").json() == []
    assert ctl.run("colonies", "list", "--prefix", mesh, "--min-age", "1h").out.startswith("No ")


async def test_agents_are_listed_by_their_whole_mesh(ctl: Ctl, mesh: str) -> None:
    async with DiscoveryClient(ctl.url) as client:
        await client.register_agent(registration(mesh_id=mesh, agent_id="api"))
        await client.register_agent(registration(mesh_id=f"{mesh}-2", agent_id="api"))
    (agent,) = ctl.run("agents", "list", mesh, "--output", "json").json()
    assert (agent["mesh_id"], agent["agent_id"]) == (mesh, "api")
    assert ctl.run("agents", "get", mesh, "api", "-o", "json").json() == agent
    assert ctl.run("lookup", mesh, "api", "-o", "json").json()["agent_id"] == "api"
    assert ctl.run("lookup", mesh).code == 3
    assert ctl.run("explain", mesh, "--agent", "api", "-o", "json").json()["state"] == "registered"
    assert ctl.run("agents", "evict", mesh, "api", "--yes").code == 0
    assert ctl.run("agents", "get", mesh, "api").code == 3


def test_a_lookup_asks_as_an_agent_would(ctl: Ctl, mesh: str) -> None:
    register(ctl, mesh)
    found = ctl.run("lookup", mesh, "--output", "json").json()
    assert (found["pubkey"], found["endpoints"]) == (KEY, [ENDPOINT])
    missing = ctl.run("lookup", f"{mesh}-none")
    assert (missing.code, missing.out) == (3, "")
    assert missing.error() == f"no colony is registered for mesh '{mesh}-none'"


def test_a_watched_list_is_an_array_again_and_again(ctl: Ctl, mesh: str) -> None:
    with ctl.following(
        *("colonies", "list", "--prefix", mesh, "--watch", "--every", "1ms", "-o", "json")
    ) as process:
        assert [next_line(process) for _ in range(3)] == [[], [], []]


# -- Following -------------------------------------------------------------------------------------------


def test_a_watch_has_a_line_for_each_state(ctl: Ctl, mesh: str) -> None:
    with ctl.following("watch", mesh, "--output", "json") as process:
        assert next_line(process)["state"] == "absent"
        register(ctl, mesh)
        state = next_line(process)
        assert (state["state"], state["colony"]["pubkey"]) == ("registered", KEY)


def test_events_are_told_as_they_happen_and_only_those_asked_for(ctl: Ctl, mesh: str) -> None:
    with ctl.following(
        *("events", "--mesh", mesh, "--kind", "conflict", "--kind", "evicted", "-o", "json")
    ) as process:
        # The stream says nothing until something happens: conflicts are made until one is told.
        register(ctl, mesh)
        assert process.stdout is not None
        while not select.select([process.stdout], [], [], 0)[0]:
            assert register(ctl, mesh, OTHER_KEY).code == 5
        conflict = next_line(process)
        assert conflict["kind"] == "conflict"
        assert (conflict["mesh_id"], conflict["pubkey"], conflict["reason"]) == (
            mesh,
            OTHER_KEY,
            "MESH_ID_TAKEN",
        )
        ctl.run("colonies", "evict", mesh, "--yes")
        kinds = [conflict["kind"]]
        while kinds[-1] != "evicted":
            kinds.append(next_line(process)["kind"])
        assert set(kinds) == {"conflict", "evicted"}


# -- Explaining ------------------------------------------------------------------------------------------


def test_explain_tells_the_story_of_a_mesh(ctl: Ctl, mesh: str) -> None:
    def state() -> str:
        return str(ctl.run("explain", mesh, "--output", "json").json()["state"])

    assert state() == "never_seen"
    register(ctl, mesh)
    assert state() == "registered"
    register(ctl, mesh, OTHER_KEY)
    assert "because of MESH_ID_TAKEN from 127.0.0.1" in ctl.run("explain", mesh).out
    ctl.run("colonies", "evict", mesh, "--yes")
    story = ctl.run("explain", mesh).out.splitlines()
    assert story[0].startswith(f"Colony '{mesh}' was evicted by an administrator")
    assert [line.split()[1] for line in story if line.startswith("20")][:2] == [
        "registered",
        "conflict",
    ]


def test_explain_knows_what_was_perhaps_meant(ctl: Ctl, mesh: str) -> None:
    register(ctl, f"{mesh}-prod")
    assert f"Did you mean {mesh}-prod?" in ctl.run("explain", f"{mesh}-prd").out


# -- Acting ----------------------------------------------------------------------------------------------


async def test_evict_needs_a_yes(ctl: Ctl, mesh: str) -> None:
    register(ctl, mesh)
    refused = ctl.run("colonies", "evict", mesh)
    assert refused.code == 2
    assert "--yes" in refused.error()
    assert ctl.run("colonies", "evict", mesh, "--yes", "-o", "json").json()["evicted"] is True
    async with DiscoveryClient(ctl.url) as client:
        with pytest.raises(NotRegisteredError):
            await client.lookup_colony(mesh)
    assert ctl.run("colonies", "evict", mesh, "--yes").code == 3


def test_drain_stops_the_server_cleanly(tmp_path: Path) -> None:
    socket_path = f"unix:{tmp_path}/admin"
    with server_process(tmp_path, "--admin-listen", socket_path) as server:
        ctl = Ctl({"CORAL_DISCOVERY_ADMIN": socket_path}, server.url)
        assert ctl.run("drain").code == 0
        assert server.exit_code() == 0
        gone = ctl.run("status")
    assert gone.code == 4
    assert "cannot reach the admin API" in gone.error()


# -- Keys ------------------------------------------------------------------------------------------------


def test_a_key_that_was_made_opens_a_server_until_it_is_revoked(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    ctl = Ctl({"CORAL_DISCOVERY_KEYS_FILE": str(file)}, "")
    made = ctl.run("keys", "create", "ops", "--role", "admin", "--expires", "1h", "-o", "json")
    secret = made.json()["secret"]
    assert secret not in file.read_text()
    shown = ctl.run("keys", "create", "team", "--role", "register", "--mesh", "team-*")
    assert shown.out.startswith("coral_")
    assert secret not in ctl.run("keys", "list").out
    keys = ctl.run("keys", "list", "--output", "json").json()
    assert [(key["name"], key["meshes"]) for key in keys] == [("ops", ["*"]), ("team", ["team-*"])]
    assert ctl.run("keys", "create", "ops", "--role", "admin").code == 2
    assert ctl.run("keys", "revoke", "team").code == 0
    assert ctl.run("keys", "revoke", "team").code == 3
    assert len(ctl.run("keys", "list", "--output", "json").json()) == 1


def test_a_server_key_file_is_one_that_the_server_takes(tmp_path: Path) -> None:
    file = tmp_path / "server.keys"
    ctl = Ctl({}, "")
    assert ctl.run("server-key", "create", str(file)).code == 0
    made = ctl.run("server-key", "create", str(file), "-o", "json").json()
    assert len(made["older_public_keys"]) == 1
    assert ctl.run("server-key", "create", str(file), "--keep", "-1").code == 2


# -- Mistakes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments,code",
    [
        (("status", "--admin", "unix:"), 2),
        (("status", "--admin", "ftp://x"), 2),
        (("status", "--every", "5"), 2),
        (("status", "--ca-cert", "/nowhere", "--admin", "https://127.0.0.1:9"), 2),
        (("status", "--api-key", "a", "--api-key-file", "b"), 2),
        (("lookup", "m", "--server", "localhost"), 2),
        (("lookup", "-o", "xml", "m"), 2),
        (("colonies", "register", "m", "--endpoint", "192.0.2.1:1"), 2),
        (("colonies", "register", "m", "--endpoint", "nowhere", "--pubkey", "x"), 2),
        (("keys", "list", "--file", "/nowhere/keys"), 2),
        (("nonsense",), 2),
        (("lookup", "m", "--server", "http://127.0.0.1:9"), 4),
        (("check", "http://127.0.0.1:9"), 4),
    ],
)
def test_a_mistake_is_said_on_one_line_with_its_exit_code(
    ctl: Ctl, arguments: Sequence[str], code: int
) -> None:
    ended = ctl.run(*arguments)
    assert ended.code == code
    assert len(ended.errors.splitlines()) == 1


def test_an_address_that_serves_something_else_is_told(ctl: Ctl) -> None:
    wrong = ctl.run("status", "--admin", ctl.url)
    assert wrong.code == 4
    assert "does not serve the admin API" in wrong.error()


def test_a_server_that_asks_for_a_key_refuses_without_one_and_takes_one(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    keys = Ctl({}, "")
    made = keys.run("keys", "create", "all", "--role", "register", "--role", "lookup")
    assert made.code == 2  # no file was named
    options = ("--role", "register", "--role", "lookup", "--file", str(file))
    secret = keys.run("keys", "create", "all", *options).out.strip()
    with server_process(tmp_path, "--auth", "keys", "--keys-file", str(file)) as server:
        ctl = Ctl({"CORAL_DISCOVERY_ENDPOINT": server.url}, server.url)
        refused = ctl.run("lookup", "m")
        assert refused.code == 5
        assert "CORAL_API_KEY" in refused.error()
        assert ctl.run("lookup", "m", CORAL_API_KEY=secret).code == 3
        secret_file = tmp_path / "secret"
        secret_file.write_text(secret)
        assert ctl.run("lookup", "m", "--api-key-file", str(secret_file)).code == 3


def test_help_is_plain_and_every_command_names_the_exit_codes(ctl: Ctl) -> None:
    assert "Commands:" in ctl.run("--help").out
    for command in ("status", "top", "check", "explain"):
        assert "Exit codes: 0" in ctl.run(command, "--help").out
    assert ctl.run("--version").out == f"coral-discoveryctl {__version__}\n"


def test_a_reader_that_has_read_enough_makes_no_noise(ctl: Ctl) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = ctl.popen("status", stdout=writer)
    os.close(writer)
    assert process.communicate(timeout=PATIENCE)[1] == ""


# -- On a terminal ---------------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal that a command runs on."""

    def __init__(self, ctl: Ctl, *arguments: str, **variables: str) -> None:
        self.ours, theirs = pty.openpty()
        self.text = ""
        self.process = ctl.popen(
            *arguments,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            variables={"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30", **variables},
        )
        os.close(theirs)

    def until(self, text: str) -> None:
        """Read until `text` was shown."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.text:
            assert select.select([self.ours], [], [], deadline - time.monotonic())[0], self.text
            self._read()

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def end(self) -> int:
        """Read what is left until the command has ended, and return its exit code."""
        while self._read():
            pass
        os.close(self.ours)
        return self.process.wait(timeout=PATIENCE)

    def _read(self) -> bool:
        try:
            data = os.read(self.ours, 65536)
        except OSError:  # what Linux says when nobody has the other end any more
            return False
        self.text += data.decode()
        return bool(data)


@pytest.mark.parametrize("leave", ["q", "SIGINT"])
def test_top_shows_frames_until_it_is_left_and_restores_the_terminal(ctl: Ctl, leave: str) -> None:
    terminal = Terminal(ctl, "top", "--every", "50ms")
    terminal.until("memory, up for")
    if leave == "q":
        terminal.type("q")
    else:
        terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 0
    assert "\x1b[?1049l" in terminal.text, "it leaves the alternate screen"
    assert "\x1b[?25h" in terminal.text, "it shows the cursor again"


def test_top_is_one_frame_where_there_is_no_terminal(ctl: Ctl) -> None:
    register(ctl, "top-mesh")
    frame = ctl.run("top", "--every", "10ms")
    assert frame.code == 0
    assert "RegisterColony" in frame.out
    rates = ctl.run("top", "--every", "10ms", "-o", "json").json()["calls"]
    assert "RegisterColony" in {rate["method"] for rate in rates}


def test_evict_asks_on_a_terminal(ctl: Ctl, mesh: str) -> None:
    register(ctl, mesh)
    declining = Terminal(ctl, "colonies", "evict", mesh)
    declining.until("[y/N]")
    declining.type("n\n")
    assert declining.end() == 130
    assert ctl.run("lookup", mesh).code == 0
    agreeing = Terminal(ctl, "colonies", "evict", mesh)
    agreeing.until("[y/N]")
    agreeing.type("y\n")
    assert agreeing.end() == 0
    assert ctl.run("lookup", mesh).code == 3


def test_colours_are_shown_on_a_terminal_unless_they_are_unwanted(ctl: Ctl, mesh: str) -> None:
    coloured = Terminal(ctl, "explain", mesh)
    assert coloured.end() == 0
    assert "\x1b[1;31m" in coloured.text
    plain = Terminal(ctl, "explain", mesh, NO_COLOR="1")
    assert plain.end() == 0
    assert "31m" not in plain.text


def test_no_server_leads_to_a_name_on_a_port_that_nobody_has() -> None:
    with socket.socket() as nobody:
        nobody.bind((LOOPBACK, 0))
        ended = Ctl({}, "").run("status", "--admin", f"{LOOPBACK}:{nobody.getsockname()[1]}")
    assert ended.code == 4
    assert "Connection refused (--admin must name" in ended.error()
