"""The server's settings: frozen, and validated once, from flags, environment and a YAML file, in that order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from discovery.settings import load

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["console", "json"]

_DAY = 24 * 3600
_THIRTY_DAYS = 30 * _DAY
# What a stop takes beside draining, in seconds: to say goodbye to clients, and close the store.
_CLOSING = 10.0
_LAST_PORT = 65535


class ServerSettings(BaseModel):
    """What `coral-discovery` is told. Times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = ""
    """Address to listen on; empty means every address, IPv4 and IPv6."""
    port: Annotated[int, Field(strict=True, ge=0, le=65535)] = 8080
    """TCP port; 0 lets the kernel choose one."""
    store: str = "memory"
    redis_prefix: str = "coral"
    """What the names of all keys in Redis begin with."""
    workers: Annotated[int, Field(strict=True, ge=0, le=256)] = 1
    """Processes that share the port, each a replica on one Redis; 0 is one for each core."""
    ttl: Annotated[int, Field(strict=True, ge=1, le=_THIRTY_DAYS)] = 300
    """How long a lease lasts from each registration or renewal."""
    cleanup_interval: Annotated[float, Field(strict=True, gt=0, le=_THIRTY_DAYS)] = 60.0
    """How often the memory of ended leases is freed. What a lookup or a count says never depends on it."""
    drain_delay: Annotated[float, Field(strict=True, ge=0, le=3600)] = 0.0
    """How long after SIGTERM or SIGINT every call is still answered, while balancers and clients are told to leave."""
    drain_timeout: Annotated[float, Field(strict=True, ge=0, le=3600)] = 10.0
    """How long calls in flight may then take to finish, once new ones are refused."""
    metrics_port: Annotated[int, Field(strict=True, ge=0, le=65535)] = 9090
    """TCP port of the side port: metrics and health checks; 0 turns it off."""
    tracing: bool = False
    """Whether spans are made, and sent as the OTEL_* variables say."""
    tls_cert: Path | None = None
    """PEM file with the certificate and its chain; with `tls_key`, the port speaks TLS."""
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """PEM file with the authorities that clients' certificates must come from: mutual TLS."""
    cors_origin: tuple[str, ...] = ()
    """Origins whose pages may call this server, as `https://app.example.com`; `*` is any."""
    trusted_proxy: tuple[str, ...] = ()
    """Networks whose X-Forwarded-For and Forwarded are believed, as `10.0.0.0/8`."""
    max_connections: Annotated[int, Field(strict=True, ge=0)] = 10_000
    """Connections in all; 0 is as many as come."""
    max_connections_per_address: Annotated[int, Field(strict=True, ge=0)] = 5_000
    """Connections of one address (IPv6: of one /64) that is no trusted proxy; 0 is as many as come."""
    max_streams: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 100
    """Calls at the same time over one HTTP/2 connection."""
    max_header_bytes: Annotated[int, Field(strict=True, ge=1024, le=1024 * 1024)] = 32 * 1024
    max_request_bytes: Annotated[int, Field(strict=True, ge=1024, le=16 * 1024 * 1024)] = 64 * 1024
    request_timeout: Annotated[float, Field(strict=True, gt=0, le=3600)] = 10.0
    """How long a client may pause within a request, or take for a TLS handshake or headers."""
    stale_lookups: Annotated[int, Field(strict=True, ge=0, le=_THIRTY_DAYS)] = 0
    """While the store is away, answer lookups with what was read up to so long ago; 0: never."""
    fast_path: bool = True
    """Whether calls that need not wait are answered past most of the protocol's machinery, in the same pipeline."""
    auth: Literal["off", "keys"] = "off"
    """`keys`: whoever calls needs an API key of `keys_file`."""
    keys_file: Path | None = None
    """YAML file of API keys, which is read again when it changes."""
    ownership: Literal["lease", "proof"] = "lease"
    """`proof`: whoever registers proves to hold the private key of the public key that they name."""
    proof_keys: Path | None = None
    """File with the server's keys for proofs; None makes one, in the store if replicas share that."""
    reserve: Annotated[int, Field(strict=True, ge=0, le=365 * 24 * 3600)] | None = None
    """How long a mesh stays its last key's after its lease; None is a day with proofs, and 0 without."""
    rate_limit: tuple[str, ...] = ()
    """Rules beside or instead of the defaults, as `mesh:RegisterColony=60/minute`; `off` for no defaults."""
    rate_limit_fault: Literal["open", "closed"] = "open"
    """While shared limits cannot be asked: `open` goes by those of this replica, `closed` refuses calls."""
    quota_meshes_per_key: Annotated[int, Field(strict=True, ge=0)] = 10_000
    """How many colonies one API key may have at once: a mesh for each job of CI, and for each of a large fleet's."""
    quota_agents_per_mesh: Annotated[int, Field(strict=True, ge=0)] = 100_000
    quota_registrations: Annotated[int, Field(strict=True, ge=0)] = 2_000_000
    """How many colonies and agents there may be: some gigabytes, if they have no metadata. 0 is no limit."""
    require_secure: bool = False
    """Whether to refuse to start where strangers could call, or listen in."""
    admin_listen: str = "127.0.0.1:8081"
    """Where the admin API listens: HOST:PORT or unix:PATH; empty or `off` is nowhere."""
    audit_log: str = ""
    """File for the lines of who changed what; `-` is stderr, empty is nowhere."""
    log_level: LogLevel = "info"
    log_format: LogFormat | None = None
    """None: `console` on a terminal, `json` elsewhere."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls-cert and tls-key go together: give both, or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls-client-ca needs tls-cert and tls-key")
        return self

    @model_validator(mode="after")
    def _files_have_a_use(self) -> Self:
        if self.auth == "keys" and self.keys_file is None:
            raise ValueError(
                "auth keys needs keys-file: make one with `coral-discoveryctl keys create`"
            )
        if self.keys_file is not None and self.auth == "off":
            raise ValueError("keys-file needs auth keys")
        if self.proof_keys is not None and self.ownership == "lease":
            raise ValueError("proof-keys needs ownership proof")
        return self

    @model_validator(mode="after")
    def _workers_can_share(self) -> Self:
        if self.workers == 1:
            return self
        if self.store == "memory":
            raise ValueError(
                f"workers {self.workers} needs a Redis store (store redis://HOST:6379/0): with memory"
                " each worker would have a registry of its own"
            )
        if self.metrics_port and self.metrics_port + self.worker_count - 1 > _LAST_PORT:
            raise ValueError("metrics-port leaves no ports above it for the other workers' metrics")
        return self

    @property
    def worker_count(self) -> int:
        """How many processes share the port."""
        return self.workers or _cores()

    @property
    def stop_seconds(self) -> float:
        """How long a stop can take."""
        return self.drain_delay + self.drain_timeout + _CLOSING

    @property
    def reserve_seconds(self) -> int:
        """How long a mesh stays its last key's after its lease."""
        if self.reserve is not None:
            return self.reserve
        return _DAY if self.ownership == "proof" else 0


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_settings(given: Mapping[str, object], config_file: Path | None = None) -> ServerSettings:
    """Return the settings: what is in `given`, else in the file, else the default.

    Raises:
        ConfigError: a value cannot work, or a key does not exist.
    """
    return load(ServerSettings, given, config_file)
