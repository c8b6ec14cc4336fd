"""``dev --lan``: devices of the local network call once they have been paired, and no others.

A code that stands on the developer's terminal admits the address that brings it, until keyproxy
is stopped. Of a page's address it is the fragment, which no browser sends and no log has. Own
pages on any port of this host may call then, through the device that shows them. No I/O.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from multidict import CIMultiDictProxy

from keyproxy.clients.addresses import parse_address
from keyproxy.dataclass import dataclass, field
from keyproxy.errors import Refusal
from keyproxy.key_forms import is_same
from keyproxy.transport.messages import Request

PATH = "/pair"
CODE_FIELD = "X-Pairing-Code"
CODE_SECONDS = 120.0
MOST_WRONG, MOST_WRONG_IN_ALL = 5, 50
"""Guesses of one address, after which it is not listened to, and of all, which end the code."""
_LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # none that is taken for another
_CODE_LETTERS = 10
_COOKIE = "keyproxy_paired"
_EMULATORS = ip_address("10.0.2.2")
"""What programs in Android's emulator call this computer."""
_PAIR = "open the address that keyproxy has printed on that device; Enter prints a new one"
_SAY_HOST = (
    "a dev server passed this on from the network: set `changeOrigin: false` in its proxy; on this"
    " computer, open the page as http://localhost"
)

Address = IPv4Address | IPv6Address


@dataclass(eq=False)
class Pairing:
    """Who was paired, and the code of the moment. Outlives a reload.

    ``address``: the one of this host that devices call. ``is_ours``: whether a peer's address is
    this computer.
    """

    address: Address
    is_ours: Callable[[Address], bool] = lambda address: address.is_loopback
    clock: Callable[[], float] = time.monotonic
    code: str = field(default="", init=False, repr=False)
    _ends_at: float = field(default=float("-inf"), init=False)
    _admitted: set[Address | None] = field(default_factory=set, init=False)
    _wrong: Counter[Address | None] = field(default_factory=Counter, init=False)
    _cookie: str = field(default_factory=secrets.token_urlsafe, init=False, repr=False)

    @property
    def host(self) -> str:
        """As a URL has it."""
        return f"[{self.address}]" if self.address.version == 6 else str(self.address)

    @property
    def origins(self) -> tuple[str, ...]:
        """Pages of this host, on any port."""
        return tuple(
            f"{scheme}://{self.host}{port}" for scheme in ("http", "https") for port in ("", ":*")
        )

    def renew(self) -> str:
        """A new code; the old one is worth nothing any more."""
        self.code = "".join(secrets.choice(_LETTERS) for _ in range(_CODE_LETTERS))
        self._ends_at = self.clock() + CODE_SECONDS
        self._wrong.clear()
        return self.code

    def pair(self, request: Request) -> str:
        """Admit the device that brings the code, which is spent by that; the cookie by which a dev
        server on this host passes it on. Raises ``not_paired``."""
        device = parse_address(request.remote or "")
        said = request.headers.get(CODE_FIELD, "") if request.method == "POST" else ""
        is_heard = self._wrong[device] < MOST_WRONG and self._wrong.total() < MOST_WRONG_IN_ALL
        is_valid = is_heard and device is not None and self.clock() < self._ends_at
        if is_valid and is_same(said, self.code):
            self._ends_at = float("-inf")
            self._admitted.add(device)
            return f"{_COOKIE}={self._cookie}; Path=/; HttpOnly; SameSite=Lax"
        if is_heard:
            self._wrong[device] += 1
        raise Refusal(
            "not_paired",
            "This code is not valid, or not any more: it is good for two minutes, and once.",
            hint="press Enter where keyproxy runs for a new code",
        )

    def check(self, request: Request) -> None:
        """Raises ``not_paired`` for a call that comes from the network and of no paired device.

        What comes from this computer may be what a dev server has got from the network. It names
        an address of the network in ``Host`` unless the server changes that, and brings the
        cookie: cookies ignore ports.
        """
        headers, nearest = request.headers, parse_address(request.remote or "")
        if nearest is None or not self.is_ours(nearest):
            is_paired, hint = nearest in self._admitted, _PAIR
        elif self._is_of_network(headers.get("Host", "")):
            is_paired, hint = self._has_cookie(headers), _PAIR
        else:
            is_paired = not self._is_of_network(headers.get("Origin", "").rpartition("/")[2])
            hint = _SAY_HOST
        if not is_paired:
            text = "This device has not been paired with this development proxy."
            raise Refusal("not_paired", text, hint=hint)

    def _has_cookie(self, headers: CIMultiDictProxy[str]) -> bool:
        pairs = (each.strip() for each in headers.get("Cookie", "").split(";"))
        own = f"{_COOKIE}={self._cookie}"
        return any(is_same(pair, own) for pair in pairs)

    def _is_of_network(self, host: str) -> bool:
        """Whether a host is an address that others than this computer's own programs call it by:
        it may have several."""
        try:
            address = ip_address(urlsplit(f"//{host}").hostname or "")
        except ValueError:
            return False
        return address == self.address or not (address.is_loopback or address == _EMULATORS)
