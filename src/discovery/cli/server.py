"""`coral-discovery`: the server."""

# Annotations are no strings here: typer would compile each of them, twice, which takes as long as all else it does.
import gc
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from discovery import __version__
from discovery.cli.common import run, version_option
from discovery.config import LogFormat, LogLevel, ServerSettings, load_settings
from discovery.lean import import_structlog

ENV_PREFIX = "CORAL_DISCOVERY_"

_DEFAULTS = ServerSettings()

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help is there in half the time
)


def _option(name: str, text: str, metavar: str | None = None, **kwargs: Any) -> Any:  # noqa: ANN401 - as typer.Option
    """Return the option for the setting `name`, with its environment variable."""
    flag, variable = f"--{name.replace('_', '-')}", f"{ENV_PREFIX}{name.upper()}"
    if getattr(_DEFAULTS, name, None) is True:
        flag = f"{flag}/{flag.replace('--', '--no-')}"
        kwargs["show_default"] = False
    return typer.Option(flag, envvar=variable, help=text, metavar=metavar, **kwargs)


@app.command()
def serve(
    context: typer.Context,
    host: Annotated[
        str,
        _option("host", "Address to listen on. Empty: every address, IPv4 and IPv6.", "ADDRESS"),
    ] = _DEFAULTS.host,
    port: Annotated[
        int, _option("port", "Port to listen on; 0 lets the system choose.", "PORT")
    ] = _DEFAULTS.port,
    store: Annotated[
        str,
        _option(
            "store", "Where registrations live: memory, or redis://HOST:PORT/DB and others.", "URL"
        ),
    ] = _DEFAULTS.store,
    redis_prefix: Annotated[
        str, _option("redis_prefix", "What the names of all keys in Redis begin with.", "TEXT")
    ] = _DEFAULTS.redis_prefix,
    workers: Annotated[
        int,
        _option("workers", "Processes that share the port, on one Redis; 0: one a core.", "N"),
    ] = _DEFAULTS.workers,
    ttl: Annotated[
        int, _option("ttl", "How long a registration holds without a heartbeat.", "SECONDS")
    ] = _DEFAULTS.ttl,
    cleanup_interval: Annotated[
        float,
        _option("cleanup_interval", "How often expired registrations are cleaned up.", "SECONDS"),
    ] = _DEFAULTS.cleanup_interval,
    drain_delay: Annotated[
        float,
        _option("drain_delay", "How long a stop is announced before calls are refused.", "SECONDS"),
    ] = _DEFAULTS.drain_delay,
    drain_timeout: Annotated[
        float,
        _option("drain_timeout", "How long a stop waits for calls in flight.", "SECONDS"),
    ] = _DEFAULTS.drain_timeout,
    metrics_port: Annotated[
        int,
        _option("metrics_port", "Port for /metrics, /healthz and /readyz; 0 turns it off.", "PORT"),
    ] = _DEFAULTS.metrics_port,
    tracing: Annotated[
        bool, _option("tracing", "Send OpenTelemetry spans, as the OTEL_* variables say.")
    ] = _DEFAULTS.tracing,
    tls_cert: Annotated[
        Path | None,
        _option("tls_cert", "Certificate and its chain, PEM; then the port speaks TLS.", "FILE"),
    ] = None,
    tls_key: Annotated[
        Path | None, _option("tls_key", "The certificate's private key, PEM.", "FILE")
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        _option("tls_client_ca", "Let in only clients with a certificate of these CAs.", "FILE"),
    ] = None,
    cors_origin: Annotated[
        list[str],
        _option("cors_origin", "Let pages of this origin call; repeatable, * for any.", "ORIGIN"),
    ] = [],  # noqa: B006 - typer's way; nobody changes it
    trusted_proxy: Annotated[
        list[str],
        _option(
            "trusted_proxy", "Believe what this proxy says of its clients; repeatable.", "CIDR"
        ),
    ] = [],  # noqa: B006
    max_connections: Annotated[
        int, _option("max_connections", "Connections in all; 0 for no limit.", "N")
    ] = _DEFAULTS.max_connections,
    max_connections_per_address: Annotated[
        int,
        _option(
            "max_connections_per_address", "Of each address, or IPv6 /64; 0 for no limit.", "N"
        ),
    ] = _DEFAULTS.max_connections_per_address,
    max_streams: Annotated[
        int, _option("max_streams", "Calls at the same time over one HTTP/2 connection.", "N")
    ] = _DEFAULTS.max_streams,
    max_header_bytes: Annotated[
        int, _option("max_header_bytes", "Size of a request's headers.", "BYTES")
    ] = _DEFAULTS.max_header_bytes,
    max_request_bytes: Annotated[
        int, _option("max_request_bytes", "Size of a request's message.", "BYTES")
    ] = _DEFAULTS.max_request_bytes,
    request_timeout: Annotated[
        float,
        _option("request_timeout", "How long a client may pause within a request.", "SECONDS"),
    ] = _DEFAULTS.request_timeout,
    stale_lookups: Annotated[
        int,
        _option(
            "stale_lookups", "Age of answers given while the store is away; 0: none.", "SECONDS"
        ),
    ] = _DEFAULTS.stale_lookups,
    fast_path: Annotated[
        bool,
        _option("fast_path", "Answer calls that repeat on a short path, as is usual, or not."),
    ] = _DEFAULTS.fast_path,
    auth: Annotated[
        Literal["off", "keys"],
        _option("auth", "keys: whoever calls needs an API key of --keys-file."),
    ] = _DEFAULTS.auth,
    keys_file: Annotated[
        Path | None,
        _option("keys_file", "API keys, as `coral-discoveryctl keys create` makes them.", "FILE"),
    ] = None,
    ownership: Annotated[
        Literal["lease", "proof"],
        _option("ownership", "proof: who registers proves to hold the private key."),
    ] = _DEFAULTS.ownership,
    proof_keys: Annotated[
        Path | None,
        _option(
            "proof_keys", "The server's keys for proofs.  [default: made at the start]", "FILE"
        ),
    ] = None,
    reserve: Annotated[
        int | None,
        _option(
            "reserve",
            "How long a mesh stays its last key's.  [default: a day with proofs, else 0]",
            "SECONDS",
        ),
    ] = None,
    rate_limit: Annotated[
        list[str],
        _option(
            "rate_limit",
            "A limit, as mesh:RegisterColony=60/minute; repeatable; off: no defaults.",
            "RULE",
        ),
    ] = [],  # noqa: B006
    rate_limit_fault: Annotated[
        Literal["open", "closed"],
        _option(
            "rate_limit_fault", "While shared limits are away: go by this replica's, or refuse."
        ),
    ] = _DEFAULTS.rate_limit_fault,
    quota_meshes_per_key: Annotated[
        int, _option("quota_meshes_per_key", "Meshes of one API key; 0 for no limit.", "N")
    ] = _DEFAULTS.quota_meshes_per_key,
    quota_agents_per_mesh: Annotated[
        int, _option("quota_agents_per_mesh", "Agents of one mesh; 0 for no limit.", "N")
    ] = _DEFAULTS.quota_agents_per_mesh,
    quota_registrations: Annotated[
        int, _option("quota_registrations", "Colonies and agents in all; 0 for no limit.", "N")
    ] = _DEFAULTS.quota_registrations,
    require_secure: Annotated[
        bool,
        _option(
            "require_secure", "Do not start where strangers could call, or listen in to calls."
        ),
    ] = _DEFAULTS.require_secure,
    admin_listen: Annotated[
        str,
        _option(
            "admin_listen", "Where administrators call, or unix:PATH; off: nowhere.", "ADDRESS"
        ),
    ] = _DEFAULTS.admin_listen,
    audit_log: Annotated[
        str, _option("audit_log", "File for who changed what; - is stderr.", "FILE")
    ] = _DEFAULTS.audit_log,
    log_level: Annotated[
        LogLevel, _option("log_level", "The least that is logged, on stderr.")
    ] = _DEFAULTS.log_level,
    log_format: Annotated[
        LogFormat | None,
        _option("log_format", "How logs look.  [default: console on a terminal, else json]"),
    ] = _DEFAULTS.log_format,
    config: Annotated[
        Path | None, _option("config", "YAML file of these settings, as in `port: 8080`.", "FILE")
    ] = None,
    version: Annotated[bool, version_option("coral-discovery")] = False,
) -> None:
    """Run the discovery server: colonies register under a mesh id, agents look them up.

    Flags come before environment variables, and those before the --config file. SIGTERM and SIGINT
    stop it cleanly: new calls are refused, calls in flight finish. SIGHUP reads TLS and keys files
    again. Exit code 0 after a clean stop, 2 if a setting cannot work.
    """
    given = _given(context)
    _run_server(load_settings(given, config), lambda: load_settings(given, config))


def _given(context: typer.Context) -> Mapping[str, object]:
    """Return what flags and environment say; a default must not hide what the file says."""
    source = context.get_parameter_source
    return {
        name: value
        for name, value in context.params.items()
        if name in ServerSettings.model_fields and getattr(source(name), "name", "") != "DEFAULT"
    }


def _run_server(settings: ServerSettings, reread: Callable[[], ServerSettings]) -> None:
    # There is hardly any garbage until it serves, and looking for it takes a seventh of the time. Daemon turns it on.
    gc.disable()

    # What it takes to serve is imported here, so that --help and mistakes are answered at once.
    import_structlog()

    from discovery.logs import set_up_logs
    from discovery.supervisor import Supervisor

    def announce(port: int) -> None:
        typer.echo(f"Discovery Service v{__version__}")
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        typer.echo(f"gRPC server listening on {host}:{port}")
        typer.echo("Ready to accept registrations")

    log = set_up_logs(settings.log_level, settings.log_format)
    supervisor = Supervisor.from_environment(os.environ)
    if settings.worker_count == 1:
        import uvloop

        from discovery.server import serve as serve_until_stopped

        uvloop.run(serve_until_stopped(settings, log, announce, supervisor, reread))
        return
    # The parent serves nobody: it does without what that takes, and its memory.
    import asyncio

    from discovery.workers.parent import WorkersFailedError, serve_by_workers

    try:
        asyncio.run(serve_by_workers(settings, log, announce, supervisor, reread))
    except WorkersFailedError as error:
        typer.echo(f"coral-discovery: {error}", err=True)
        raise typer.Exit(1) from None


def main() -> None:
    """Run the `coral-discovery` command."""
    run(app, "coral-discovery")
