"""What deploy/docker promises, as far as it can be read. `.ci/image.sh` builds the image and runs the services."""

from __future__ import annotations

import http.server
import json
import re
import runpy
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.support import LOOPBACK, running

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
HEALTH_CHECK = DOCKER / "healthcheck.py"


def instructions(name: str) -> list[str]:
    """Return the arguments of an instruction, each time that the Dockerfile has it, with its lines joined."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in text.splitlines() if line.split()[:1] == [name]]


# -- The image ------------------------------------------------------------------------------------


def test_all_stages_have_the_same_base_which_is_pinned() -> None:
    bases = {re.sub(r"--platform=\S+ | AS \w+$", "", line) for line in instructions("FROM")}

    [base] = bases
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base)


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    assert instructions("USER") == ["65532:65532"]


@pytest.mark.parametrize("name", ["ENTRYPOINT", "HEALTHCHECK"])
def test_what_the_image_runs_needs_no_shell(name: str) -> None:
    [line] = instructions(name)

    assert json.loads(line[line.index("[") :])


def test_the_image_says_which_ports_the_server_has_by_default() -> None:
    from discovery.config import ServerSettings

    settings = ServerSettings()
    assert instructions("EXPOSE") == [f"{settings.port} {settings.metrics_port}"]
    assert settings.host == "", "in a container the loopback is nobody's"


def test_what_the_image_copies_is_let_through_to_it() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines()}

    for line in instructions("COPY"):
        *sources, _ = [word for word in line.split() if not word.startswith("--")]
        if "--from=" not in line and sources != ["."]:
            assert let_through.issuperset(sources)
    assert all((ROOT / path).exists() for path in let_through if path[:1].isalpha())


# -- The health check -----------------------------------------------------------------------------


def check(port: int, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return the exit code of the image's health check for a side port."""
    monkeypatch.setenv("CORAL_DISCOVERY_METRICS_PORT", str(port))
    return runpy.run_path(str(HEALTH_CHECK))["main"]()


@pytest.fixture
def unwell() -> Iterator[int]:
    """A server that answers 503 to everything; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


async def test_a_server_that_runs_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from tests.redis.servers import free_port

    port = free_port()
    async with running(metrics_port=port):
        assert await asyncio.to_thread(check, port, monkeypatch) == 0


def test_a_server_that_is_unwell_is_not_healthy(
    unwell: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check(unwell, monkeypatch) == 1


def test_a_server_that_is_gone_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.redis.servers import free_port

    assert check(free_port(), monkeypatch) == 1


# -- The services ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return loaded


def test_no_service_can_change_itself_or_gain_a_privilege(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert "cap_add" not in service, name


def test_every_service_has_limits_and_a_health_check(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert {"memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        # The image of ours has its own.
        test = service.get("healthcheck", {}).get("test", ["CMD"])
        assert test[0] == "CMD", f"{name} needs a shell"
        assert name == "discovery" or "healthcheck" in service, name


def test_every_image_of_others_is_pinned(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        tag = service["image"].rpartition(":")[2]
        assert name == "discovery" or re.match(r"v?\d+\.\d+", tag), name


def test_the_public_port_is_the_only_one_for_others(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]

    assert [port for port in ports if not port.startswith("127.0.0.1:")] == ["8080:8080"]


def test_the_replicas_are_three_on_a_store_that_only_they_reach(compose: dict[str, Any]) -> None:
    services = compose["services"]

    assert services["discovery"]["deploy"]["replicas"] == 3
    assert compose["networks"]["store"]["internal"] is True
    assert {name for name, one in services.items() if "store" in one["networks"]} == {
        "discovery",
        "valkey",
    }


def test_every_setting_is_one_that_the_server_has(compose: dict[str, Any]) -> None:
    from discovery.config import ServerSettings

    for variable in compose["services"]["discovery"]["environment"]:
        name = variable.removeprefix("CORAL_DISCOVERY_").lower()
        assert name in {*ServerSettings.model_fields, "config"}


def test_a_stop_is_waited_for_until_the_drain_is_over(compose: dict[str, Any]) -> None:
    from discovery.config import ServerSettings

    service = compose["services"]["discovery"]
    drain = float(service["environment"]["CORAL_DISCOVERY_DRAIN_DELAY"])
    grace = float(service["stop_grace_period"].removesuffix("s"))
    assert grace > drain + ServerSettings().drain_timeout


def test_the_balancer_leaves_a_replica_before_it_refuses_calls(compose: dict[str, Any]) -> None:
    [line] = [
        line
        for line in (DOCKER / "haproxy" / "haproxy.cfg").read_text().splitlines()
        if "default-server" in line and "fall 1" in line
    ]
    interval = re.search(r"inter (\d+)s", line)
    assert interval is not None
    drain = compose["services"]["discovery"]["environment"]["CORAL_DISCOVERY_DRAIN_DELAY"]
    assert float(drain) > 2 * float(interval[1])


def test_every_file_that_is_mounted_is_here(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DOCKER / source).exists() if source[0] == "." else source in compose["volumes"]


# -- The passwords --------------------------------------------------------------------------------


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    shutil.copy(DOCKER / "make-secrets.sh", tmp_path)
    make_secrets(tmp_path)
    return tmp_path / "secrets"


def make_secrets(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(folder / "make-secrets.sh")]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_every_secret_is_made(secrets: Path, compose: dict[str, Any]) -> None:
    assert {path.name for path in secrets.iterdir()} == set(compose["secrets"])


def test_others_cannot_reach_the_secrets_but_a_container_can(secrets: Path) -> None:
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o644}


def test_the_server_and_the_store_have_the_same_password(secrets: Path) -> None:
    url = yaml.safe_load((secrets / "discovery.yaml").read_text())["store"]
    password = re.fullmatch(r"redis://coral:([0-9a-f]{48})@valkey:6379/0", url)

    assert password is not None
    assert f"user coral on >{password[1]} " in (secrets / "valkey.acl").read_text()


def test_passwords_that_are_in_use_are_not_made_anew(secrets: Path) -> None:
    before = {path: path.read_bytes() for path in secrets.iterdir()}

    again = make_secrets(secrets.parent)

    assert again.returncode == 1
    assert "already" in again.stderr
    assert {path: path.read_bytes() for path in secrets.iterdir()} == before


def test_the_secrets_are_never_committed() -> None:
    assert "/secrets/" in (DOCKER / ".gitignore").read_text().splitlines()


# -- Tools of others ------------------------------------------------------------------------------
