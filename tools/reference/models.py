"""What a pydantic model of settings says of each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from discovery.settings import parse_duration
from discovery.settings.yaml_file import nested

_PLAIN = {
    "string": "text",
    "boolean": "`true` or `false`",
    "integer": "whole number",
    "number": "number",
}
_BOUNDS = {
    "exclusiveMinimum": "above {:.15g}",
    "gt": "above {:.15g}",
    "minimum": "{:.15g} at least",
    "maximum": "{:.15g} at most",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its key in the file, and what may stand there."""

    key: str
    type: str
    default: Any


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    """Yield the settings of a model, and of the sections in it, in their order."""
    schema = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        if section := nested(model, name):
            yield from settings_of(section, f"{prefix}{name}.")
        else:
            kind = "duration" if _is_duration(field) else _type(schema[name])
            yield Setting(f"{prefix}{name}", kind, field.default)


def _is_duration(field: FieldInfo) -> bool:
    """Return whether a field is written as `60s`: the schema says only that it is a number."""
    return repr(BeforeValidator(parse_duration)) in repr((field.annotation, field.metadata))


def _type(schema: Mapping[str, Any]) -> str:
    """Return in words what a JSON schema lets in; None is left to the default to say."""
    match schema:
        case {"anyOf": [one, {"type": "null"}]}:
            return _type(one)
        case {"enum": values}:
            return " or ".join(f"`{value}`" for value in values)
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}"
        case {"format": "path"}:
            return "path"
    bounds = (words.format(schema[name]) for name, words in _BOUNDS.items() if name in schema)
    return ", ".join((_PLAIN[schema["type"]], *bounds))
