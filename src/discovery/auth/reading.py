"""The keys file: what is in it, and what is wrong with it, with the line.

    keys:
      - name: ci                      # unique; what a mesh id may be
        secret: sha256:<64 hex>       # the SHA-256 of the secret, the whole of it
        roles: [register, lookup]     # register, lookup, admin
        meshes: ["team-*"]            # only * is special; without it, every mesh
        expires: 2027-01-01T00:00:00Z # RFC 3339; without it, never
        created: 2026-01-01T00:00:00Z # for people

Values are read as they are written, so `name: 007` and `name: on` are no number and no truth value. The schema has no
depth, and lists are short, so no file costs more than its size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from discovery.auth.keys import EVERY_MESH, SECRET, ApiKey, Keys, Role, check_pattern
from discovery.auth.times import parse_time
from discovery.errors import ConfigError
from discovery.validation import check_id

if TYPE_CHECKING:
    import yaml

MAX_LIST = 100
"""How many roles or patterns a key may have."""

_ROOT = ("keys",)
_NEEDED = ("name", "secret", "roles")
_KNOWN = (*_NEEDED, "meshes", "expires", "created")
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})", re.ASCII)


def parse_keys(text: str, path: Path) -> Keys:
    """Return the keys of a file; `path` is for the errors.

    Raises:
        ConfigError: it does not hold what it should. The message names file and line, and repeats no secret.
    """
    return Reader(path).keys(text)


class Reader:
    """Reads one file, of which it says the name with everything that is wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keys(self, text: str) -> Keys:
        """Return the keys in `text`; raises ConfigError."""
        _, entries = self.entries(text)
        keys: list[ApiKey] = []
        names: dict[str | bytes, int] = {}
        digests: dict[str | bytes, int] = {}
        for entry in entries.value:
            key = self._key(entry)
            self._once(names, key.name, entry, f"the name {key.name}")
            self._once(digests, key.digest, entry, f"the secret of {key.name}")
            keys.append(key)
        return Keys(keys)

    def entries(self, text: str) -> tuple[yaml.Node, yaml.SequenceNode]:
        """Return the word `keys` and the list that it names; raises ConfigError."""
        root = self._compose(text)
        if root is None:
            # Not the same as no keys: a file is empty while something writes it.
            raise ConfigError(f"{self._path} is empty: for no keys at all, write `keys: []`")
        entries = self._list(self._fields(root, "the file", _ROOT, _ROOT)["keys"], "keys")
        name: yaml.Node = root.value[0][0]
        return name, entries

    def is_blank(self, text: str) -> bool:
        """Return whether `text` holds nothing, or nothing but comments; raises ConfigError."""
        return self._compose(text) is None

    def _compose(self, text: str) -> yaml.Node | None:
        import yaml

        # libyaml reads a thousand keys in the time of a slow request; without it, it takes most of a second.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            root: yaml.Node | None = yaml.compose(text, Loader=loader)
        except (yaml.YAMLError, RecursionError) as error:
            raise self._not_yaml(error) from None
        return root

    def _key(self, entry: yaml.Node) -> ApiKey:
        fields = self._fields(entry, "a key", _KNOWN, _NEEDED)
        return ApiKey(
            name=self._name(fields["name"]),
            digest=self._digest(fields["secret"]),
            roles=frozenset(self._roles(fields["roles"])),
            meshes=tuple(self._meshes(fields["meshes"])) if "meshes" in fields else (EVERY_MESH,),
            expires_at_us=self._time(fields.get("expires"), "expires"),
            created_at_us=self._time(fields.get("created"), "created"),
        )

    def _name(self, node: yaml.Node) -> str:
        name = self._text(node, "name")
        for violation in check_id("name", name):
            raise self._error(node, f"name {violation.description}")
        return name

    def _digest(self, node: yaml.Node) -> bytes:
        match = _DIGEST.fullmatch(self._text(node, "secret"))
        if match is None:
            raise self._error(
                node, "secret must be sha256: and 64 hexadecimal digits, never the secret itself"
            )
        return bytes.fromhex(match[1])

    def _roles(self, node: yaml.Node) -> Iterator[Role]:
        for item in self._some(node, "roles"):
            try:
                yield Role(self._text(item, "roles"))
            except ValueError:
                raise self._error(item, f"roles may be {', '.join(Role)}") from None

    def _meshes(self, node: yaml.Node) -> Iterator[str]:
        for item in self._some(node, "meshes"):
            pattern = self._text(item, "meshes")
            try:
                check_pattern(pattern)
            except ValueError as error:
                raise self._error(item, f"meshes {error}") from None
            yield pattern

    def _time(self, node: yaml.Node | None, name: str) -> int | None:
        if node is None:
            return None
        try:
            return parse_time(self._text(node, name))
        except ValueError as error:
            raise self._error(node, f"{name} {error}") from None

    def _fields(
        self, node: yaml.Node, what: str, known: tuple[str, ...], needed: tuple[str, ...]
    ) -> dict[str, yaml.Node]:
        import yaml

        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, f"{what} must be a mapping, as in `{needed[0]}: ...`")
        fields: dict[str, yaml.Node] = {}
        for name, value in node.value:
            if name.value not in known:
                raise self._error(name, f"{what} may hold {', '.join(known)}, and nothing else")
            if name.value in fields:
                raise self._error(name, f"{name.value} is there twice")
            fields[name.value] = value
        if missing := [name for name in needed if name not in fields]:
            raise self._error(node, f"{what} must have {', '.join(missing)}")
        return fields

    def _some(self, node: yaml.Node, name: str) -> list[yaml.Node]:
        items: list[yaml.Node] = self._list(node, name).value
        if not 0 < len(items) <= MAX_LIST:
            raise self._error(node, f"{name} must hold 1 to {MAX_LIST}, not {len(items)}")
        return items

    def _list(self, node: yaml.Node, name: str) -> yaml.SequenceNode:
        import yaml

        if not isinstance(node, yaml.SequenceNode):
            raise self._error(node, f"{name} must be a list, as in `{name}: [...]`")
        return node

    def _text(self, node: yaml.Node, name: str) -> str:
        import yaml

        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, f"{name} must be text")
        return str(node.value)

    def _once(
        self, seen: dict[str | bytes, int], value: str | bytes, node: yaml.Node, what: str
    ) -> None:
        if value in seen:
            raise self._error(node, f"{what} is already that of the key in line {seen[value]}")
        seen[value] = _line(node)

    def _error(self, node: yaml.Node, message: str) -> ConfigError:
        return ConfigError(f"{self._path}:{_line(node)}: {SECRET.sub('coral_...', message)}")

    def _not_yaml(self, error: Exception) -> ConfigError:
        mark = getattr(error, "problem_mark", None)
        place = self._path if mark is None else f"{self._path}:{mark.line + 1}:"
        words = (getattr(error, "context", None), getattr(error, "problem", None))
        # Not the error's own text, which may show the line.
        why = (
            ", ".join(filter(None, words)) or "it holds what no text does, or is nested too deeply"
        )
        hint = "; a pattern that begins with * needs quotes" if "alias" in why else ""
        return ConfigError(f"{place} is not YAML: {SECRET.sub('coral_...', why)}{hint}")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
