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
from keyproxy.clients.sessions import Sessions, looks_like_session
from keyproxy.clients.tokens import Tokens

ASKED_FOR = {
    "token": "a client token",
    "session": "a session from POST /session",
}


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
        sessions: Sessions,
        *,
        is_private: bool = False,
    ) -> None:
        """``is_private``: refuse calls that came through a web server from a public address."""
        self._default, *self._named = doors
        self._doors = {door.app: door for door in doors}
        self._addresses = addresses
        self._tokens = tokens
        self._sessions = sessions
        self._is_private = is_private

    def check_head(self, headers: CIMultiDictProxy[str]) -> None:
        """Raises ``provider_key_sent``, ``origin_not_allowed``."""
        credentials.refuse_provider_keys(headers)
        if self._is_private:
            refuse_public(headers)

    def address(self, peer: str | None, headers: CIMultiDictProxy[str]) -> str:
        """The caller's own network address, as text."""
        return str(self._addresses.of(peer, headers) or "")

    def network(self, peer: str | None, headers: CIMultiDictProxy[str]) -> str:
        """The network address that limits for addresses count by."""
        return bucket(self._addresses.of(peer, headers), SITE_PREFIX)

    async def identify(self, peer: str | None, headers: CIMultiDictProxy[str]) -> Client:
        """The client of one call.

        Raises ``provider_key_sent``, ``origin_not_allowed``, ``credential_missing``,
        ``credential_invalid``, ``credential_expired``.
        """
        self.check_head(headers)
        address = self._addresses.of(peer, headers)
        network = bucket(address, SITE_PREFIX)
        shown = credentials.shown(headers)
        if len(shown) == 1 and (client := self._known(shown[0], network, headers)) is not None:
            return client
        door = self.door(headers)
        if door.auth == "none":
            return Client(bucket(address), network, door.app)
        if not shown:
            raise credentials.missing(ASKED_FOR[door.auth])
        raise credentials.invalid(
            "two different credentials" if len(shown) > 1 else f"not {ASKED_FOR[door.auth]}"
        )

    def door(self, headers: CIMultiDictProxy[str]) -> Door:
        """The app of a page's origin, else the default app."""
        origin = headers.get("Origin")
        if origin is None:
            return self._default
        return next((door for door in self._named if door.claims(origin)), self._default)

    def _known(self, shown: str, network: str, headers: CIMultiDictProxy[str]) -> Client | None:
        """Whoever shows a credential that only one client can have."""
        if (holder := self._tokens.holder(shown)) is not None:
            return Client(holder.name, network, holder.app, is_address=False)
        if not looks_like_session(shown):
            return None
        session = self._sessions.read(shown, headers.get("Origin"))
        door = self._doors.get(session.app)
        if door is None or door.auth != "session":
            raise credentials.invalid("a session of an app that has none any more")
        return Client(session.id, network, session.app, is_address=False)
