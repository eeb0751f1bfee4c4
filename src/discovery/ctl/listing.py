"""Lists of what is registered."""

from __future__ import annotations

from dataclasses import dataclass

from discovery._gen.coral.discovery.admin import v1 as pb
from discovery.ctl.admin import AdminClient
from discovery.ctl.output import Column, Printer, first, key, moment, plain
from discovery.ctl.records import of_record

_COLUMNS: list[Column] = [
    ("mesh_id", plain),
    ("agent_id", plain),
    ("pubkey", key),
    ("endpoints", first),
    ("key_name", plain),
    ("granted_at", moment),
    ("last_seen", moment),
    ("expires_at", moment),
]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to list: colonies or agents, and which. Ages are in seconds."""

    agents: bool
    prefix: str = ""
    mesh: str = ""
    """Only this mesh; empty for every."""
    min_age: int = 0
    max_age: int = 0

    def includes(self, record: pb.Record) -> bool:
        """Return whether a record is of the mesh that is wanted."""
        return not self.mesh or record.mesh_id == self.mesh


async def print_list(client: AdminClient, wanted: Wanted, printer: Printer) -> None:
    """Print what is wanted, in the order of its names."""
    found = {
        (record.mesh_id, record.agent_id): record
        async for record in client.records(
            agents=wanted.agents,
            prefix=wanted.prefix,
            min_age=wanted.min_age,
            max_age=wanted.max_age,
        )
        if wanted.includes(record)
    }
    rows = [of_record(record) for _, record in sorted(found.items())]
    # A column in which nobody has anything would only take the room of the others.
    columns = [each for each in _COLUMNS if any(row.get(each[0]) for row in rows)]
    printer.rows(rows, columns, f"No {'agents' if wanted.agents else 'colonies'} are registered.")
