"""`coral`: a colony, and the agents that connect to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from discovery.cli.common import EXIT_INTERRUPTED, run, version_option
from discovery.errors import ConfigError

if TYPE_CHECKING:
    from discovery.runners.agent import Plan
    from discovery.runners.report import Report
    from discovery.runners.settings import CoralSettings

_CODES = (
    "Exit codes: 0 after a clean stop, 2 if a setting cannot work, 3 if no colony is registered, 4 if discovery"
    " cannot be reached and nothing is known from before, 5 if the colony does not answer, 6 if a tunnel cannot be"
    " made, 7 if discovery refuses, 130 if interrupted."
)

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help is there in half the time
    no_args_is_help=True,
    help="Run a colony (a WireGuard hub), or connect an agent to one, by the name of their mesh.",
)
colony = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Run a colony.")
app.add_typer(colony, name="colony")


Output = Literal["text", "json"]
Backend = Literal["auto", "kernel", "wireguard-go", "off"]


def _option(name: str, text: str, metavar: str | None = None, **kwargs: Any) -> Any:  # noqa: ANN401 - as typer.Option
    """Return the option for the setting `name`, with its environment variable."""
    flag, variable = f"--{name.replace('_', '-')}", f"CORAL_{name.upper()}"
    return typer.Option(flag, envvar=variable, help=text, metavar=metavar, **kwargs)


_MeshId = Annotated[str | None, _option("mesh_id", "The mesh, as in my-app-prod.", "MESH_ID")]
_DiscoveryEndpoint = Annotated[
    list[str] | None,
    _option(
        "discovery_endpoint",
        "The discovery service; repeatable, tried in order.  [default: http://localhost:8080]",
        "URL",
    ),
]
_DiscoveryTimeout = Annotated[
    str | None,
    _option("discovery_timeout", "How long one call to it may take.  [default: 10s]", "DURATION"),
]
_RegisterInterval = Annotated[
    str | None,
    _option(
        "register_interval",
        "Longest time between heartbeats.  [default: as the server says]",
        "DURATION",
    ),
]
_ApiKey = Annotated[
    str | None, _option("api_key", "Key for the discovery service; better as a file.", "KEY")
]
_ApiKeyFile = Annotated[Path | None, _option("api_key_file", "File that holds it.", "FILE")]
_CaCert = Annotated[
    Path | None,
    _option("ca_cert", "CAs to trust for https, PEM.  [default: the system's]", "FILE"),
]
_ClientCert = Annotated[
    Path | None, _option("client_cert", "Certificate to show to the service, PEM.", "FILE")
]
_ClientKey = Annotated[Path | None, _option("client_key", "Its private key, PEM.", "FILE")]
_WireGuard = Annotated[
    Backend | None,
    _option(
        "wireguard",
        "How the tunnel is made; auto: by the kernel, or else wireguard-go; off: not at all."
        "  [default: auto]",
    ),
]
_KeyFile = Annotated[
    Path | None,
    _option(
        "key_file",
        "WireGuard private key; made if missing.  [default: in ~/.local/state/coral]",
        "FILE",
    ),
]
_OldKeyFile = Annotated[
    Path | None,
    _option("old_key_file", "The private key before this one, where proofs are asked for.", "FILE"),
]
_Interface = Annotated[
    str | None,
    _option("interface", "Name of the network device.  [default: made from the mesh id]", "NAME"),
]
_JoinToken = Annotated[
    str | None,
    _option("join_token", "Secret that a colony and its agents share; better as a file.", "SECRET"),
]
_JoinTokenFile = Annotated[Path | None, _option("join_token_file", "File that holds it.", "FILE")]
_Config = Annotated[
    Path | None,
    _option("config", "YAML file of settings, as in `discovery: {mesh_id: my-app-prod}`.", "FILE"),
]
_Output = Annotated[
    Output, _option("output", "text, or json: one object a line for each thing that happens.")
]


@app.callback()
def coral(
    version: Annotated[bool, version_option("coral")] = False,
) -> None:
    """Take the options that belong to no command."""


@colony.command("start", epilog=_CODES)
def start(
    context: typer.Context,
    mesh_id: _MeshId = None,
    discovery_endpoint: _DiscoveryEndpoint = None,
    endpoint: Annotated[
        list[str] | None,
        _option(
            "endpoint",
            "Where agents reach this colony; repeatable, in order.  [default: what it finds]",
            "HOST[:PORT]",
        ),
    ] = None,
    port: Annotated[
        int | None, _option("port", "WireGuard's UDP port.  [default: 41820]", "PORT")
    ] = None,
    accept_agents: Annotated[
        bool | None,
        _option("accept_agents", "Let every agent that registers for the mesh join."),
    ] = None,
    join_token: _JoinToken = None,
    join_token_file: _JoinTokenFile = None,
    key_file: _KeyFile = None,
    old_key_file: _OldKeyFile = None,
    wireguard: _WireGuard = None,
    interface: _Interface = None,
    register_interval: _RegisterInterval = None,
    discovery_timeout: _DiscoveryTimeout = None,
    api_key: _ApiKey = None,
    api_key_file: _ApiKeyFile = None,
    ca_cert: _CaCert = None,
    client_cert: _ClientCert = None,
    client_key: _ClientKey = None,
    config: _Config = None,
    output: _Output = "text",
) -> None:
    """Start a colony: open its WireGuard port, and register where it is.

    It renews its registration, follows changes of this machine's addresses, and leaves cleanly on SIGTERM or SIGINT.
    Without root there is no tunnel, and it registers for one that you bring. Agents join if they know the
    --join-token; or all that register, with --accept-agents. Flags come before environment variables, and those
    before the --config file.
    """
    settings = _settings(context, config)
    from discovery.runners.colony import run_colony

    _run(lambda report: run_colony(settings, report), output)


@app.command("connect", epilog=_CODES)
def connect(
    context: typer.Context,
    agent: Annotated[
        str, typer.Argument(help="This agent's name, its own within the mesh.", metavar="NAME")
    ],
    mesh_id: _MeshId = None,
    discovery_endpoint: _DiscoveryEndpoint = None,
    timeout: Annotated[
        str, _option("timeout", "How long to try before giving up.", "DURATION")
    ] = "30s",
    once: Annotated[
        bool, typer.Option("--once", help="Leave again once connected: a check, for scripts.")
    ] = False,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            help="Print a configuration for wg-quick, private key and all, and exit.",
        ),
    ] = False,
    colony_endpoint: Annotated[
        list[str] | None,
        _option(
            "colony_endpoint",
            "Connect there without asking discovery; repeatable, in order.",
            "HOST:PORT",
        ),
    ] = None,
    colony_pubkey: Annotated[
        str | None, _option("colony_pubkey", "The public key of the colony that is there.", "KEY")
    ] = None,
    join_token: _JoinToken = None,
    join_token_file: _JoinTokenFile = None,
    port: Annotated[
        int | None, _option("port", "WireGuard's UDP port.  [default: any that is free]", "PORT")
    ] = None,
    key_file: _KeyFile = None,
    old_key_file: _OldKeyFile = None,
    wireguard: _WireGuard = None,
    interface: _Interface = None,
    lookup_interval: Annotated[
        str | None,
        _option(
            "lookup_interval",
            "How often to ask where nothing can be followed.  [default: 300s]",
            "DURATION",
        ),
    ] = None,
    cache_ttl: Annotated[
        str | None,
        _option("cache_ttl", "How long an answer counts as fresh.  [default: 300s]", "DURATION"),
    ] = None,
    register_interval: _RegisterInterval = None,
    discovery_timeout: _DiscoveryTimeout = None,
    api_key: _ApiKey = None,
    api_key_file: _ApiKeyFile = None,
    ca_cert: _CaCert = None,
    client_cert: _ClientCert = None,
    client_key: _ClientKey = None,
    config: _Config = None,
    output: _Output = "text",
) -> None:
    """Connect this machine to the colony of a mesh, and stay connected.

    It looks the colony up, tries its endpoints in order until a WireGuard handshake has happened, follows it when it
    moves, and registers this agent for as long as it runs. If discovery is away, the last known colony is tried.
    Tunnels need root; --print-config does not. Flags come before environment variables, and those before the
    --config file.
    """
    settings = _settings(context, config)
    plan = _plan(agent, timeout, once, colony_endpoint, colony_pubkey)
    if once and settings.wireguard.backend == "off":
        raise ConfigError("--once connects, which takes a tunnel: not with --wireguard off")
    from discovery.runners.agent import find_config, run_agent

    async def print_configuration(report: Report) -> None:
        typer.echo(await find_config(settings, plan, report), nl=False)

    if print_config:
        _run(print_configuration, "config", ends=True)
    else:
        _run(lambda report: run_agent(settings, plan, report), output, ends=once)


def _plan(
    agent: str,
    timeout: str,
    once: bool,
    endpoints: list[str] | None,
    pubkey: str | None,
) -> Plan:
    from discovery.runners.agent import make_plan

    return make_plan(agent, timeout, once=once, endpoints=endpoints or (), pubkey=pubkey)


def _settings(context: typer.Context, config: Path | None) -> CoralSettings:
    """Return the settings: what flags and environment say, else the file, else the defaults."""
    from discovery.runners.settings import FLAGS, load_coral_settings

    given: Mapping[str, object] = {
        name: value
        for name, value in context.params.items()
        if name in FLAGS and value is not None and value != ()
    }
    return load_coral_settings(given, config)


def _run(
    work: Callable[[Report], Coroutine[Any, Any, None]],
    output: Literal[Output, "config"],
    *,
    ends: bool = False,
) -> None:
    """Do the work until it is done, or until SIGTERM or SIGINT, and exit with the code that says how it ended.

    To be stopped is how most work comes to a good end; not where it `ends` by itself.
    """
    from discovery.runners.failures import GivenUpError
    from discovery.runners.report import JsonReport, SupervisedReport, TextReport
    from discovery.runners.stopping import run_until_stopped
    from discovery.supervisor import Supervisor

    supervisor = Supervisor.from_environment(os.environ)
    out = sys.stderr if output == "config" else sys.stdout
    report = SupervisedReport(JsonReport() if output == "json" else TextReport(out), supervisor)
    try:
        if not run_until_stopped(work(report), lambda: supervisor.stopping("Leaving")) and ends:
            raise typer.Exit(EXIT_INTERRUPTED)
    except GivenUpError as error:
        report.warn("given-up", str(error), code=int(error.code))
        raise typer.Exit(error.code) from None


def main() -> None:
    """Run the `coral` command."""
    run(app, "coral")
