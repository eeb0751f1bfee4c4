"""The page of the settings: flag, variable, key in the file, type, default and meaning of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel

from discovery.cli import coral, server
from discovery.config import ServerSettings
from discovery.runners.settings import FLAGS, CoralSettings
from tools.reference import markdown, notes
from tools.reference.commands import Option, commands_of
from tools.reference.markdown import code, table
from tools.reference.models import Setting, settings_of

_Option = tuple[Option, str]
"""An option, and a sentence to add to what it says."""

_INTRODUCTION = """\
A flag comes before its environment variable, that before the file that `--config` (`CORAL_DISCOVERY_CONFIG`,
`CORAL_CONFIG`) names, and the file before the default. The file is YAML; its keys may be written with `-` or `_`. A
setting that does not exist, or a value that cannot work, ends the program with exit code 2 and one line that names the
flag, or the file and its line.

A list is given by repeating the flag, in a variable by spaces between its values, and in the file as a list."""

_SERVER = """\
What `coral-discovery` is told. Times are in seconds, sizes in bytes. Each heading is the setting's key in the file:

```yaml
port: 8080
store: redis://redis.internal:6379/0
ttl: 300
```"""

_CORAL = """\
What `coral colony start` and `coral connect` are told. One file may serve both. A duration is written as `500ms`, `60s`
or `1h30m`. Each heading is the setting's key in the file, with its section before the point:

```yaml
discovery:
  endpoint: https://discovery.example.com
  mesh_id: my-app-prod
```"""


def page() -> str:
    """Return the page.

    Raises:
        ValueError: a note is on a setting that does not exist.
    """
    [serve] = commands_of(server.app, "coral-discovery")
    by_setting = {option.name: (option, "") for option in serve.options}
    return markdown.page(
        "Configuration reference",
        _INTRODUCTION,
        "## The server",
        _SERVER,
        *_settings(ServerSettings, by_setting, notes.SERVER),
        "## Colonies and agents",
        _CORAL,
        *_settings(CoralSettings, _coral_options(), notes.CORAL),
    )


def _coral_options() -> Mapping[str, _Option]:
    """Return the option of each setting, and which command has it if only one does."""
    runners = commands_of(coral.app, "coral")
    found: dict[str, _Option] = {}
    for path, option, name in (
        (FLAGS[option.name], option, runner.name)
        for runner in runners
        for option in runner.options
        if option.name in FLAGS
    ):
        found[path] = (option, "" if path in found else f"Only `{name}` has this flag.")
    return found


def _settings(
    model: type[BaseModel], options: Mapping[str, _Option], more: Mapping[str, str]
) -> Iterator[str]:
    settings = list(settings_of(model))
    if unknown := set(more) - {setting.key for setting in settings}:
        raise ValueError(f"notes on settings that do not exist: {sorted(unknown)}")
    for setting in settings:
        option, only = options[setting.key]
        yield f"### {setting.key}"
        yield " ".join(filter(None, (_sentence(option.text), only)))
        yield table(("flag", "variable", "type", "default"), [_row(option, setting)])
        yield more.get(setting.key, "")


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _row(option: Option, setting: Setting) -> Sequence[str]:
    default = option.default or _default(setting.default)
    return code(option.said), code(option.variable), setting.type, default


def _default(value: object) -> str:
    match value:
        case None | () | "":
            return "none"
        case bool():
            return code(str(value).lower())
    return code(str(value))
