"""From a connection and its forwarding headers to a network address.

A forwarding header is believed only from a peer that the operator named, and read from the
right, where trusted hops write (MDN "X-Forwarded-For", section on selecting an address; RFC
7239 8.1 on forged values).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import structlog
from multidict import CIMultiDictProxy

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
_MAX_ADDRESS = 80  # 45 characters, brackets, a port, a zone


@dataclass(eq=False, slots=True)
class Addresses:
    """Whose address a connection speaks for: its peer's, but for ``trusted`` ones, or so many
    ``hops``; ``address_header`` is where a trusted peer says it."""

    trusted: Sequence[Network]
    hops: int = 0
    address_header: str | None = None
    _warned: set[str] = field(default_factory=set, init=False)

    def of(self, peer: str | None, headers: CIMultiDictProxy[str]) -> Address | None:
        """The address of the caller: the peer's, or what a trusted peer says it is."""
        nearest = _parsed(peer or "")
        if self.hops:
            return self._by_hops(nearest, headers)
        if nearest is None:
            return None
        if not self._trusts(nearest):
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

    def _by_networks(self, nearest: Address, headers: CIMultiDictProxy[str]) -> Address:
        """The right-most hop that is not trusted; what stands left of it is the caller's own.

        What cannot be read ends the reading: whoever wrote it hides who spoke to it, and what
        stands left of that is anybody's. Then the last trusted hop is all that is known.
        """
        found = nearest
        for text in reversed(_hops(headers)):
            hop = parse_address(text)
            if hop is None:
                self._warn_of_value("X-Forwarded-For", found)
                break
            found = hop
            if not self._trusts(hop):
                break
        return found

    def _by_hops(self, nearest: Address | None, headers: CIMultiDictProxy[str]) -> Address | None:
        """So many hops from the right; the nearest one where they cannot all be read."""
        hops = [parse_address(text) for text in _hops(headers)[-self.hops :]]
        if None in hops:
            self._warn_of_value("X-Forwarded-For", nearest)
        elif len(hops) == self.hops:
            return hops[0]
        return nearest

    def _by_name(self, name: str, nearest: Address, headers: CIMultiDictProxy[str]) -> Address:
        values = headers.getall(name, [])
        named = parse_address(values[0]) if len(values) == 1 else None
        if values and named is None:
            self._warn_of_value(name, nearest)
        return named or nearest

    def _warn_of_value(self, name: str, counted: Address | None) -> None:
        self._warn_once(
            f"a trusted peer sent an empty or unreadable address in {name}; what stands left"
            " of it is not believed, so that all whom it forwards like that share one limit",
            counted_as=str(counted),
        )

    def _warn_once(self, event: str, **facts: str | None) -> None:
        if event not in self._warned:
            self._warned.add(event)
            _log.warning(event, **facts)

    def _trusts(self, address: Address) -> bool:
        return bool(self.trusted) and any(address in network for network in self.trusted)


def parse_address(text: str) -> Address | None:
    """``1.2.3.4``, ``1.2.3.4:80``, ``[::1]:80``, ``fe80::1%eth0``; mapped IPv4 is unmapped."""
    text = text.strip()
    return _parsed(text) if len(text) <= _MAX_ADDRESS else None


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Address | None:
    if match := _PORT.fullmatch(text):
        text = match[1] or match[2]
    text = text.removeprefix("[").removesuffix("]").partition("%")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=4096)
def bucket(address: Address | None, prefix: int = 64) -> str:
    """What limits count by: an IPv4 address, or the /64 that one IPv6 device holds."""
    if isinstance(address, IPv6Address):
        spare = 128 - prefix
        return str(IPv6Network((int(address) >> spare << spare, prefix)))
    return str(address or "unknown")


@lru_cache(maxsize=4096)
def shown(client: str, detail: str) -> str | None:
    """A client's address for the log: ``full``, ``prefix`` (IPv4 /24, IPv6 /48) or ``off``."""
    if detail == "off":
        return None
    address = parse_address(client.partition("/")[0])
    if detail == "full" or address is None:
        return client
    length = 24 if isinstance(address, IPv4Address) else 48
    return str(ip_network(f"{address}/{length}", strict=False))


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
