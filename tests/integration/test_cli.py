"""`coral-discovery`, the installed command, as a shell or a service manager meets it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from discovery import __version__
from tests.integration.grpcio_client import Schema, grpcio_client
from tests.integration.support import (
    LOOPBACK,
    PATIENCE,
    clean_environment,
    run_command,
    script,
    server_process,
)
from tests.support import KEY, MESH

SETTINGS = {
    "host": "192.0.2.1",
    "port": "-1",
    "store": "cupboard",
    "ttl": "-1",
    "cleanup-interval": "-1",
    "drain-delay": "-1",
    "drain-timeout": "-1",
    "log-level": "loud",
    "log-format": "verse",
    "config": "nowhere.yaml",
}
"""Settings, each with a value that cannot work."""


def variable(setting: str) -> str:
    return "CORAL_DISCOVERY_" + setting.replace("-", "_").upper()


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """Return what a command said that could not do what it was told: one line, on stderr alone, and exit code 2."""
    assert result.returncode == 2, result
    assert not result.stdout
    [line] = result.stderr.splitlines()
    assert line.startswith("coral-discovery: ")
    return line


# -- What it prints -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_says_in_three_lines_that_it_serves_and_ends_cleanly_at_a_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    with server_process(tmp_path) as server:
        assert server.announcement == [
            f"Discovery Service v{__version__}",
            f"gRPC server listening on {LOOPBACK}:{server.port}",
            "Ready to accept registrations",
        ]
        server.signal(number)
        assert server.exit_code() == 0
        assert server.process.stdout
        assert not server.process.stdout.read()
    events = [json.loads(line)["event"] for line in server.log().splitlines()]
    assert events == ["serving", "draining", "stopped"]


def test_listens_on_every_address_unless_told_otherwise(tmp_path: Path) -> None:
    with server_process(tmp_path, "--host", "") as server:
        assert server.announcement[1] == f"gRPC server listening on :{server.port}"
        for address in (LOOPBACK, "::1") if has_ipv6() else (LOOPBACK,):
            socket.create_connection((address, server.port), timeout=PATIENCE).close()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_prints_an_ipv6_address_so_that_it_can_be_told_from_the_port(tmp_path: Path) -> None:
    with server_process(tmp_path, "--host", "::1") as server:
        assert server.announcement[1] == f"gRPC server listening on [::1]:{server.port}"


def test_logs_each_request_on_one_json_line(tmp_path: Path, schema: Schema) -> None:
    with server_process(tmp_path) as server, grpcio_client(schema, server.port) as client:
        client.call(
            "RegisterColony",
            mesh_id=MESH,
            pubkey=KEY,
            endpoints=["192.0.2.1:1"],
            metadata={"password": "hunter2"},
        )
    [line] = [json.loads(line) for line in server.log().splitlines() if '"request"' in line]
    assert line.keys() >= {"method", "mesh_id", "peer", "status", "ms", "timestamp", "level"}
    assert line["method"] == "RegisterColony"
    assert line["mesh_id"] == MESH
    assert line["peer"] == LOOPBACK
    assert line["status"] == "OK"
    assert "hunter2" not in server.log()


def test_logs_for_people_if_told_so(tmp_path: Path) -> None:
    with server_process(tmp_path, "--log-format", "console") as server:
        pass
    assert "serving" in server.log()
    assert not server.log().startswith("{")


def test_logs_only_what_matters_if_told_so(tmp_path: Path) -> None:
    with server_process(tmp_path, "--log-level", "error") as server:
        pass
    assert not server.log()


def test_prints_its_version() -> None:
    result = run_command("--version")
    assert (result.returncode, result.stdout) == (0, f"coral-discovery {__version__}\n")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_setting_and_its_variable(flag: str) -> None:
    result = run_command(flag)
    assert result.returncode == 0
    flags = set(re.findall(r"^  --([a-z-]+)", result.stdout, re.MULTILINE))
    assert flags > SETTINGS.keys()
    for setting in flags - {"version", "install-completion", "show-completion"}:
        assert variable(setting) in result.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--port", "-1"]])
def test_help_and_mistakes_do_not_wait_for_what_only_a_server_needs(arguments: list[str]) -> None:
    """What keeps `--help` fast, measured by what it loads: a stopwatch would measure the machine."""
    loaded = loaded_by(*arguments)
    assert "discovery.cli.server" in loaded
    packages = {name.partition(".")[0] for name in loaded}
    assert not packages & {"grpclib", "h2", "betterproto", "structlog", "asyncio", "rich", "yaml"}
    assert not loaded & {"discovery.server", "discovery.transport", "discovery.stores"}


def test_a_server_does_not_wait_for_what_draws_tracebacks() -> None:
    loaded = loaded_by("--host", "192.0.2.1")  # RFC 5737: nobody's address, so that it gives up
    assert {"discovery.server", "structlog"} <= loaded
    assert not {name for name in loaded if name.startswith("rich.")}


def loaded_by(*arguments: str) -> set[str]:
    """Return what modules `coral-discovery` loads until it is over."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", script("coral-discovery"), *arguments],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return {match[1] for match in re.finditer(r"\|\s+([\w.]+)$", result.stderr, re.MULTILINE)}


def test_prints_a_completion_script() -> None:
    result = run_command(
        "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert result.returncode == 0
    assert "complete -o default -F _coral_discovery_completion coral-discovery" in result.stdout


def test_completes_its_flags() -> None:
    result = run_command(
        _CORAL_DISCOVERY_COMPLETE="complete_bash",
        COMP_WORDS="coral-discovery --tt",
        COMP_CWORD="1",
    )
    assert (result.returncode, result.stdout.split()) == (0, ["--ttl"])


# -- Settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_has_its_variable(setting: str) -> None:
    """Seen by what it says of a value that cannot work."""
    line = complaint(run_command(**{variable(setting): SETTINGS[setting]}))
    assert SETTINGS[setting] in line


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file that says of everything what cannot work."""
    path = tmp_path / "settings.yaml"
    path.write_text("ttl: -3\nlog_level: file\ncleanup-interval: -3\n")
    return path


def test_a_flag_comes_before_a_variable_and_that_before_the_file(config: Path) -> None:
    line = complaint(
        run_command(
            "--config",
            str(config),
            "--ttl=-1",
            CORAL_DISCOVERY_TTL="-2",
            CORAL_DISCOVERY_CLEANUP_INTERVAL="-2",
        )
    )
    assert re.search(r"ttl [^;]* not -1(;|$)", line)
    assert re.search(r"cleanup-interval [^;]* not -2(\.0)?(;|$)", line)
    assert re.search(r"log[-_]level [^;]* not 'file'(;|$)", line)


def test_the_file_may_be_named_by_its_variable(config: Path) -> None:
    assert "ttl" in complaint(run_command(CORAL_DISCOVERY_CONFIG=str(config)))


def test_what_the_file_says_is_done(tmp_path: Path, schema: Schema) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("ttl: 77\nlog-level: debug\n")
    with (
        server_process(tmp_path, "--config", str(path)) as server,
        grpcio_client(schema, server.port) as client,
    ):
        reply = client.call("RegisterColony", mesh_id=MESH, pubkey=KEY, endpoints=["192.0.2.1:1"])
    assert reply.ttl == 77


# -- What cannot work -----------------------------------------------------------------------------


@pytest.mark.parametrize("host", [LOOPBACK, ""])
def test_a_port_that_is_taken(host: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        line = complaint(run_command("--host", host, "--port", str(port)))
    assert f"port {port} is already in use" in line
    assert "--port" in line


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("--ttl 0", "ttl must be"),
        ("--ttl soon", "--ttl"),
        ("--port 65536", "port must be"),
        ("--store cupboard", "use --store memory"),
        ("--log-level loud", "'debug'"),
        ("--drain-timeout nan", "drain-timeout must be"),
        ("--host 192.0.2.1", "choose another with --host"),
        ("--host no..name", "choose another with --host"),
        ("--speed 11", "No such option"),
        ("serve", "unexpected extra argument"),
        ("--ttl", "requires an argument"),
    ],
)
def test_what_cannot_work_is_said_on_one_line(arguments: str, words: str) -> None:
    assert words in complaint(run_command("--port", "0", *arguments.split()))


def test_what_cannot_work_is_said_on_one_line_whatever_the_side_port_does() -> None:
    """An empty variable counts as none, so that this is the one test with the side port as people have it."""
    line = complaint(
        run_command("--port", "0", "--host", "192.0.2.1", CORAL_DISCOVERY_METRICS_PORT="")
    )
    assert "choose another with --host" in line


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "cannot read"),
        ("- 1\n- 2\n", "must hold a mapping"),
        ("port: {\n", "is not YAML"),
        ("porte: 1\n", "porte is not a setting; known are host, port"),
        ("ttl: true\nport: -1\n", "not True"),
    ],
    ids=["none", "list", "no YAML", "unknown", "wrong type"],
)
def test_a_file_that_cannot_work_is_said_on_one_line(
    tmp_path: Path, content: str | None, words: str
) -> None:
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_text(content)
    assert words in complaint(run_command("--config", str(path)))
