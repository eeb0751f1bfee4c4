"""`coral-discoveryctl`: what an administrator sees and does."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from discovery.cli.common import run, version_option
from discovery.cli.ctl import access_keys, names, promises, public, replica, stories
from discovery.cli.ctl.options import CODES
from discovery.cli.ctl.working import NAME

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help is there in half the time
    no_args_is_help=True,
    help="See what is registered with a coral-discovery server and what happens there, and act.",
    epilog=CODES,
)

replica.add_to(app)
names.add_to(app)
public.add_to(app)
stories.add_to(app)
access_keys.add_to(app)
promises.add_to(app)


@app.callback()
def ctl(
    version: Annotated[bool, version_option(NAME)] = False,
) -> None:
    """Take the options that belong to no command."""


def main() -> None:
    """Run the `coral-discoveryctl` command."""
    try:
        try:
            run(app, NAME)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has read enough, as `head` does. What is left must not fail once more at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
