"""Which app a call belongs to, and who makes it: by credential, else by origin, else the default.

Knows apps by name and by what they ask for; the rules behind a name are others' business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from multidict import CIMultiDictProxy

from keyproxy.call import Client
from keyproxy.clients import credentials
from keyproxy.clients.addresses import UNKNOWN, Addresses, refuse_public
from keyproxy.clients.credentials import Tokens
from keyproxy.clients.jwt import Verifier, looks_like_jwt
from keyproxy.clients.sessions import Sessions, looks_like_session
from keyproxy.dataclass import dataclass
from keyproxy.errors import Refusal
from keyproxy.settings import Secret

ASKED_FOR = {
    "token": "a client token",
    "jwt": "the JWT of a signed-in user",
    "session": "a session from POST /session",
}


_MOST_WARNINGS = 16
_log = structlog.get_logger("keyproxy.clients")


@dataclass(frozen=True, slots=True)
class Door:
    """What one app asks of its callers. ``claims``: whether pages of an origin are the app's."""

    app: str
    auth: str
    claims: Callable[[str], bool]
    verifier: Verifier | None = None


@dataclass(eq=False)
class Identity:
    """Who calls, by the doors of all apps; the default app's is the first.

    ``is_private``: refuse calls that came through a web server from a public address. ``keys``:
    those of ours that nobody knows by their form, and that no page may hold.
    """

    doors: Sequence[Door]
    addresses: Addresses
    tokens: Tokens
    sessions: Sessions
    is_private: bool = False
    keys: frozenset[Secret] = frozenset()

    def __post_init__(self) -> None:
        self._doors = {door.app: door for door in self.doors}
        self._default, *self._named = self.doors
        self._unknown: set[str] = set()

    def shown(self, headers: CIMultiDictProxy[str]) -> tuple[str, ...]:
        """Each different credential of a head that may be shown here.

        Raises ``provider_key_sent``, ``origin_not_allowed``.
        """
        shown = credentials.shown(headers, self.keys)
        if self.is_private:
            refuse_public(headers)
        return shown

    def address(self, peer: str | None, headers: CIMultiDictProxy[str]) -> str:
        """The caller's own network address, as text."""
        caller = self.addresses.of(peer, headers)
        return "" if caller is None else str(caller.address)

    def network(self, peer: str | None, headers: CIMultiDictProxy[str]) -> str:
        """The network address that limits for addresses count by."""
        caller = self.addresses.of(peer, headers)
        return UNKNOWN if caller is None else caller.site

    async def identify(self, peer: str | None, headers: CIMultiDictProxy[str]) -> Client:
        """The client of one call.

        Raises ``provider_key_sent``, ``origin_not_allowed``, ``credential_missing``,
        ``credential_invalid``, ``credential_expired``.
        """
        shown = self.shown(headers)
        caller = self.addresses.of(peer, headers)
        network = UNKNOWN if caller is None else caller.site
        door = self.door(headers)
        if len(shown) == 1:  # a credential that only one client can have
            if (holder := self.tokens.holder(shown[0])) is not None:
                return Client(holder.id, network, holder.app, is_address=False)
            if looks_like_session(shown[0]):
                return self._of_session(shown[0], network, headers)
            if looks_like_jwt(shown[0]):
                client = await self._of_jwt(shown[0], network, door)
                if client is not None:
                    return client
        if door.auth == "none":
            return Client(UNKNOWN if caller is None else caller.device, network, door.app)
        raise credentials.refusal(shown, ASKED_FOR[door.auth])

    def door(self, headers: CIMultiDictProxy[str]) -> Door:
        """The app of a page's origin, else the default app."""
        if self._named and (origin := headers.get("Origin")) is not None:
            return next((door for door in self._named if door.claims(origin)), self._default)
        return self._default

    def _of_session(self, shown: str, network: str, headers: CIMultiDictProxy[str]) -> Client:
        """A same-origin GET carries no Origin (Fetch standard), but a Host that says the same."""
        origins: tuple[str | None, ...] = (headers.get("Origin"),)
        if origins == (None,):
            origins += tuple(f"{scheme}://{headers.get('Host')}" for scheme in ("https", "http"))
        session = self.sessions.read(shown, *origins)
        door = self._doors.get(session.app)
        if door is None or door.auth != "session":
            raise Refusal(
                "credential_invalid",
                f"{credentials.NOT_ACCEPTED}.",
                hint="a session of an app that has none any more",
            )
        return Client(session.id, network, session.app, is_address=False)

    async def _of_jwt(self, shown: str, network: str, door: Door) -> Client | None:
        """The user of a JWT, whose app is the page's, or the first that takes such JWTs.

        Where the page's app asks for nothing, a JWT that nobody here takes is passed over.
        """
        first: dict[Verifier, Door] = {}
        for each in (door, *self._doors.values()):
            if each.verifier is not None:
                first.setdefault(each.verifier, each)
        refusal: Refusal | None = None
        for verifier, taking in first.items():
            try:
                claims = await verifier.verify(shown)
            except Refusal as error:
                refusal = refusal or error
                continue
            app = self._tier(claims.app, verifier) or taking.app
            return Client(claims.subject, network, app, is_address=False)
        if refusal is None or door.auth == "none":
            return None
        raise refusal

    def _tier(self, name: str | None, verifier: Verifier) -> str | None:
        """The app that a claim names, where it takes the same JWTs."""
        if name is None:
            return None
        door = self._doors.get(name)
        if door is not None and door.verifier is verifier:
            return name
        if name not in self._unknown and len(self._unknown) < _MOST_WARNINGS:
            self._unknown.add(name)
            _log.warning("JWTs name an app that does not take them", app=name)
        return None
