"""What is registered: `colonies` and `agents`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from discovery.cli.ctl.options import (
    CODES,
    Mesh,
    Output,
    Prefix,
    Yes,
    seconds,
    to_admin,
    to_server,
)
from discovery.cli.ctl.working import do, fail, show
from discovery.ctl.access import Access

if TYPE_CHECKING:
    from discovery.ctl.listing import Wanted
    from discovery.ctl.output import Printer

_Age = Annotated[str, typer.Option("--min-age", metavar="DURATION", help="Registered for so long.")]
_Youth = Annotated[
    str, typer.Option("--max-age", metavar="DURATION", help="Registered since then; 0s: ever.")
]
_Agent = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's id.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    colonies = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Colonies.")
    agents = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Agents.")
    app.add_typer(colonies, name="colonies")
    app.add_typer(agents, name="agents")
    colonies.command("list", epilog=CODES)(list_colonies)
    colonies.command("get", epilog=CODES)(get_colony)
    colonies.command("register", epilog=CODES)(register_colony)
    colonies.command("evict", epilog=CODES)(evict_colony)
    agents.command("list", epilog=CODES)(list_agents)
    agents.command("get", epilog=CODES)(get_agent)
    agents.command("evict", epilog=CODES)(evict_agent)


@to_admin(live=True)
def list_colonies(
    reach: Access,
    prefix: Prefix = "",
    min_age: _Age = "0s",
    max_age: _Youth = "0s",
    output: Output = "table",
    every: float | None = None,
) -> None:
    """List the registered colonies, by mesh id."""
    from discovery.ctl.listing import Wanted

    ages = int(seconds("--min-age", min_age)), int(seconds("--max-age", max_age))
    wanted = Wanted(agents=False, prefix=prefix, min_age=ages[0], max_age=ages[1])
    _list(reach, wanted, output, every)


@to_admin(live=True)
def list_agents(
    reach: Access,
    mesh: Annotated[str, typer.Argument(metavar="[MESH]", help="Only this mesh's.")] = "",
    prefix: Prefix = "",
    min_age: _Age = "0s",
    max_age: _Youth = "0s",
    output: Output = "table",
    every: float | None = None,
) -> None:
    """List the registered agents, of one mesh or of all."""
    from discovery.ctl.listing import Wanted

    ages = int(seconds("--min-age", min_age)), int(seconds("--max-age", max_age))
    wanted = Wanted(agents=True, prefix=prefix or mesh, mesh=mesh, min_age=ages[0], max_age=ages[1])
    _list(reach, wanted, output, every)


@to_admin(live=True)
def get_colony(
    reach: Access,
    mesh: Mesh,
    output: Output = "table",
    every: float | None = None,
) -> None:
    """Show all that there is of a colony's lease."""
    _get(reach, mesh, "", output, every)


@to_admin(live=True)
def get_agent(
    reach: Access,
    mesh: Mesh,
    agent: _Agent,
    output: Output = "table",
    every: float | None = None,
) -> None:
    """Show all that there is of an agent's lease."""
    _get(reach, mesh, agent, output, every)


@to_admin()
def evict_colony(
    reach: Access,
    mesh: Mesh,
    yes: Yes = False,
    output: Output = "table",
) -> None:
    """End a colony's lease and its reservation.

    It does not matter who holds them. Its holder may register again: revoke its API key first.
    """
    _evict(reach, mesh, "", yes, output)


@to_admin()
def evict_agent(
    reach: Access,
    mesh: Mesh,
    agent: _Agent,
    yes: Yes = False,
    output: Output = "table",
) -> None:
    """End an agent's lease and its reservation."""
    _evict(reach, mesh, agent, yes, output)


@to_server()
def register_colony(
    reach: Access,
    mesh: Mesh,
    endpoint: Annotated[
        list[str],
        typer.Option("--endpoint", metavar="HOST:PORT", help="Where it is; repeatable, in order."),
    ],
    pubkey: Annotated[
        str | None, typer.Option("--pubkey", metavar="KEY", help="Its WireGuard public key.")
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file", metavar="FILE", help="Its private key, where proofs are asked for."
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="KEY=VALUE", help="What else to say; repeatable."),
    ] = None,
    output: Output = "table",
) -> None:
    """Register a colony by hand, or renew its lease.

    It goes through the public API, for a colony that cannot do so itself. Nothing renews the lease afterwards.
    Give --pubkey, or --key-file.
    """

    async def work() -> None:
        from discovery.ctl.output import Printer
        from discovery.ctl.registering import make_applicant, register

        applicant = make_applicant(mesh, endpoint, metadata or (), pubkey, key_file)
        row = await register(reach, applicant)
        Printer(output).record(row)

    do(work())


def _list(reach: Access, wanted: Wanted, output: Output, every: float | None) -> None:
    async def render(printer: Printer) -> None:
        from discovery.ctl.listing import print_list

        async with reach.admin_client() as client:
            await print_list(client, wanted, printer)

    show(render, output, every=every)


def _get(reach: Access, mesh: str, agent: str, output: Output, every: float | None) -> None:
    async def render(printer: Printer) -> None:
        from discovery.ctl.records import of_record
        from discovery.errors import NotRegisteredError

        async with reach.admin_client() as client:
            found = await client.inspect(mesh, agent)
        if not found.is_set("record"):
            raise NotRegisteredError(mesh, agent_id=agent)
        printer.record(of_record(found.record))

    show(render, output, every=every)


def _evict(reach: Access, mesh: str, agent: str, yes: bool, output: Output) -> None:
    name = f"agent {agent} of mesh {mesh}" if agent else f"colony {mesh}"
    if not yes:
        _confirm(name, reach.admin)

    async def work() -> None:
        from discovery.ctl.output import Printer
        from discovery.errors import NotRegisteredError

        async with reach.admin_client() as client:
            if not await client.evict(mesh, agent):
                raise NotRegisteredError(mesh, agent_id=agent)
        row = {"mesh_id": mesh, **({"agent_id": agent} if agent else {}), "evicted": True}
        Printer(output).say(row, f"Evicted {name}.")

    do(work())


def _confirm(name: str, where: str) -> None:
    from discovery.ctl.failures import ExitCode
    from discovery.ctl.text import clean

    if not sys.stdin.isatty():
        raise fail("there is no terminal to ask on: add --yes to evict", ExitCode.USAGE)
    typer.confirm(clean(f"Evict {name} at {where}?"), abort=True, err=True)
