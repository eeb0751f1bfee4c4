"""What `coral` is told: frozen, and validated once, from flags, environment and a YAML file, in that order.

The file's `discovery` section is RFD-001's ("Configuration Example"); a colony and its agents may share one file, so
each setting is known to both commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from discovery.errors import ConfigError
from discovery.settings import Duration, load
from discovery.validation import check_id

DEFAULT_ENDPOINT = "http://localhost:8080"
WIREGUARD_PORT = 41820
"""The colony's UDP port (RFD-001, "Port Selection")."""

_Seconds = Annotated[Duration, Field(gt=0)]


def _as_tuple(value: object) -> object:
    """Take one value for a list of one: most have one discovery service."""
    return (value,) if isinstance(value, str) else value


_Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DiscoverySettings(_Section):
    """How to reach discovery, and what to ask it. Times are in seconds; the file has them as `60s`."""

    endpoint: _Texts = (DEFAULT_ENDPOINT,)
    """One URL, or several in the order to try them."""
    mesh_id: str = ""
    register_interval: _Seconds | None = None
    """The longest time between two heartbeats; None leaves it to the server, which says a fifth of the lease."""
    lookup_interval: _Seconds = 300.0
    timeout: _Seconds = 10.0
    """How long one call to discovery may take."""
    cache_ttl: _Seconds = 300.0
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    ca_cert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None


class WireGuardSettings(_Section):
    """The tunnel's own end."""

    backend: Literal["auto", "kernel", "wireguard-go", "off"] = "auto"
    """`auto` is the kernel's WireGuard, or wireguard-go where there is none; `off` makes no tunnel."""
    port: Annotated[int, Field(strict=True, ge=0, le=65535)] | None = None
    """UDP port; None is 41820 for a colony, and the kernel's choice for an agent."""
    key_file: Path | None = None
    """None: in the XDG state folder, one for each mesh and role."""
    old_key_file: Path | None = None
    """The private key that `key_file` takes the place of: a discovery service that asks for proofs wants both."""
    interface: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,15}$")] | None = None


class ColonySettings(_Section):
    """What only a colony is told."""

    endpoint: _Texts = ()
    """Where it can be reached, as `host:port` or `host`; none: what it finds out itself."""
    accept_agents: bool = False
    """Whether every agent that registers for the mesh may join; with a join token, each that proves to know it may."""


class CoralSettings(_Section):
    """What `coral colony start` and `coral connect` are told."""

    discovery: DiscoverySettings = DiscoverySettings()
    wireguard: WireGuardSettings = WireGuardSettings()
    colony: ColonySettings = ColonySettings()
    join_token: SecretStr | None = None
    join_token_file: Path | None = None

    @model_validator(mode="after")
    def _mesh_id_is_one(self) -> Self:
        if not self.discovery.mesh_id:
            raise ValueError("--mesh-id is missing: it names the mesh, as in --mesh-id my-app-prod")
        for _, problem in check_id("mesh_id", self.discovery.mesh_id):
            raise ValueError(f"--mesh-id {problem}")
        return self

    @model_validator(mode="after")
    def _a_secret_has_one_source(self) -> Self:
        if self.join_token is not None and self.join_token_file is not None:
            raise ValueError("--join-token and --join-token-file: give one of them")
        if self.discovery.api_key is not None and self.discovery.api_key_file is not None:
            raise ValueError("--api-key and --api-key-file: give one of them")
        return self

    @property
    def mesh_id(self) -> str:
        """The mesh."""
        return self.discovery.mesh_id

    def api_key_text(self) -> str | None:
        """Return the API key, if there is one.

        Raises:
            ConfigError: its file cannot be read.
        """
        return _secret(self.discovery.api_key, self.discovery.api_key_file, "--api-key-file")

    def join_token_text(self) -> str | None:
        """Return the join token, if there is one.

        Raises:
            ConfigError: its file cannot be read.
        """
        return _secret(self.join_token, self.join_token_file, "--join-token-file")


FLAGS: Mapping[str, str] = {
    "mesh_id": "discovery.mesh_id",
    "discovery_endpoint": "discovery.endpoint",
    "discovery_timeout": "discovery.timeout",
    "register_interval": "discovery.register_interval",
    "lookup_interval": "discovery.lookup_interval",
    "cache_ttl": "discovery.cache_ttl",
    "api_key": "discovery.api_key",
    "api_key_file": "discovery.api_key_file",
    "ca_cert": "discovery.ca_cert",
    "client_cert": "discovery.client_cert",
    "client_key": "discovery.client_key",
    "wireguard": "wireguard.backend",
    "port": "wireguard.port",
    "key_file": "wireguard.key_file",
    "old_key_file": "wireguard.old_key_file",
    "interface": "wireguard.interface",
    "endpoint": "colony.endpoint",
    "accept_agents": "colony.accept_agents",
    "join_token": "join_token",
    "join_token_file": "join_token_file",
}
"""Where the value of each flag belongs."""


def load_coral_settings(given: Mapping[str, object], config_file: Path | None) -> CoralSettings:
    """Return the settings: what is in `given`, by the names of FLAGS, else in the file, else the default.

    Raises:
        ConfigError: a value cannot work, or a key does not exist.
    """
    nested: dict[str, Any] = {}
    for flag, value in given.items():
        *sections, name = FLAGS[flag].split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    flags = {setting: flag for flag, setting in FLAGS.items()}
    return load(CoralSettings, nested, config_file, flags=flags)


def _secret(value: SecretStr | None, file: Path | None, flag: str) -> str | None:
    if file is None:
        return None if value is None else value.get_secret_value().strip()
    try:
        return file.read_text().strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{flag}: cannot read {file}: {error}") from None
