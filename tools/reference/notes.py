"""What the reference adds to the help of settings that take more than a line to say."""

from __future__ import annotations

from collections.abc import Mapping

from discovery.ratelimits.rules import DEFAULT_RULES
from tools.reference.markdown import table


def _limits() -> str:
    rows = (
        (rule.scope.value, ", ".join(sorted(rule.methods)), str(rule.rate))
        for rule in DEFAULT_RULES
    )
    return table(("each", "calls, counted together", "limit"), rows)


SERVER: Mapping[str, str] = {
    "store": """\
| URL | what it names |
|---|---|
| `memory` | the memory of this process: one replica |
| `redis://USER:PASSWORD@HOST:6379/0` | one Redis or Valkey server; `rediss://` is with TLS |
| `unix:///PATH/TO/SOCKET` | one on this machine |
| `redis+sentinel://HOST:26379,.../SERVICE/0` | the primary of a service, through Sentinels; `rediss+sentinel://` |
| `redis+cluster://HOST:6379,...` | a cluster, through any of its nodes; `rediss+cluster://` |

What is special in a user or password is percent-encoded. Options follow after a `?`, joined by `&`: `timeout` (seconds
that a call to the store may take, 2), `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`, `ssl_check_hostname` (yes or no),
`sentinel_username`, `sentinel_password`. Better in the variable than as a flag when there is a password in it.""",
    "redis_prefix": "Services with different prefixes do not meet. All replicas of one service have the same.",
    "workers": """\
Above 1 it needs a Redis store: each worker is a replica of its own. On Linux connections are spread over them evenly;
other systems that let processes share a port (SO_REUSEPORT) may give most to one. Worker K, counted from 0, has its
side port at `metrics_port` + K; the admin API is worker 0's. `0` goes by the cores that the process may use, not by a
container's quota. [Workers](../operations.md#workers) has the rest.""",
    "ttl": "All replicas of one service have the same. Clients are told to renew after about a fifth of it.",
    "cleanup_interval": "What a lookup or a count says never depends on it.",
    "drain_delay": "Every call is still answered meanwhile, and balancers and clients are told to leave. Leave it at 0"
    " unless there are other replicas to go to.",
    "metrics_port": "It has no TLS and asks nobody who they are: keep it inside your network.",
    "tracing": "It needs the extra `coral-discovery[otel]`. [Traces](../metrics.md#traces) has the variables.",
    "tls_cert": "Goes with `tls_key`. New files are taken up within ten seconds, without a restart.",
    "tls_client_ca": "PEM. Who has no such certificate is turned away in the handshake: mutual TLS.",
    "cors_origin": "As in `https://app.example.com`.",
    "trusted_proxy": "A network, as in `10.0.0.0/8`. The caller is then the address furthest to the right in"
    " `X-Forwarded-For`, or else in `Forwarded`, that is not in such a network.",
    "stale_lookups": "Such an answer says in the header `coral-staleness` how many seconds old it is.",
    "keys_file": "Needed by `auth: keys`. It is read again when it changes.",
    "ownership": "`lease`: the key of the live lease owns the mesh."
    " [Who owns a mesh](../security.md#who-owns-a-mesh) has the rest.",
    "proof_keys": "All replicas share them. Without the file and with Redis, they are made there once."
    " [The server's keys](../security.md#the-servers-keys) tells how to change them.",
    "reserve": "Counted from the end of the last lease. Until then another key is refused with `MESH_ID_RESERVED`.",
    "rate_limit": f"""\
`SCOPE:METHODS=RATE`. The scope is `address` (IPv6: each /64), `mesh` or `key`; the methods are names joined by commas,
or `*` for all; the rate is as `10/second`, `60/minute` or `1000/2hours`. A rule replaces the defaults for its scope and
methods; `off` removes all defaults, which are:

{_limits()}""",
    "require_secure": "It ends with exit code 2 then, and names what is missing.",
    "admin_listen": "Off the loopback and a Unix socket, an API key with the role `admin` is asked for.",
    "audit_log": "JSON, a line for each change and refusal.",
}

CORAL: Mapping[str, str] = {
    "discovery.endpoint": "One URL, or a list in the order to try them.",
    "discovery.register_interval": "The server says a fifth of the lease. This can make it shorter, not longer.",
    "discovery.api_key_file": "The API key. The list of processes does not show it, as it does a flag.",
    "wireguard.port": "That is a colony's; an agent's is any that is free.",
    "wireguard.key_file": "One for each mesh and role.",
    "wireguard.old_key_file": "It lets a mesh that is owned by a proof pass from that key to the one of `key_file`.",
    "colony.endpoint": "One, or a list in the order to try them.",
    "colony.accept_agents": "With a join token, each agent that proves to know it joins without this.",
    "join_token": "16 characters or more, the same for a colony and its agents.",
    "join_token_file": "The join token. The list of processes does not show it, as it does a flag.",
}
