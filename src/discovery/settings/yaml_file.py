"""A YAML file of settings as plain values, with the line of each; whatever it holds, reading it does no harm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel

from discovery.errors import ConfigError

if TYPE_CHECKING:
    import yaml

MAX_FILE_BYTES = 1024 * 1024
MAX_VALUES = 10_000
"""How many values a file may hold, once its aliases are followed."""
MAX_DEPTH = 32

_SHOWN = 80

Location = tuple[str | int, ...]


class YamlFile:
    """The values of a YAML file, and the line of each. `values` is empty if there is no file."""

    def __init__(self, path: Path | None, model: type[BaseModel]) -> None:
        self.path = path
        self.values: dict[str, object] = {}
        self.lines: dict[Location, int] = {}
        self._left = MAX_VALUES
        if path is not None:
            self._read(_content(path), model)

    def place(self, location: Location) -> str:
        """Return `file:line: ` of the value at `location`, or of what it would be part of."""
        while location and location not in self.lines:
            location = location[:-1]
        return f"{self.path}:{self.lines[location]}: " if location else ""

    def _read(self, content: bytes, model: type[BaseModel]) -> None:
        import yaml

        self._constructor = yaml.constructor.SafeConstructor()
        try:
            root = yaml.compose(content, Loader=yaml.SafeLoader)
            values = {} if root is None else self._value(root, model, ())
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"{self.path}{_mark(error)} is not YAML: {_said(error)}") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{self.path} must hold a mapping of settings, as in `name: value`")
        self.values = values

    def _value(self, node: yaml.Node, model: type[BaseModel] | None, location: Location) -> object:
        import yaml

        self._bound(node, location)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, model, location)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(item, (*location, i)) for i, item in enumerate(node.value)]
        value = self._scalar(node)
        # `discovery:` with nothing below it is a section that says nothing.
        return {} if value is None and model is not None else value

    def _mapping(
        self, node: yaml.MappingNode, model: type[BaseModel] | None, location: Location
    ) -> dict[str, object]:
        values: dict[str, object] = {}
        for key, value in node.value:
            name = self._name(key, model)
            if name in values:
                first = self.lines[*location, name]
                raise self._error(key, f"{name} is already set in line {first}")
            self.lines[*location, name] = _line(key)
            values[name] = self._value(value, nested(model, name), (*location, name))
        return values

    def _item(self, node: yaml.Node, location: Location) -> object:
        self.lines[location] = _line(node)
        return self._value(node, None, location)

    def _name(self, key: yaml.Node, model: type[BaseModel] | None) -> str:
        if not isinstance(key.value, str):
            raise self._error(key, "the name of a setting must be plain text")
        return key.value.replace("-", "_") if model is not None else key.value

    def _scalar(self, node: yaml.Node) -> object:
        try:
            value: object = self._constructor.construct_object(node)
        except ValueError:  # a date or number that cannot be
            raise self._error(node, f"is not YAML: {shown(node.value)} has no value") from None
        return value

    def _bound(self, node: yaml.Node, location: Location) -> None:
        self._left -= 1
        if self._left < 0 or len(location) > MAX_DEPTH:
            raise self._error(node, "holds too much to be settings")

    def _error(self, node: yaml.Node, message: str) -> ConfigError:
        return ConfigError(f"{self.path}:{_line(node)}: {message}")


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes: too large for settings")
    return content


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _mark(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f":{mark.line + 1}:"


def _said(error: Exception) -> str:
    """Return the problem alone, where YAML's own words would repeat the file's name and lines."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    words = (getattr(error, "context", None), getattr(error, "problem", None))
    return ", ".join(filter(None, words)) or " ".join(str(error).split())


def nested(model: type[BaseModel] | None, name: str | int) -> type[BaseModel] | None:
    """Return the model of a setting that is itself settings, else None."""
    candidates = types_of(model, name)
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def types_of(model: type[BaseModel] | None, name: str | int) -> tuple[object, ...]:
    """Return the type of a setting, and what a union of it is made of; nothing if there is no such setting."""
    field = model.model_fields.get(str(name)) if model is not None else None
    return () if field is None else (field.annotation, *get_args(field.annotation))


def shown(value: object) -> str:
    """Return `value` as Python writes it, cut short."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
