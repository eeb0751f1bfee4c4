"""What a store's URL means.

    redis://[[user]:password@]host[:port][/db]                       one server
    unix://[[user]:password@]/path/to/socket[?db=N]                  one on this machine
    redis+sentinel://[[user]:password@]host[:port],.../service[/db]  the primary of a service, through Sentinels
    redis+cluster://[[user]:password@]host[:port],...                a cluster, through any of its nodes

`rediss` instead of `redis` is TLS. What is special in a user or password is percent-encoded. Options follow as
`?name=value&...`: `timeout`, how many seconds a call may take; `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` and
`ssl_check_hostname` (yes or no) as redis-py has them; `sentinel_username` and `sentinel_password`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, unquote

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)

from discovery.errors import ConfigError
from discovery.stores.redis.link import Address, Route, Wire
from discovery.stores.redis.routes import Cluster, Dialer, Fixed, Sentinels
from discovery.stores.redis.shards import SLOTS
from discovery.stores.redis.store import RedisStore

DEFAULT_TIMEOUT = 2.0
_LONGEST_TIMEOUT = 60.0
# Who only shows the way is given less: while one hangs, another can be asked.
_GUIDE_TIMEOUT = 0.5

# Not urlsplit's work: it takes no list of hosts.
_URL = re.compile(
    r"(redis(?P<tls>s?)(\+(?P<kind>sentinel|cluster))?|(?P<unix>unix))://"
    r"((?P<user>[^:@/?]*)(:(?P<password>[^/?]*))?@)?(?P<hosts>[^@/?]*)(?P<path>/[^?]*)?(\?(?P<query>.*))?"
)
_HOST = re.compile(r"(\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]]+))(:(?P<port>[0-9]{1,5}))?")
_TLS_FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_OPTIONS = {
    "timeout",
    "db",
    "sentinel_username",
    "sentinel_password",
    "ssl_check_hostname",
    *_TLS_FILES,
}
_YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}

# Braces in a prefix would be taken for the hash tag.
_PREFIX = re.compile(r"[A-Za-z0-9._:/-]{1,64}")


def open_redis(url: str, prefix: str) -> RedisStore:
    """Return a store on the servers that `url` names, whose keys start with `prefix`. Nothing is connected yet.

    Raises:
        ConfigError: the URL or the prefix cannot work. The message shows nothing of the URL that may be secret.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError("a Redis prefix is 1 to 64 of A-Z a-z 0-9 . _ : / -")
    try:
        target = _Target(url)
        return RedisStore(
            target.route(), prefix, timeout=target.timeout, apart=target.kind == "cluster"
        )
    except ValueError as error:
        raise ConfigError(f"the store's URL cannot work: {error}") from None


class _Target:
    """What a URL says. ValueError says what is wrong with it."""

    def __init__(self, url: str) -> None:
        parts = _URL.fullmatch(url)
        if parts is None:
            raise ValueError("it looks like redis://user:password@host:6379/0")
        self.kind = parts["kind"] or parts["unix"] or ""
        self._tls = bool(parts["tls"])
        self._hosts = parts["hosts"]
        self._path = unquote(parts["path"] or "")
        self._options = _parse_options(parts["query"] or "")
        self.timeout = _parse_timeout(self._options.get("timeout"))
        self._login = _login(unquote(parts["user"] or ""), unquote(parts["password"] or ""))

    def route(self) -> Route:
        return {
            "": self._fixed,
            "unix": self._unix,
            "sentinel": self._sentinels,
            "cluster": self._cluster,
        }[self.kind]()

    def _fixed(self) -> Route:
        addresses = self._addresses(6379)
        if len(addresses) != 1:
            raise ValueError(
                "it names one host; several are for redis+sentinel:// or redis+cluster://"
            )
        return Fixed(self._dialer(self._login, self._database(self._path)), addresses[0])

    def _unix(self) -> Route:
        if not self._path.strip("/"):
            raise ValueError("a path to the socket follows unix://")
        options = {"path": self._path, **self._login, "db": self._database("")}
        return Fixed(Dialer(lambda _: _wire(UnixDomainSocketConnection, options), self.timeout))

    def _sentinels(self) -> Route:
        service, _, database = self._path.removeprefix("/").partition("/")
        if not service:
            raise ValueError("the name of the service follows the Sentinels, after a slash")
        login = _login(*map(self._options.get, ("sentinel_username", "sentinel_password")))
        return Sentinels(
            self._dialer(self._login, self._database(database)),
            self._dialer(login, 0, _GUIDE_TIMEOUT),
            self._addresses(26379),
            service,
        )

    def _cluster(self) -> Route:
        if self._database(self._path) != 0:
            raise ValueError("a cluster has no databases but 0")
        return Cluster(
            self._dialer(self._login, 0),
            self._dialer(self._login, 0, _GUIDE_TIMEOUT),
            self._addresses(6379),
            SLOTS,
        )

    def _dialer(
        self, login: Mapping[str, str | None], db: int, timeout: float = _LONGEST_TIMEOUT
    ) -> Dialer:
        options = {**login, "db": db, **(_parse_tls(self._options) if self._tls else {})}
        kind = SSLConnection if self._tls else Connection

        def make(address: Address) -> Wire:
            return _wire(kind, {**options, "host": address[0], "port": address[1]})

        return Dialer(make, min(timeout, self.timeout))

    def _database(self, path: str) -> int:
        named = path.strip("/") or self._options.get("db") or "0"
        if not re.fullmatch(r"[0-9]{1,5}", named):
            raise ValueError("a database is a number")
        return int(named)

    def _addresses(self, default_port: int) -> tuple[Address, ...]:
        return tuple(_parse_host(host, default_port) for host in self._hosts.split(","))


def _wire(kind: Callable[..., AbstractConnection], options: Mapping[str, Any]) -> Wire:
    # RESP2, because its handshake is short, and there is nothing to gain from another. Who waits sets the limits.
    return cast(
        "Wire", kind(**options, protocol=2, socket_timeout=None, socket_connect_timeout=None)
    )


def _parse_host(text: str, default_port: int) -> Address:
    host = _HOST.fullmatch(text)
    if host is None:
        raise ValueError("a host is a name, an IPv4 address or an [IPv6 address]; :port may follow")
    port = int(host["port"] or default_port)
    if not 0 < port < 65536:  # noqa: PLR2004
        raise ValueError("a port is 1 to 65535")
    return host["ipv6"] or host["name"], port


def _login(username: str | None, password: str | None) -> Mapping[str, str | None]:
    return {"username": username or None, "password": password or None}


def _parse_options(query: str) -> Mapping[str, str]:
    # What is wrong is not shown: it may be a piece of a password.
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not options.keys() <= _OPTIONS:
        raise ValueError(f"the options after the ? are {', '.join(sorted(_OPTIONS))}")
    return options


def _parse_timeout(text: str | None) -> float:
    try:
        timeout = DEFAULT_TIMEOUT if text is None else float(text)
    except ValueError:
        timeout = 0
    if not 0 < timeout <= _LONGEST_TIMEOUT:
        raise ValueError(f"a timeout is more than 0 and at most {_LONGEST_TIMEOUT:.0f} seconds")
    return timeout


def _parse_tls(options: Mapping[str, str]) -> Mapping[str, Any]:
    files = {name: options[name] for name in _TLS_FILES & options.keys()}
    for name, path in files.items():
        if not Path(path).is_file():
            raise ValueError(f"{name} names no file")
    check = options.get("ssl_check_hostname", "yes").lower()
    if check not in _YES_NO:
        raise ValueError("ssl_check_hostname is yes or no")
    return {**files, "ssl_check_hostname": _YES_NO[check]}
