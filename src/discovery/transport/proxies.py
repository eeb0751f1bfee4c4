"""Who a caller is behind proxies: only trusted ones are believed, hop by hop from the nearest.

Each proxy writes down who connected to it. What a trusted proxy wrote is believed; if that names another trusted proxy,
then so is what that one wrote, to the left of it; what stands left of the first address that is not trusted may be a
client's own invention, and is never read.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from discovery.errors import ConfigError
from discovery.models import plain_address

Text = str | bytes
Headers = Iterable[tuple[Text, Text]] | Mapping[str, Text]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX = "unix:"
"""Names every unix socket among the trusted, as in nginx's `set_real_ip_from`."""

# Nobody chains more proxies than this: the rest of a longer header is padding.
_MAX_HOPS = 32
# What no proxy writes about one client: characters of an element, and pieces that commas in its quotes cut it into.
_MAX_ELEMENT = 1024
_MAX_PIECES = 8

_VALUE = r'(?:"(?:[^"\\]|\\.)*"|[^\s";,]+)'
_PAIR = rf"([!#$%&'*+.^_`|~\w-]+)=({_VALUE})"
# RFC 7239 section 4: forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] ). Each space can be matched in
# one place only, or else a hostile header would take for ever.
_ELEMENT = re.compile(rf"\s*(?:{_PAIR}\s*)?(?:;\s*(?:{_PAIR}\s*)?)*", re.ASCII)
_PAIRS = re.compile(_PAIR, re.ASCII)
# RFC 7239 section 6, `node`: IPv6 in brackets; the port may be obfuscated too.
_NODE = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]+))(?::(?:\d{1,5}|_[\w.-]+))?", re.ASCII)


class TrustedProxies:
    """The proxies whose word is taken for who their clients are. Without any, nobody's is."""

    def __init__(self, cidrs: Iterable[str] = ()) -> None:
        """Trust the networks, or single addresses, `cidrs`; `unix:` is every caller on a unix socket.

        Raises:
            ConfigError: one of them is no network.
        """
        given = set(cidrs)
        self._trusts_unix = UNIX in given
        self._networks = [_network(cidr) for cidr in sorted(given - {UNIX})]
        self._within = lru_cache(maxsize=4096)(self._is_within)

    def trusts(self, address: str | None) -> bool:
        """Tell whether the caller at `address` is such a proxy; None is a unix socket."""
        if address is None:
            return self._trusts_unix
        return bool(self._networks) and self._within(address)

    def client(self, peer: str | None, headers: Headers) -> str | None:
        """Return the address of the client that a call came from.

        `peer` is what the socket says: an IP address, or None on a unix socket. If it is not trusted it is the client,
        whatever `headers` say. Else it is the first address, from the right, of X-Forwarded-For that is not trusted,
        or the last that could be read before one that could not ("unknown", obfuscated, or no address).

        If there is an X-Forwarded-For, any Forwarded (RFC 7239) is left alone. Proxies mostly write X-Forwarded-For,
        and pass on a Forwarded as their client sent it, so preferring that would let clients choose their address. A
        proxy that writes Forwarded must remove its clients' X-Forwarded-For.

        Never raises, whatever the headers hold.
        """
        client = peer
        if not self.trusts(peer):
            return client
        for address in _hops(headers):
            if address is None:
                break
            client = address
            if not self.trusts(address):
                break
        return client

    def _is_within(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(plain_address(address) or "")
        except ValueError:
            return False
        return any(ip in network for network in self._networks)


def _network(cidr: str) -> Network:
    try:
        network = ipaddress.ip_network(cidr.strip())
    except ValueError as error:  # it says what is wrong, as in "10.0.0.1/8 has host bits set"
        raise ConfigError(
            f"trusted-proxy must be a network as in 10.0.0.0/8, an address, or {UNIX}: {error}"
        ) from None
    if getattr(network.network_address, "ipv4_mapped", None) is not None:
        raise ConfigError(f"trusted-proxy {cidr!r} dresses IPv4 as IPv6: write it as IPv4")
    return network


# -- Reading the headers --------------------------------------------------------------------------


def _hops(headers: Headers) -> Iterator[str | None]:
    """Yield whom each proxy names, the nearest proxy's word first; None for what is no address."""
    lines: dict[str, list[str]] = {"x-forwarded-for": [], "forwarded": []}
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        if (kept := lines.get(_text(name).lower())) is not None:
            kept.append(_text(value))
    # RFC 9110 section 5.3: several lines mean what one would with their values in that order.
    if lines["x-forwarded-for"]:
        return _x_forwarded_for(",".join(lines["x-forwarded-for"]))
    return _forwarded(",".join(lines["forwarded"]))


def _text(value: Text) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _x_forwarded_for(value: str) -> Iterator[str | None]:
    for entry in _from_the_right(value):
        if node := entry.strip():  # RFC 9110 section 5.6.1: empty elements of a list are ignored
            yield _address(node)


def _forwarded(value: str) -> Iterator[str | None]:
    """Read a Forwarded header from the right, because only what is left of a proxy's element is a stranger's.

    Read from the left, a quote that a client left open would swallow what the proxy added.
    """
    element, pieces = "", 0
    for piece in _from_the_right(value):
        element = f"{piece},{element}" if pieces else piece
        pieces += 1
        if len(element) > _MAX_ELEMENT or pieces > _MAX_PIECES:
            break
        if _ELEMENT.fullmatch(element):
            if element.strip():
                yield _named_by(element)
            element, pieces = "", 0
    if pieces:
        yield None


def _from_the_right(value: str) -> Iterator[str]:
    """Yield what stands between the commas."""
    cut = value.rsplit(",", _MAX_HOPS)
    whole = cut if len(cut) <= _MAX_HOPS else cut[1:]
    return reversed(whole)


def _named_by(element: str) -> str | None:
    nodes = [value for name, value in _PAIRS.findall(element) if name.lower() == "for"]
    if len(nodes) != 1:
        return None
    node = nodes[0]
    if node.startswith('"'):
        node = re.sub(r"\\(.)", r"\1", node[1:-1], flags=re.DOTALL)
    return _address(node)


def _address(node: str) -> str | None:
    """Return the IP address that `node` is, with or without a port."""
    if len(node) > _MAX_ELEMENT:
        return None
    if (bare := plain_address(node)) is not None:
        return bare
    match = _NODE.fullmatch(node)
    return plain_address(match[1] or match[2] or "") if match else None
