"""Files of keys, made and changed here: `keys` and `server-key`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from discovery.cli.ctl.options import CODES, Output

_File = Annotated[
    Path,
    typer.Option(
        "--file",
        envvar="CORAL_DISCOVERY_KEYS_FILE",
        metavar="FILE",
        help="The keys file, as the server has it by --keys-file.",
        show_default=False,
    ),
]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.", show_default=False)]


class _Role(enum.StrEnum):
    """The roles of discovery.auth, which takes too long to import for --help."""

    REGISTER = enum.auto()
    LOOKUP = enum.auto()
    ADMIN = enum.auto()


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    keys = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="API keys, in a file.")
    server_key = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="The server's key for ownership proofs."
    )
    app.add_typer(keys, name="keys")
    app.add_typer(server_key, name="server-key")
    keys.command("create", epilog=CODES)(create)
    keys.command("list", epilog=CODES)(list_all)
    keys.command("revoke", epilog=CODES)(revoke)
    server_key.command("create", epilog=CODES)(create_server_key)


def create(
    name: _Name,
    file: _File,
    role: Annotated[
        list[_Role],
        typer.Option("--role", help="What it may do; repeatable.", show_default=False),
    ],
    mesh: Annotated[
        list[str] | None,
        typer.Option(
            "--mesh",
            metavar="PATTERN",
            help="For which meshes, as team-*; repeatable.  [default: *]",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="WHEN", help="A time, 2027-01-01T00:00:00Z, or in 720h."),
    ] = None,
    output: Output = "table",
) -> None:
    """Make a key, and show its secret: this once.

    A server that reads the file knows it a second later. The file is made if it is missing, for its owner alone.
    """
    from discovery.auth import Role, create_key
    from discovery.clock import SystemClock
    from discovery.ctl.expiry import parse_expiry
    from discovery.ctl.output import Printer

    now = SystemClock().now()
    until = None if expires is None else parse_expiry(expires, now)
    roles = [Role(each) for each in role]
    secret = create_key(file, name, roles, mesh or ("*",), now=now, expires_at_us=until)
    printer = Printer(output)
    if printer.for_people:
        from discovery.cli.ctl.working import note

        note(f"Key {name} is in {file}. Its secret, which is shown only now:")
        typer.echo(secret)
    else:
        printer.record(_created(file, name, secret))


def list_all(file: _File, output: Output = "table") -> None:
    """List the keys in the file."""
    from discovery.auth import list_keys
    from discovery.ctl.output import Printer, moment, plain
    from discovery.ctl.records import of_key

    rows = [of_key(key) for key in list_keys(file)]
    columns = [
        ("name", plain),
        ("roles", plain),
        ("meshes", plain),
        ("created", moment),
        ("expires", moment),
    ]
    Printer(output).rows(rows, columns, "There are no keys.")


def revoke(name: _Name, file: _File, output: Output = "table") -> None:
    """Take a key out of the file.

    A server that reads it refuses the key a second later.
    """
    from discovery.auth import list_keys, revoke_key
    from discovery.cli.ctl.working import fail
    from discovery.ctl.failures import ExitCode
    from discovery.ctl.output import Printer

    if all(key.name != name for key in list_keys(file)):
        raise fail(f"{file} has no key named {name}", ExitCode.NOT_FOUND)
    revoke_key(file, name)
    Printer(output).say({"name": name, "revoked": True}, f"Revoked {name}.")


def create_server_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file, as the server has it.")],
    keep: Annotated[
        int, typer.Option("--keep", min=0, metavar="N", help="How many of the older keys to keep.")
    ] = 1,
    output: Output = "table",
) -> None:
    """Make the file of the server's keys, or rotate them.

    The new key is published, the older ones that are kept are still accepted. All replicas must have the same file.
    """
    from discovery.ctl.output import Printer
    from discovery.ctl.server_keys import rotate

    public, *older = rotate(file, keep)
    row = {"file": str(file), "public_key": public, "older_public_keys": older}
    kept = f", and {len(older)} older" if older else ""
    Printer(output).say(row, f"{file} holds a new key, {public}{kept}.")


def _created(file: Path, name: str, secret: str) -> dict[str, object]:
    from discovery.auth import list_keys
    from discovery.ctl.records import of_key

    key = next(key for key in list_keys(file) if key.name == name)
    return {**of_key(key), "secret": secret}
