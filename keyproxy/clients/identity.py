"""Which app a call belongs to, and who makes it: by credential, else by origin, else the default.

Knows apps by name and by what they ask for; the rules behind a name are others' business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from multidict import CIMultiDictProxy

from keyproxy.call import Client
from keyproxy.clients import credentials
from keyproxy.clients.addresses import SITE_PREFIX, Addresses, bucket, refuse_public
from keyproxy.clients.tokens import Tokens

ASKED_FOR = {"token": "a client token"}


@dataclass(frozen=True, slots=True)
class Door:
    """What one app asks of its callers. ``claims``: whether pages of an origin are the app's."""

    app: str
    auth: str
    claims: Callable[[str], bool]


class Identity:
    """Who calls, by the doors of all apps; the default app's is the first."""

    def __init__(
        self,
        doors: Sequence[Door],
        addresses: Addresses,
        tokens: Tokens,
        *,
        is_private: bool = False,
    ) -> None:
        """``is_private``: refuse calls that came through a web server from a public address."""
        self._default, *self._named = doors
        self._addresses = addresses
        self._tokens = tokens
        self._is_private = is_private

    def network(self, peer: str | None, headers: CIMultiDictProxy[str]) -> str:
        """The network address that limits for addresses count by."""
        return bucket(self._addresses.of(peer, headers), SITE_PREFIX)

    async def identify(self, peer: str | None, headers: CIMultiDictProxy[str]) -> Client:
        """The client of one call.

        Raises ``provider_key_sent``, ``origin_not_allowed``, ``credential_missing``,
        ``credential_invalid``.
        """
        credentials.refuse_provider_keys(headers)
        if self._is_private:
            refuse_public(headers)
        address = self._addresses.of(peer, headers)
        network = bucket(address, SITE_PREFIX)
        door = self._by_origin(headers)
        shown = credentials.shown(headers)
        if len(shown) == 1 and (holder := self._tokens.holder(shown[0])) is not None:
            return Client(holder.name, network, holder.app, is_address=False)
        if door.auth == "none":
            return Client(bucket(address), network, door.app)
        if not shown:
            raise credentials.missing(ASKED_FOR[door.auth])
        hint = "two different credentials" if len(shown) > 1 else "not a known client token"
        raise credentials.invalid(hint)

    def _by_origin(self, headers: CIMultiDictProxy[str]) -> Door:
        origin = headers.get("Origin")
        if origin is None:
            return self._default
        return next((door for door in self._named if door.claims(origin)), self._default)
