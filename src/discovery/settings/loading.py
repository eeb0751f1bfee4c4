"""Settings made of what is given and what a file says, and the words for what cannot work."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from discovery.errors import ConfigError
from discovery.settings.yaml_file import Location, YamlFile, nested, shown, types_of

Model = TypeVar("Model", bound=BaseModel)


def load(
    model: type[Model],
    given: Mapping[str, object],
    file: Path | None = None,
    *,
    flags: Mapping[str, str] | None = None,
) -> Model:
    """Return the settings: each is what is in `given`, else in the file, else the default.

    `given` is what flags and environment say, nested as the model is. The file may spell names with `-` or `_`. `flags`
    has the flags that are not named as their setting is: `{"discovery.endpoint": "discovery_endpoint"}`.

    Raises:
        ConfigError: the file cannot be read, a value cannot work, or a setting does not exist. The message is one line
            that names every problem; one of the file with its line, one of `given` with its flag.
    """
    read = YamlFile(file, model)
    try:
        return model.model_validate(_merged(read.values, given))
    except ValidationError as error:
        say = _Explanation(model, given, read, flags or {})
        raise ConfigError("; ".join(map(say.of, error.errors()))) from None


def _merged(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    merged = {**below, **above}
    for name in below.keys() & above.keys():
        under, over = below[name], above[name]
        if isinstance(under, Mapping) and isinstance(over, Mapping):
            merged[name] = _merged(under, over)
    return merged


@dataclass(frozen=True, slots=True)
class _Explanation:
    """Puts pydantic's problems into words that name what the user wrote."""

    model: type[BaseModel]
    given: Mapping[str, object]
    read: YamlFile
    flags: Mapping[str, str]

    def of(self, problem: Mapping[str, Any]) -> str:
        location: Location = problem["loc"]
        if not location:
            return _sentence(problem)
        *parents, (owner, name) = _steps(location, self.model)
        place = "" if _is_given(self.given, location) else self.read.place(location)
        if problem["type"] == "extra_forbidden":
            return f"{place}{name} is not a setting; {_known(name, owner)}"
        dotted = ".".join([*(parent for _, parent in parents), name])
        if problem["type"] == "missing":
            return f"{self._flag(dotted)} is missing"
        subject = f"{place}{dotted}" if place else self._flag(dotted)
        return f"{subject} {_rule(problem)}{_not(problem, owner, name)}"

    def _flag(self, dotted: str) -> str:
        name = self.flags.get(dotted, dotted.rpartition(".")[2])
        return f"--{name.replace('_', '-')}"


def _steps(location: Location, model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str]]:
    """Return each setting on the way to `location` with the model it belongs to."""
    owner: type[BaseModel] | None = model
    for part in location:
        if owner is None:
            return
        yield owner, str(part)
        owner = nested(owner, part)


def _is_given(given: object, location: Location) -> bool:
    for part in location:
        if not isinstance(given, Mapping):
            return True
        if part not in given:
            return False
        given = given[part]
    return True


def _known(name: str, model: type[BaseModel]) -> str:
    known = f"known are {', '.join(model.model_fields)}"
    close = difflib.get_close_matches(name, model.model_fields, n=1)
    return f"{known}; did you mean {close[0]}?" if close else known


def _rule(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "model_type":
        return "must hold a mapping of settings"
    return _sentence(problem).replace("Input should", "must")


def _sentence(problem: Mapping[str, Any]) -> str:
    return str(problem["msg"]).removeprefix("Value error, ")


def _not(problem: Mapping[str, Any], model: type[BaseModel], name: str) -> str:
    value = problem["input"]
    if isinstance(value, Mapping) or SecretStr in types_of(model, name):
        return ""
    return f", not {shown(value)}"
