"""What an operator installs for systemd: the units, and the files that they name."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from discovery.cli import coral as coral_cli
from discovery.cli import server as server_cli
from discovery.config import ServerSettings, load_settings
from discovery.runners.settings import load_coral_settings

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
SERVER = "coral-discovery.service"
COLONY = "coral-colony@.service"
INSTALLED = "/opt/coral-discovery/bin/"

# -- Reading them ---------------------------------------------------------------------------------


def directives(unit: str) -> dict[str, list[str]]:
    """Return what each directive of the unit is given, in order."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / unit).read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def command(unit: str) -> list[str]:
    [line] = directives(unit)["ExecStart"]
    return shlex.split(line)


def flags_of(application: typer.Typer, *path: str) -> set[str]:
    found: Any = typer.main.get_command(application)
    for name in path:
        found = found.commands[name]
    return {flag for option in found.params for flag in option.opts}


def uncommented(name: str) -> str:
    """Return a sample of settings with all that it offers."""
    return re.sub(r"(?m)^( *)#(?=\S)", r"\1", (FOLDER / name).read_text())


def seconds(text: str) -> float:
    amount, unit = re.fullmatch(r"(\d+)(s|min)", text, re.ASCII).groups()  # type: ignore[union-attr]
    return int(amount) * {"s": 1, "min": 60}[unit]


# -- The commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit, program, application, path",
    [
        (SERVER, "coral-discovery", server_cli.app, ()),
        (COLONY, "coral", coral_cli.app, ("colony", "start")),
    ],
)
def test_what_is_started_exists_and_knows_its_flags(
    unit: str, program: str, application: typer.Typer, path: tuple[str, ...]
) -> None:
    executable, *words = command(unit)
    assert executable == INSTALLED + program
    assert shutil.which(program, path=sysconfig.get_path("scripts"))
    assert tuple(words[: len(path)]) == path
    flags = {word for word in words if word.startswith("-")}
    assert flags
    assert flags <= flags_of(application, *path)


@pytest.mark.parametrize(
    "unit, sample, folder",
    [(SERVER, "config.yaml", "/etc/coral-discovery"), (COLONY, "my-app-prod.yaml", "/etc/coral")],
)
def test_the_settings_that_it_reads_are_shipped_and_its_folder_is_made(
    unit: str, sample: str, folder: str
) -> None:
    words = command(unit)
    config = words[words.index("--config") + 1].replace("%i", "my-app-prod")
    assert config == f"{folder}/{sample}"
    assert config in (FOLDER / sample).read_text()
    tmpfiles = unit.replace("@", "").replace(".service", ".tmpfiles.conf")
    [group] = directives(unit)["Group"]
    [mode] = directives(unit)["ConfigurationDirectoryMode"]
    assert f"d {folder} {mode} root {group} -" in (FOLDER / tmpfiles).read_text().splitlines()


@pytest.mark.parametrize("unit", [SERVER, COLONY])
def test_its_user_is_made(unit: str) -> None:
    [user] = directives(unit)["User"]
    sysusers = unit.replace("@", "").replace(".service", ".sysusers.conf")
    assert any(
        line.startswith(f"u {user} - ") for line in (FOLDER / sysusers).read_text().splitlines()
    )


def test_every_file_is_named_by_another_or_tells_where_it_belongs() -> None:
    for path in FOLDER.iterdir():
        first = path.read_text().splitlines()[0]
        assert path.suffix == ".service" or "/etc/" in first, path.name


# -- The settings ---------------------------------------------------------------------------------


def test_the_servers_sample_is_accepted(tmp_path: Path) -> None:
    assert load_settings({}, FOLDER / "config.yaml").port == 8080


def test_the_servers_sample_is_accepted_with_all_that_it_offers(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(uncommented("config.yaml"))
    settings = load_settings({}, file)
    assert settings.auth == "keys"
    assert settings.tls_cert is not None
    offered = yaml.safe_load(file.read_text()).keys()
    assert offered > yaml.safe_load((FOLDER / "config.yaml").read_text()).keys()
    assert offered <= ServerSettings.model_fields.keys()


def test_the_colonys_sample_is_accepted_with_all_that_it_offers(tmp_path: Path) -> None:
    given = {"mesh_id": "my-app-prod"}
    assert load_coral_settings(given, FOLDER / "my-app-prod.yaml").wireguard.port == 41820
    file = tmp_path / "my-app-prod.yaml"
    file.write_text(uncommented("my-app-prod.yaml"))
    assert load_coral_settings(given, file).join_token_file == Path("/etc/coral/token")


def paths_in(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from paths_in(each)
    elif isinstance(value, str):
        yield from re.findall(r"/(?:etc|run|var)/\S+", value)


@pytest.mark.parametrize("unit, sample", [(SERVER, "config.yaml"), (COLONY, "my-app-prod.yaml")])
def test_the_files_that_the_samples_name_are_in_folders_of_the_unit(unit: str, sample: str) -> None:
    roots = {
        "ConfigurationDirectory": "/etc",
        "RuntimeDirectory": "/run",
        "LogsDirectory": "/var/log",
        "StateDirectory": "/var/lib",
    }
    known = directives(unit)
    folders = {f"{root}/{known[name][0]}" for name, root in roots.items() if name in known}
    found = list(paths_in(yaml.safe_load(uncommented(sample))))
    assert found
    assert {str(Path(path).parent) for path in found} <= folders


def test_a_stop_has_time_to_drain() -> None:
    settings = load_settings({}, FOLDER / "config.yaml")
    [allowed] = directives(SERVER)["TimeoutStopSec"]
    assert seconds(allowed) >= settings.drain_delay + settings.drain_timeout + 10


def test_there_are_files_for_all_connections() -> None:
    [files] = directives(SERVER)["LimitNOFILE"]
    assert int(files) > ServerSettings().max_connections * 1.1


def test_the_log_that_is_rotated_is_the_one_that_is_written() -> None:
    audit_log = load_settings({}, FOLDER / "config.yaml").audit_log
    assert f"{audit_log} {{" in (FOLDER / "coral-discovery.logrotate").read_text().splitlines()


# -- What systemd says of them --------------------------------------------------------------------


Analyze = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def analyze() -> Analyze:
    program = shutil.which("systemd-analyze")
    if program is None:
        if "CI" in os.environ:
            pytest.fail("systemd-analyze is missing: it is in Debian's package systemd")
        pytest.skip("there is no systemd-analyze here")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Return a folder with the units, whose programs are those of this Python."""
    here = sysconfig.get_path("scripts") + "/"
    for unit in (SERVER, COLONY):
        (tmp_path / unit).write_text((FOLDER / unit).read_text().replace(INSTALLED, here))
    return tmp_path


@pytest.mark.parametrize("unit", [SERVER, COLONY.replace("@", "@my-app-prod")])
def test_the_units_have_no_mistakes(analyze: Analyze, units: Path, unit: str) -> None:
    done = analyze("verify", "--man=no", "--recursive-errors=no", str(units / unit))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", [SERVER, COLONY])
def test_the_units_are_exposed_by_less_than_2_5(analyze: Analyze, unit: str) -> None:
    done = analyze("security", "--offline=true", "--no-pager", "--threshold=24", str(FOLDER / unit))
    assert "Overall exposure level" in done.stdout
    assert done.returncode == 0, done.stdout
