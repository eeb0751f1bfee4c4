"""What every command shares: errors on one line, and exit codes."""

from __future__ import annotations

import sys
from typing import Any

import typer

from discovery import __version__
from discovery.errors import ConfigError

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def version_option(name: str) -> Any:  # noqa: ANN401 - as typer.Option
    """Return the option that prints the version of the program `name`, and ends it."""

    def show(value: bool) -> None:
        if value:
            typer.echo(f"{name} {__version__}")
            raise typer.Exit

    return typer.Option(
        "--version", callback=show, is_eager=True, help="Print the version and exit."
    )


def run(app: typer.Typer, name: str) -> None:
    """Run `app` and exit: 0 on success, 2 on wrong usage, said on one line of stderr and never with a traceback."""
    try:
        code = app(standalone_mode=False, prog_name=name)
    except typer.TyperException as error:
        code = _complain(name, f"{error.format_message()} (try `{name} --help`)")
    except ConfigError as error:
        code = _complain(name, str(error))
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    sys.exit(code)


def _complain(name: str, message: str) -> int:
    typer.echo(f"{name}: {' '.join(message.split())}", err=True)
    return EXIT_USAGE
