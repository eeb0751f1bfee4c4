"""`coral`, as somebody types it, where no tunnel can be made; those are in tests/e2e."""

from __future__ import annotations

import json
import signal
import subprocess
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from discovery import __version__
from discovery.cli.coral import main
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
from tests.support import KEY, MESH, registration

TOKEN = "a secret of some length"
NOWHERE = "http://127.0.0.1:9"


@dataclass
class Ended:
    code: int
    lines: Sequence[str]
    errors: Sequence[str]

    def events(self) -> list[Mapping[str, Any]]:
        return [json.loads(line) for line in self.lines]


class Coral:
    """Runs `coral` with a state folder of its own, against one server."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def _popen(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        environment = clean_environment(
            XDG_STATE_HOME=str(self.folder),
            CORAL_DISCOVERY_ENDPOINT=self.url,
            CORAL_WIREGUARD="off",
        )
        return subprocess.Popen(
            [script("coral"), *arguments],
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> Ended:
        process = self._popen(*arguments, **variables)
        out, err = process.communicate(timeout=2 * PATIENCE)
        return Ended(process.returncode, out.splitlines(), err.splitlines())

    @contextmanager
    def running(self, *arguments: str, until: str, **variables: str) -> Iterator[Ended]:
        """Run it until a line begins so, then the block, then until a SIGTERM ends it."""
        process = self._popen(*arguments, **variables)
        assert process.stdout is not None
        ended = Ended(-1, [], [])
        try:
            lines: list[str] = []
            while not (lines and lines[-1].startswith(until)):
                line = process.stdout.readline()
                assert line, (lines, process.communicate()[1])
                lines.append(line.rstrip("\n"))
            ended.lines = lines
            yield ended
        finally:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=PATIENCE)
        ended.code = process.returncode
        ended.lines = [*lines, *out.splitlines()]
        ended.errors = err.splitlines()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server_process(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def url(server: ServerProcess) -> str:
    return f"http://{LOOPBACK}:{server.port}"


@pytest.fixture
def coral(tmp_path: Path, url: str) -> Coral:
    return Coral(tmp_path / "state", url)


@pytest.fixture
def mesh(request: pytest.FixtureRequest) -> str:
    """A mesh for each test: they share one server."""
    return f"mesh-{zlib.crc32(request.node.name.encode())}"


# -- A colony --------------------------------------------------------------------------------------------


async def test_a_colony_registers_while_it_runs_and_prints_the_rfds_lines(
    coral: Coral, url: str, mesh: str
) -> None:
    words = "colony", "start", "--mesh-id", mesh, "--endpoint", "203.0.113.42"
    async with DiscoveryClient(url) as client:
        with coral.running(*words, until="Endpoints: ") as colony:
            lease = await client.lookup_colony(mesh)
        assert colony.lines == [
            "Colony started",
            "Registered with discovery service via gRPC",
            f"Mesh ID: {mesh}",
            "Endpoints: [203.0.113.42:41820]",
        ]
        assert (colony.code, colony.errors) == (0, [])
        assert lease.registration.endpoints == ("203.0.113.42:41820",)
        with pytest.raises(NotRegisteredError):
            await client.lookup_colony(mesh)


def test_a_colonys_key_stays_and_is_for_its_owner_alone(coral: Coral, mesh: str) -> None:
    keys = set()
    for _ in range(2):
        words = "colony", "start", "--mesh-id", mesh, "--output", "json"
        with coral.running(*words, until='{"event": "registered"') as colony:
            pass
        keys.add(colony.events()[0]["pubkey"])
    [file] = coral.folder.rglob("colony.key")
    assert len(keys) == 1
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_key_that_others_can_read_is_refused(coral: Coral, mesh: str, tmp_path: Path) -> None:
    file = tmp_path / "colony.key"
    file.write_text("x")
    file.chmod(0o644)
    ended = coral.run("colony", "start", "--mesh-id", mesh, "--key-file", str(file))
    assert ended.code == 2
    assert f"chmod 600 {file}" in ended.errors[-1]


async def test_a_mesh_that_is_taken_is_told_and_does_not_stop_the_colony(
    coral: Coral, url: str, mesh: str
) -> None:
    async with DiscoveryClient(url) as client:
        await client.register_colony(registration(mesh_id=mesh, pubkey=KEY))
    words = "colony", "start", "--mesh-id", mesh, "--output", "json"
    with coral.running(*words, until='{"event": "refused"') as colony:
        pass
    assert colony.code == 0
    refused = colony.events()[-1]
    assert refused["reason"] == "MESH_ID_TAKEN"
    assert "already registered with another public key" in refused["message"]


def test_a_discovery_that_is_away_does_not_stop_a_colony(coral: Coral, mesh: str) -> None:
    words = "colony", "start", "--mesh-id", mesh, "--output", "json"
    with coral.running(
        *words, until='{"event": "retrying"', CORAL_DISCOVERY_ENDPOINT=NOWHERE
    ) as colony:
        pass
    assert colony.code == 0
    assert [event["event"] for event in colony.events()] == ["started", "retrying"]


# -- An agent --------------------------------------------------------------------------------------------


async def test_an_agent_finds_its_colony_and_registers_while_it_runs(
    coral: Coral, url: str, mesh: str
) -> None:
    async with DiscoveryClient(url) as client:
        await client.register_colony(registration(mesh_id=mesh))
        words = "connect", "api", "--mesh-id", mesh
        with coral.running(*words, until="Found colony") as agent:
            for _ in range(1000):
                listed = [lease async for lease in client.list_agents(mesh)]
                if listed:
                    break
        assert agent.lines == [f"Looking up colony {mesh}...", "Found colony at 203.0.113.5:41820"]
        assert agent.code == 0
        [lease] = listed
        assert lease.registration.agent_id == "api"
        assert [lease async for lease in client.list_agents(mesh)] == []


async def test_what_was_found_is_known_when_discovery_is_away(
    coral: Coral, url: str, mesh: str
) -> None:
    async with DiscoveryClient(url) as client:
        await client.register_colony(registration(mesh_id=mesh))
    words = "connect", "api", "--mesh-id", mesh, "--print-config", "--timeout", "5s"
    first = coral.run(*words)
    again = coral.run(*words, CORAL_DISCOVERY_ENDPOINT=NOWHERE)
    assert (first.code, again.code) == (0, 0)
    assert again.lines == first.lines
    assert f"Endpoint = {registration().endpoints[0]}" in again.lines
    assert any("using what was last known" in line for line in again.errors)


@pytest.mark.parametrize(
    "where, code, words",
    [("", 3, "no colony is registered for mesh"), (NOWHERE, 4, "cannot reach")],
)
def test_a_colony_that_is_not_found_has_its_exit_code(
    coral: Coral, mesh: str, where: str, code: int, words: str
) -> None:
    ended = coral.run(
        *("connect", "api", "--mesh-id", mesh, "--timeout", "200ms"),
        CORAL_DISCOVERY_ENDPOINT=where or coral.url,
    )
    assert ended.code == code
    assert ended.lines == [f"Looking up colony {mesh}..."]
    assert words in ended.errors[-1]


async def test_a_configuration_is_printed_and_nothing_else(
    coral: Coral, url: str, mesh: str
) -> None:
    async with DiscoveryClient(url) as client:
        await client.register_colony(registration(mesh_id=mesh))
    words = "connect", "api", "--mesh-id", mesh, "--print-config", "--join-token", TOKEN
    config = coral.run(*words).lines
    assert config[0] == "[Interface]"
    assert f"PublicKey = {KEY}" in config
    assert "Endpoint = 203.0.113.5:41820" in config
    assert any(line.startswith("PresharedKey = ") for line in config)


# -- Usage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, complaint",
    [
        ("colony start", "--mesh-id is missing"),
        ("colony start --mesh-id a/b", "--mesh-id may hold only"),
        ("colony start --mesh-id m --port 65536", "--port must be"),
        ("colony start --mesh-id m --discovery-endpoint ftp://x", "is not an http"),
        (
            "colony start --mesh-id m --register-interval 60",
            "--register-interval must be a duration",
        ),
        ("colony start --mesh-id m --join-token short", "at least 16 characters"),
        ("colony start --mesh-id m --join-token-file nowhere", "--join-token-file: cannot read"),
        ("colony start --mesh-id m --ca-cert nowhere", "cannot use nowhere for TLS"),
        ("colony start --mesh-id m --config nowhere", "cannot read nowhere"),
        ("connect --mesh-id m", "Missing argument 'NAME'"),
        ("connect a/b --mesh-id m", "NAME may hold only"),
        ("connect a --mesh-id m --timeout soon", "--timeout must be a duration"),
        ("connect a --mesh-id m --colony-endpoint x:1", "go together"),
        ("connect a --mesh-id m --once --wireguard off", "--once connects"),
        ("connect a --mesh-id m --colony-endpoint x --colony-pubkey y", "--colony-pubkey must be"),
    ],
)
def test_what_cannot_work_is_told_on_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    complaint: str,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["coral", *words.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    [line] = said.err.splitlines()
    assert complaint in line


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("discovery:\n  mesh_id: m\n  register_intervall: 60s\n", ":3: register_intervall is not"),
        ("discovery:\n  timeout: 10\n", ":2: discovery.timeout must be a duration"),
        ("mesh_id: m\n", ":1: mesh_id is not a setting"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(
    coral: Coral, tmp_path: Path, content: str, complaint: str
) -> None:
    file = tmp_path / "coral.yaml"
    file.write_text(content)
    ended = coral.run("colony", "start", "--mesh-id", "m", "--config", str(file))
    assert ended.code == 2
    assert f"{file}{complaint}" in ended.errors[0]


def test_flags_come_before_variables_and_those_before_the_file(
    coral: Coral, tmp_path: Path
) -> None:
    file = tmp_path / "coral.yaml"
    file.write_text("discovery: {mesh_id: from-file, endpoint: [http://127.0.0.1:9]}\n")
    words = "connect", "api", "--timeout", "50ms", "--config", str(file)
    looked_up = [
        coral.run(*words).lines[0],
        coral.run(*words, CORAL_MESH_ID="from-variable").lines[0],
        coral.run(*words, "--mesh-id", "from-flag", CORAL_MESH_ID="from-variable").lines[0],
    ]
    assert looked_up == [
        f"Looking up colony from-{source}..." for source in ("file", "variable", "flag")
    ]


def test_a_secret_is_in_no_message(coral: Coral, tmp_path: Path) -> None:
    file = tmp_path / "coral.yaml"
    file.write_text(f"join_token: [{TOKEN}]\n")
    ended = coral.run("colony", "start", "--mesh-id", MESH, "--config", str(file))
    assert ended.code == 2
    assert TOKEN not in ended.errors[0]


@pytest.mark.parametrize("words", ["--help", "colony start --help", "connect --help", "--version"])
def test_help_and_version_are_there(coral: Coral, words: str) -> None:
    ended = coral.run(*words.split(), COLUMNS="100")
    assert (ended.code, ended.errors) == (0, [])
    first = f"coral {__version__}" if words == "--version" else "Usage: coral "
    assert ended.lines[0].startswith(first)
