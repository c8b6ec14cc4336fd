"""From a connection and its forwarding headers to a network address.

A forwarding header is believed only from a peer that the operator named, and read from the
right, where trusted hops write (MDN "X-Forwarded-For", section on selecting an address; RFC
7239 8.1 on forged values).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import NamedTuple

import structlog
from multidict import CIMultiDictProxy

from keyproxy.dataclass import dataclass, field
from keyproxy.errors import Refusal

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

FORWARDING_HEADERS = (
    "X-Forwarded-For",
    "Forwarded",
    "X-Real-IP",
    "CF-Connecting-IP",
    "True-Client-IP",
    "X-Client-IP",
    "Fly-Client-IP",
)
_log = structlog.get_logger("keyproxy.clients")
_PORT = re.compile(r"(?:\[([^\]]+)\]|([0-9.]+)):[0-9]{1,5}")
_MAX_HOPS_READ = 32
SITE_PREFIX = 56  # what one household or office gets, 256 times /64 (RIPE-690, 4.2)
_MOST_KNOWN = 4096  # callers that are at hand
_MAX_ADDRESS = 80  # 45 characters, brackets, a port, a zone


class Caller(NamedTuple):
    """An address, and what limits count by: itself for IPv4, else the /64 that one IPv6 ``device``
    holds and the larger network of its ``site``, a household or office."""

    address: Address
    device: str
    site: str


UNKNOWN = "unknown"
"""What limits count those by who have no address."""


@dataclass(eq=False, slots=True)
class Addresses:
    """Whose address a connection speaks for: its peer's, but for ``trusted`` ones, or so many
    ``hops``; ``address_header`` is where a trusted peer says it."""

    trusted: Sequence[Network]
    hops: int = 0
    address_header: str | None = None
    _trusts: Callable[[Address], bool] = field(init=False)
    _warned: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._trusts = lru_cache(maxsize=_MOST_KNOWN)(self._is_trusted)

    def of(self, peer: str | None, headers: CIMultiDictProxy[str]) -> Caller | None:
        """The caller: the peer, or who a trusted peer says it is."""
        nearest = _parsed(peer or "")
        if self.hops:
            return self._by_hops(nearest, headers)
        if nearest is None:
            return None
        if not self._trusts(nearest.address):
            if "X-Forwarded-For" in headers:  # forged, or its sender was forgotten
                self._warn_once(
                    "a peer that is not trusted sent X-Forwarded-For; if it is your web server, all"
                    " its users share one limit until KEYPROXY_TRUSTED_PROXIES names it",
                    peer=peer,
                )
            return nearest
        if self.address_header is not None:
            return self._by_name(self.address_header, nearest, headers)
        return self._by_networks(nearest, headers)

    def _by_networks(self, nearest: Caller, headers: CIMultiDictProxy[str]) -> Caller:
        """The right-most hop that is not trusted; what stands left of it is the caller's own.

        What cannot be read ends the reading: whoever wrote it hides who spoke to it, and what
        stands left of that is anybody's. Then the last trusted hop is all that is known.
        """
        found = nearest
        for text in reversed(_hops(headers)):
            hop = _read(text)
            if hop is None:
                self._warn_of_value("X-Forwarded-For", found)
                break
            found = hop
            if not self._trusts(hop.address):
                break
        return found

    def _by_hops(self, nearest: Caller | None, headers: CIMultiDictProxy[str]) -> Caller | None:
        """So many hops from the right; the nearest one where they cannot all be read."""
        hops = [_read(text) for text in _hops(headers)[-self.hops :]]
        if None in hops:
            self._warn_of_value("X-Forwarded-For", nearest)
        elif len(hops) == self.hops:
            return hops[0]
        return nearest

    def _by_name(self, name: str, nearest: Caller, headers: CIMultiDictProxy[str]) -> Caller:
        values = headers.getall(name, [])
        named = _read(values[0]) if len(values) == 1 else None
        if values and named is None:
            self._warn_of_value(name, nearest)
        return named or nearest

    def _warn_of_value(self, name: str, counted: Caller | None) -> None:
        self._warn_once(
            f"a trusted peer sent an empty or unreadable address in {name}; what stands left"
            " of it is not believed, so that all whom it forwards like that share one limit",
            counted_as=str(counted and counted.address),
        )

    def _warn_once(self, event: str, **facts: str | None) -> None:
        if event not in self._warned:
            self._warned.add(event)
            _log.warning(event, **facts)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self.trusted)


def parse_address(text: str) -> Address | None:
    """``1.2.3.4``, ``1.2.3.4:80``, ``[::1]:80``, ``fe80::1%eth0``; mapped IPv4 is unmapped."""
    found = _read(text)
    return None if found is None else found.address


def _read(text: str) -> Caller | None:
    text = text.strip()
    return _parsed(text) if len(text) <= _MAX_ADDRESS else None


@lru_cache(maxsize=_MOST_KNOWN)
def _parsed(text: str) -> Caller | None:
    """Whoever has more clients than are kept reads one for each call: ``ip_address``, which reads
    the same ones, takes several times as long."""
    if ":" in text and (match := _PORT.fullmatch(text)):
        text = match[1] or match[2]
    text = text.removeprefix("[").removesuffix("]").partition("%")[0]
    try:
        packed = inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError):
        return None
    if ":" not in text:
        return Caller(IPv4Address(packed), text, text)
    address = IPv6Address(packed)
    if (mapped := address.ipv4_mapped) is not None:
        return Caller(mapped, str(mapped), str(mapped))
    return Caller(address, _network(address, 64), _network(address, SITE_PREFIX))


def _network(address: IPv6Address, prefix: int) -> str:
    """Which network of so many bits, whole bytes, it is in."""
    kept = address.packed[: prefix // 8]
    return f"{inet_ntop(AF_INET6, kept.ljust(16, bytes(1)))}/{prefix}"


@lru_cache(maxsize=_MOST_KNOWN)
def shown(client: str, detail: str) -> str | None:
    """A client's address for the log: ``full``, ``prefix`` (IPv4 /24, IPv6 /48) or ``off``."""
    if detail == "off":
        return None
    address = parse_address(client.partition("/")[0])
    if detail == "full" or address is None:
        return client
    if isinstance(address, IPv6Address):
        return _network(address, 48)
    return f"{str(address).rpartition('.')[0]}.0/24"


def _hops(headers: CIMultiDictProxy[str]) -> list[str]:
    """The last hops of every X-Forwarded-For line, left to right, empty ones too; bounded."""
    return _elements(headers, "X-Forwarded-For")[-_MAX_HOPS_READ:]


def _elements(headers: CIMultiDictProxy[str], name: str) -> list[str]:
    """Those of a list; none where nothing but its commas was sent."""
    elements = [text.strip() for text in ",".join(headers.getall(name, [])).split(",")]
    return elements if any(elements) else []


def refuse_public(headers: CIMultiDictProxy[str]) -> None:
    """Raises ``origin_not_allowed`` for a call that came through a web server from the internet,
    or through one that does not say whence."""
    for name in FORWARDING_HEADERS:
        for element in _elements(headers, name):
            for is_caller, text in _addresses(name, element):
                address = parse_address(text)
                if address.is_global if address is not None else is_caller:
                    whom = "an address on the internet" if address else "an unknown address"
                    raise Refusal(
                        "origin_not_allowed",
                        "This is a development proxy: it answers this computer only, and the call "
                        f"was forwarded for {whom}.",
                        hint=f"{name} names {'a public' if address else 'no readable'} address;"
                        " run `keyproxy serve` behind a web server",
                    )


def _addresses(name: str, element: str) -> list[tuple[bool, str]]:
    """What may be an address in an element of a header, and whether one must stand there."""
    if name != "Forwarded" or not element:
        return [(True, element)]
    pairs = [pair.partition("=") for pair in element.split(";")]  # RFC 7239, 4
    return [(key.strip().lower() == "for", value.strip().strip('"')) for key, _, value in pairs]
