"""Settings of any program: the file's line is named, the flag is named, and no file does harm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from hypothesis import given as examples_of
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from discovery.errors import ConfigError
from discovery.settings import Duration, load, parse_duration
from tests.support import examples, shown


class Discovery(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str
    register_interval: Annotated[Duration, Field(gt=0)] = 60.0
    timeout: Annotated[Duration, Field(gt=0)] = 10.0
    secret: SecretStr | None = None
    labels: dict[str, str] = {}


class Program(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    discovery: Discovery
    port: Annotated[int, Field(strict=True, ge=0)] = 41820
    endpoints: tuple[str, ...] = ()


def _file(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "coral.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _refusal(path: Path | None, given: dict[str, Any] | None = None) -> str:
    """Return what is said, one line, without the folder of the file."""
    with pytest.raises(ConfigError) as refusal:
        load(Program, given or {}, path)
    message = str(refusal.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message if path is None else message.replace(f"{path}", path.name)


def _refused(tmp_path: Path, content: str | bytes) -> str:
    return _refusal(_file(tmp_path, content))


# What is read


def test_the_rfds_file_is_read(tmp_path: Path) -> None:
    content = """
        # Colony config
        discovery:
            endpoint: https://discovery.coral.io
            register_interval: 1m30s  # Heartbeat frequency
            timeout: 500ms
    """

    discovery = load(Program, {}, _file(tmp_path, content)).discovery

    assert discovery.endpoint == "https://discovery.coral.io"
    assert (discovery.register_interval, discovery.timeout) == (90, 0.5)


def test_what_is_given_comes_before_the_file_setting_by_setting(tmp_path: Path) -> None:
    path = _file(tmp_path, "discovery: {endpoint: a, timeout: 1s}\nport: 1\n")

    program = load(Program, {"discovery": {"endpoint": "b"}}, path)

    assert program == Program(discovery=Discovery(endpoint="b", timeout="1s"), port=1)  # type: ignore[arg-type]


def test_an_empty_section_says_nothing(tmp_path: Path) -> None:
    path = _file(tmp_path, "discovery:\n")

    assert load(Program, {"discovery": {"endpoint": "a"}}, path).discovery.endpoint == "a"


def test_dashes_are_underscores_in_names_of_settings_and_in_nothing_else(tmp_path: Path) -> None:
    path = _file(tmp_path, "discovery: {endpoint: a, register-interval: 1s, labels: {a-b: c-d}}")

    discovery = load(Program, {}, path).discovery

    assert (discovery.register_interval, discovery.labels) == (1, {"a-b": "c-d"})


def test_an_alias_is_followed(tmp_path: Path) -> None:
    path = _file(tmp_path, "discovery: {endpoint: &a x, labels: {one: *a}}")

    assert load(Program, {}, path).discovery.labels == {"one": "x"}


# What the file has wrong: each with its line


@pytest.mark.parametrize(
    "content, message",
    [
        (
            "discovery:\n  endpoint: a\n  register_intervall: 60s\n",
            ("coral.yaml:3: register_intervall is not a setting; known are endpoint,"
            " register_interval, timeout, secret, labels; did you mean register_interval?"),
        ),
        (
            "\n\nprot: 1\ndiscovery: {endpoint: a}\n",
            ("coral.yaml:3: prot is not a setting; known are discovery, port, endpoints;"
            " did you mean port?"),
        ),
        (
            "discovery:\n  endpoint: a\n  timeout: 10\n",
            "coral.yaml:3: discovery.timeout must be a duration such as 500ms, 60s or 1h30m, not 10",
        ),
        (
            "discovery:\n  endpoint: a\n  timeout: 0s\n",
            "coral.yaml:3: discovery.timeout must be greater than 0, not '0s'",
        ),
        (
            "discovery:\n  endpoint: [a]\n",
            "coral.yaml:2: discovery.endpoint must be a valid string, not ['a']",
        ),
        (
            "endpoints:\n- a\n- 5\ndiscovery: {endpoint: a}\n",
            "coral.yaml:3: endpoints must be a valid string, not 5",
        ),
        ("port: 1\ndiscovery: 5\n", "coral.yaml:2: discovery must hold a mapping of settings, not 5"),
        ("port: 1\nport: 2\n", "coral.yaml:2: port is already set in line 1"),
        (
            "discovery:\n  register-interval: 1s\n  register_interval: 1s\n",
            "coral.yaml:3: register_interval is already set in line 2",
        ),
        ("port: 1\n? [a]\n: 1\n", "coral.yaml:2: the name of a setting must be plain text"),
        ("port:\n\t1\n", "coral.yaml:2: is not YAML: while scanning for the next token, "),
        ("discovery:\n  endpoint: a\n bad: 1\n", "coral.yaml:3: is not YAML: "),
        ("port: 1\na: *nowhere\n", "coral.yaml:2: is not YAML: found undefined alias 'nowhere'"),
        ("port: 1\n--- {}\n", "coral.yaml:2: is not YAML: "),
        ("a: 1\nb: !!python/name:os.system\n", "coral.yaml:2: is not YAML: could not determine"),
        ("a: 1\nb: 2001-99-99\n", "coral.yaml:2: is not YAML: '2001-99-99' has no value"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_file_is_named_with_its_line(
    tmp_path: Path, content: str, message: str
) -> None:
    assert _refused(tmp_path, content).startswith(message)


def test_every_problem_of_a_file_is_named(tmp_path: Path) -> None:
    message = _refused(tmp_path, "port: -1\ndiscovery:\n  endpont: a\n  timeout: 5x\n")

    assert [part.split()[0] for part in message.split("; ") if part.startswith("coral")] == [
        "coral.yaml:4:",
        "coral.yaml:3:",
        "coral.yaml:1:",
    ]
    assert "--endpoint is missing" in message


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    message = _refused(tmp_path, "discovery:\n  endpoint: a\n  secret: 1234567890\n")

    assert message == "coral.yaml:3: discovery.secret must be a valid string"


# What is given


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {"register_interval": "5"},
            "--register-interval must be a duration such as 500ms, 60s or 1h30m, not '5'",
        ),
        ({"timeout": "-1s"}, "--timeout must be a duration such as 500ms, 60s or 1h30m, not '-1s'"),
        ({"secret": 1}, "--secret must be a valid string"),
    ],
)
def test_what_is_given_and_cannot_work_is_named_by_its_flag(
    tmp_path: Path, given: dict[str, object], message: str
) -> None:
    path = _file(tmp_path, "discovery: {endpoint: a, timeout: 1s, register_interval: 1s}")

    assert _refusal(path, {"discovery": given}) == message


def test_a_flag_that_is_not_named_as_its_setting_is_named_as_it_is() -> None:
    flags = {"discovery.endpoint": "discovery_endpoint"}

    with pytest.raises(ConfigError, match=r"^--discovery-endpoint must be a valid string, not 5$"):
        load(Program, {"discovery": {"endpoint": 5}}, flags=flags)
    with pytest.raises(ConfigError, match=r"^--discovery-endpoint is missing$"):
        load(Program, {"discovery": {}}, flags=flags)


def test_what_is_given_for_a_whole_section_is_named_by_its_flag() -> None:
    assert _refusal(None, {"discovery": 5}) == "--discovery must hold a mapping of settings, not 5"


def test_what_nobody_gives_is_named_by_its_flag(tmp_path: Path) -> None:
    assert _refusal(None, {"discovery": {}}) == "--endpoint is missing"
    assert _refused(tmp_path, "discovery:\n  timeout: 1s") == "--endpoint is missing"


# Files that mean harm


def _laughs(depth: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "content, words",
    [
        (_laughs(30), "holds too much to be settings"),
        ("a: &a [*a]", "holds too much to be settings"),
        ("a: &a {b: *a}", "holds too much to be settings"),
        ("a: " + "[" * 50 + "]" * 50, "holds too much to be settings"),
        ("a: " + "[" * 3000, "is not YAML: it is nested too deeply"),
        ("a: [" + "1, " * 20_000 + "]", "holds too much to be settings"),
        ("#" * 1024 * 1024 + "#", "is larger than"),
        ("port: " + "9" * 5000, "has no value"),
        (b"port: \xff", "is not YAML"),
        (b"\x00", "is not YAML"),
    ],
    ids=shown,
)
def test_a_file_that_means_harm_is_refused_in_one_short_line(
    tmp_path: Path, content: str | bytes, words: str
) -> None:
    assert words in _refused(tmp_path, content)


@examples(200)
@examples_of(st.text(st.sampled_from("ab:-?[]{}&*!|>'\"%@#, \n\t1~<")))
def test_any_text_is_settings_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = _file(tmp_path_factory.mktemp("any"), text)

    _refusal(path)


@examples(200)
@examples_of(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_values_are_those_that_yaml_means(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    class Anything(BaseModel):
        value: Any

    text = yaml.safe_dump({"value": value})
    path = _file(tmp_path_factory.mktemp("value"), text)

    assert repr(load(Anything, {}, path).value) == repr(yaml.safe_load(text)["value"])


# Durations


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("60s", 60),
        ("5m", 300),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        (".5m", 30),
        ("0s", 0),
        ("1h1m1s1ms", 3661.001),
        ("250us", 0.00025),
        ("250µs", 0.00025),
    ],
)
def test_a_duration_is_written_as_in_go(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "60", "0", "s", ".s", "1..5s", "1h 30m", "1hx30m", "60 s", "-1s", "+1s", "1d", "1y", "1mm", "٣s",
        "infs", "nans", "1e3s", "60S", "9" * 400 + "h", 60, 60.0, True, None, [], "1s\n",
    ],
    ids=shown,
)  # fmt: skip
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(value)
