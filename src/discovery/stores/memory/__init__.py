"""The embedded store: one process, one event loop, no dependencies.

A call runs to its end without a pause, so that none ever sees another half done: that is all the atomicity that the
contract asks for. Only what first notes many ends, because it counts, lets others run meanwhile. What ends, ends by the
monotonic clock, which nobody can step.

Modules: `store` means the contract; `reminders` finds what has ended, `revisions` numbers changes, `reservations` keeps
names for their last holders, `roster` lists leases, `census` counts them, `words` saves memory.
"""

from __future__ import annotations

from discovery.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
