"""The shared store: any number of replicas on one Redis or Valkey, as one service.

How the contract of `stores.base` is kept:

- **A lease is a key with a lifetime.** Redis ends it by its own clock, which also dates every answer, so replicas'
  clocks never matter. Each mutation is one Lua script (`*.lua` here), one round trip; a lookup is one GET.
- **Shards.** Counting, expiring and reporting need structures that many meshes share, and in a cluster a script reaches
  one slot only. So meshes are spread over 16 shards by their id, and every key of a shard has the shard's hash tag: a
  lease, the index of ends and the stream of events change together or not at all, on one server and on a cluster alike.
- **Events** are written to the shard's capped stream by the script that makes the change. A replica reads it with
  blocking XREADs. It trusts the stream only while it reads without a gap: after any failure it goes to the stream's
  end, then says `missed`, so that whoever follows a mesh asks for its state, which is the truth. Why not publish and
  subscribe: between the nodes of a cluster messages get lost without the subscriber's notice; and keyspace
  notifications are off by default, and late.
- **Expiry** is noticed in the index of ends, by a sweep that any replica may run. An end moves only in the script that
  renews the lease, so a sweep can neither end a renewed lease nor report one twice.
- **A colony's absence has a revision** that is known beforehand: the end of the lease, and no less than the lease's
  revision and one. So all replicas that notice an expiry agree on it.
- **Agents** are in the shard of their mesh, in keys of their own. Those of a mesh share one row of revisions, the last
  of which is kept as long as there are any, and for a while after. Who notices an expiry takes the next.

- **A reservation** is a key with a lifetime too, which the script that grants or renews a lease writes, and looks at
  where there is no lease.
- **Quotas** are looked at only for grants: the script says that it would be one, then leases are counted, then it is
  asked again. Of an owner's colonies each shard has a set, by the ends of the leases, which goes with the last of them.
- **Listing** goes through the indexes of ends by the server's cursors, a hundred at a time. A renewal moves no cursor.

Modules: `store` means the contract, with `counting` and `listing`; `shards` and `codec` say what is where and in which
form; `backend` asks the servers. `lane` lets concurrent calls share round trips over a `link`, which connects to where
a `routes` class says; `events` follows the streams.
"""

from __future__ import annotations

from discovery.stores.redis.store import RedisStore
from discovery.stores.redis.url import open_redis

__all__ = ["RedisStore", "open_redis"]
