"""Settings: flags come before the file, the file before the defaults, and what cannot work is said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from discovery.config import ServerSettings, load_settings
from discovery.errors import ConfigError
from tests.support import shown

THIRTY_DAYS = 30 * 24 * 3600


def _file(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "coral.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _refusal(given: dict[str, Any], path: Path | None = None) -> str:
    """Return what is said of settings that cannot work: one line."""
    with pytest.raises(ConfigError) as refusal:
        load_settings(given, path)
    message = str(refusal.value)
    assert "\n" not in message
    return message


# Where a value comes from


def test_without_anything_there_are_the_defaults() -> None:
    settings = load_settings({})

    assert settings == ServerSettings()
    assert (settings.port, settings.ttl, settings.cleanup_interval) == (8080, 300, 60)
    assert (settings.host, settings.store, settings.drain_timeout) == ("", "memory", 10)
    assert (settings.log_level, settings.log_format) == ("info", None)


def test_the_file_comes_before_the_defaults(tmp_path: Path) -> None:
    settings = load_settings({}, _file(tmp_path, "port: 9000\nlog_level: debug\n"))

    assert settings == ServerSettings(port=9000, log_level="debug")


def test_what_is_given_comes_before_the_file(tmp_path: Path) -> None:
    settings = load_settings({"port": 9001}, _file(tmp_path, "port: 9000\nttl: 60\n"))

    assert settings == ServerSettings(port=9001, ttl=60)


def test_what_is_given_hides_what_the_file_has_wrong(tmp_path: Path) -> None:
    assert load_settings({"port": 9001}, _file(tmp_path, "port: -1\n")).port == 9001


@pytest.mark.parametrize("name", ["log-level", "log_level"])
def test_the_file_may_spell_settings_as_the_flags_do(tmp_path: Path, name: str) -> None:
    assert load_settings({}, _file(tmp_path, f"{name}: debug\n")).log_level == "debug"


@pytest.mark.parametrize("content", ["", "\n", "# nothing\n", "---\n", "{}\n", "null\n"])
def test_an_empty_file_says_nothing(tmp_path: Path, content: str) -> None:
    assert load_settings({}, _file(tmp_path, content)) == ServerSettings()


def test_every_setting_may_be_in_the_file(tmp_path: Path) -> None:
    content = """
        host: 127.0.0.1
        port: 0
        store: memory
        ttl: 60
        cleanup-interval: 0.5
        drain-timeout: 0
        log-level: error
        log-format: json
    """

    assert load_settings({}, _file(tmp_path, content)) == ServerSettings(
        host="127.0.0.1",
        port=0,
        store="memory",
        ttl=60,
        cleanup_interval=0.5,
        drain_timeout=0,
        log_level="error",
        log_format="json",
    )


# Files that cannot be read


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing.yaml"

    assert str(path) in _refusal({}, path)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    assert str(tmp_path) in _refusal({}, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "port: [",
        "port: 1: 2",
        "\tport: 1",
        "a: *nowhere",
        "port: !!python/object/apply:os.getpid []",
        "? [port]\n: 1",
        b"port: \xff",
        b"\x00",
        "port: 2001-99-99",
        "port: " + "9" * 5000,
    ],
    ids=shown,
)
def test_a_file_that_is_not_yaml_is_named(tmp_path: Path, content: str | bytes) -> None:
    path = _file(tmp_path, content)

    assert str(path) in _refusal({}, path)


@pytest.mark.parametrize(
    "content", ["[port, 8080]", "port", "8080", "- port: 8080", "[]", "false", "0", "''"]
)
def test_a_file_that_holds_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = _file(tmp_path, content)

    assert _refusal({}, path) == f"{path} must hold a mapping of settings, as in `name: value`"


# Values


@pytest.mark.parametrize("name", ["prot", "Port", "metrics", "1"])
def test_a_setting_that_does_not_exist_is_refused_with_those_that_do(
    tmp_path: Path, name: str
) -> None:
    path = _file(tmp_path, f"ttl: 1\n{name}: 1")
    for place, message in (("", _refusal({name: 1})), (f"{path}:2: ", _refusal({}, path))):
        assert message.startswith(f"{place}{name} is not a setting; known are host, port, store")


@pytest.mark.parametrize(
    "name, value",
    [
        ("port", 0),
        ("port", 65535),
        ("ttl", 1),
        ("ttl", THIRTY_DAYS),
        ("cleanup_interval", 0.001),
        ("cleanup_interval", THIRTY_DAYS),
        ("drain_delay", 0),
        ("drain_delay", 3600),
        ("drain_timeout", 0),
        ("drain_timeout", 3600),
        ("log_level", "debug"),
        ("log_level", "warning"),
        ("log_format", "console"),
        ("log_format", None),
        ("host", "::1"),
    ],
)
def test_a_value_within_its_bounds_is_taken(name: str, value: object) -> None:
    assert getattr(load_settings({name: value}), name) == value


@pytest.mark.parametrize(
    "name, value",
    [
        ("port", -1),
        ("port", 65536),
        ("port", 80.5),
        ("port", "http"),
        ("port", None),
        ("port", True),
        ("ttl", 0),
        ("ttl", -1),
        ("ttl", THIRTY_DAYS + 1),
        ("ttl", 0.5),
        ("ttl", True),
        ("cleanup_interval", 0),
        ("cleanup_interval", -1),
        ("cleanup_interval", THIRTY_DAYS + 1),
        ("cleanup_interval", float("inf")),
        ("cleanup_interval", float("nan")),
        ("cleanup_interval", True),
        ("drain_delay", -0.001),
        ("drain_delay", 3601),
        ("drain_timeout", -0.001),
        ("drain_timeout", 3601),
        ("drain_timeout", float("nan")),
        ("log_level", "INFO"),
        ("log_level", "trace"),
        ("log_level", ""),
        ("log_format", "xml"),
        ("host", 1),
        ("host", None),
        ("store", ["memory"]),
    ],
    ids=shown,
)
def test_a_value_that_cannot_work_is_named_with_its_setting(name: str, value: object) -> None:
    message = _refusal({name: value})

    assert message.startswith(f"--{name.replace('_', '-')} must ")
    assert message.endswith(f"not {value!r}")


def test_every_value_that_cannot_work_is_named() -> None:
    message = _refusal({"port": -1, "ttl": 0, "log_level": "loud"})

    assert [part.split()[0] for part in message.split("; ")] == ["--port", "--ttl", "--log-level"]


def test_a_value_of_the_file_that_cannot_work_is_named_with_its_line(tmp_path: Path) -> None:
    path = _file(tmp_path, "ttl: 60\n\nlog-level: loud\n")

    message = _refusal({"port": 1}, path)

    assert message.startswith(f"{path}:3: log_level must be 'debug', ")
    assert message.endswith("not 'loud'")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_settings({}).port = 1


# Workers


REDIS = "redis://127.0.0.1:6379/0"


def test_more_workers_than_one_need_a_store_that_they_share() -> None:
    assert ServerSettings(workers=1).worker_count == 1
    assert ServerSettings(workers=3, store=REDIS).worker_count == 3
    for workers in (0, 2):
        said = _refusal({"workers": workers})
        assert said.startswith(f"workers {workers} needs a Redis store (store redis://")


@pytest.mark.parametrize("cores", [1, 4])
def test_no_number_of_workers_is_one_for_each_core(
    monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert ServerSettings(workers=0, store=REDIS).worker_count == cores


@pytest.mark.parametrize("metrics_port, fits", [(0, True), (65533, True), (65534, False)])
def test_there_is_a_side_port_for_each_worker(metrics_port: int, fits: bool) -> None:
    given = {"workers": 3, "store": REDIS, "metrics_port": metrics_port}
    if fits:
        assert load_settings(given).worker_count == 3
    else:
        assert _refusal(given).startswith("metrics-port leaves no ports above it")
