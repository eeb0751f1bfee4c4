"""The options that commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from discovery.ctl.access import Access

Command = Callable[..., None]

CODES = (
    "Exit codes: 0 if it did what was asked, 1 if a check failed or by a defect, 2 if something given cannot work, 3 if"
    " there is no such thing, 4 if the server cannot be reached, 5 if it refuses, 130 if interrupted or not confirmed."
)

Output = Annotated[
    Literal["table", "json", "yaml"],
    typer.Option("--output", "-o", help="For people, for jq, or for both."),
]
Admin = Annotated[
    str,
    typer.Option(
        "--admin",
        envvar="CORAL_DISCOVERY_ADMIN",
        metavar="ADDRESS",
        help="The admin API: HOST:PORT, http(s)://HOST:PORT or unix:PATH.",
    ),
]
Server = Annotated[
    str,
    typer.Option(
        "--server", envvar="CORAL_DISCOVERY_ENDPOINT", metavar="URL", help="The public API."
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key", envvar="CORAL_API_KEY", metavar="KEY", help="API key; better as a file."
    ),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file", envvar="CORAL_API_KEY_FILE", metavar="FILE", help="File that holds it."
    ),
]
CaCert = Annotated[
    Path | None,
    typer.Option(
        "--ca-cert",
        envvar="CORAL_CA_CERT",
        metavar="FILE",
        help="CAs to trust for https, PEM.  [default: the system's]",
    ),
]
ClientCert = Annotated[
    Path | None,
    typer.Option(
        "--client-cert",
        envvar="CORAL_CLIENT_CERT",
        metavar="FILE",
        help="Certificate to show to the server, PEM.",
    ),
]
ClientKey = Annotated[
    Path | None,
    typer.Option(
        "--client-key", envvar="CORAL_CLIENT_KEY", metavar="FILE", help="Its private key, PEM."
    ),
]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again.")]
Every = Annotated[str, typer.Option("--every", metavar="DURATION", help="How often.")]
Mesh = Annotated[str, typer.Argument(metavar="MESH", help="The mesh id.", show_default=False)]
Prefix = Annotated[str, typer.Option("--prefix", metavar="TEXT", help="Only meshes that begin so.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def to_admin(*, live: bool = False) -> Callable[[Command], Command]:
    """Give a command the options that lead to the admin API: it takes the Access that they make.

    With `live` it has --watch and --every too, and takes `every`: how often, in seconds, or None.
    """
    return _with_options(_admin_options, live=live)


def to_server(*, live: bool = False) -> Callable[[Command], Command]:
    """Give a command the options that lead to the public API, and else as `to_admin`."""
    return _with_options(_server_options, live=live)


def to_any(command: Command) -> Command:
    """Give a command the options that say what to show and to trust, but not where: it says so itself."""
    return _with_options(_credentials, live=False)(command)


def seconds(flag: str, text: str) -> float:
    """Return the seconds of a duration that the option `flag` was given.

    Raises:
        typer.BadParameter: it is none.
    """
    from discovery.settings.duration import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"{flag} {error}") from None


def _credentials(
    api_key: ApiKey = None,
    api_key_file: ApiKeyFile = None,
    ca_cert: CaCert = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
) -> None: ...


def _admin_options(admin: Admin = "127.0.0.1:8081") -> None: ...


def _server_options(server: Server = "http://localhost:8080") -> None: ...


def _live_options(watch: Watch = False, every: Every = "2s") -> None: ...


def _with_options(where: Callable[..., None], *, live: bool) -> Callable[[Command], Command]:
    reaching = _parameters(where) | _parameters(_credentials)
    viewing = _parameters(_live_options) if live else {}

    def decorate(command: Command) -> Command:
        def with_options(**given: Any) -> None:  # noqa: ANN401 - what typer read
            access = Access(**{name: given.pop(name) for name in reaching})
            if live:
                every = seconds("--every", given["every"])
                given["every"] = every if given.pop("watch") else None
            command(access, **given)

        _, *own = _parameters(command).items()
        options = {**dict(own), **viewing, **reaching}
        signature = inspect.Signature(list(options.values()))
        with_options.__doc__, with_options.__name__ = command.__doc__, command.__name__
        # What typer reads: as if all had been written down in one function.
        with_options.__signature__ = signature  # type: ignore[attr-defined]
        with_options.__annotations__ = {name: p.annotation for name, p in options.items()}
        return with_options

    return decorate


def _parameters(function: Callable[..., None]) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function, eval_str=True).parameters
    keyword = inspect.Parameter.KEYWORD_ONLY
    return {name: parameter.replace(kind=keyword) for name, parameter in found.items()}
