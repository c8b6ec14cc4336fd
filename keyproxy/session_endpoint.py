"""``POST /session``: a page without log-in becomes a client of its own.

The page's origin has been checked before. What an address may open is counted first, then the
captcha is asked about: whoever floods this costs nobody a request.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from keyproxy.clients.captcha import Captcha
from keyproxy.clients.identity import Door, Identity
from keyproxy.clients.sessions import Session, Sessions, looks_like_session
from keyproxy.dataclass import dataclass
from keyproxy.errors import Refusal
from keyproxy.limits.admit import announced, doubled, rate_headers, windows
from keyproxy.limits.counters import Counters
from keyproxy.limits.windows import Window
from keyproxy.settings import Rate
from keyproxy.strict_json import body
from keyproxy.transport import intake
from keyproxy.transport.messages import Request, Response

PATH = "/session"
_SESSIONS = "pages open sessions where the client auth is session"
MAX_BODY_BYTES = 16 * 1024  # hCaptcha's responses have up to some thousand characters
BODY_SECONDS = 10.0
# Once an hour is enough for each of a client's tabs; it costs no one else anything but a log line.
MOST_RENEWALS, RENEWALS_SECONDS = 30, 60
# The names under which the vendors' own widgets put the response into a form.
_FIELDS = ("captcha", "cf-turnstile-response", "h-captcha-response")


@dataclass(frozen=True, slots=True)
class Opening:
    """What opening a session needs, from one configuration."""

    identity: Identity
    sessions: Sessions
    captcha: Captcha | None
    counters: Counters
    rates: tuple[Rate, ...]

    async def open(self, request: Request, hold: intake.Hold, headers: dict[str, str]) -> Session:
        """The session that was asked for at ``PATH``; ``headers`` receives the RateLimit fields.

        A session that is shown and not too old is renewed: the client stays the same one.
        Raises ``provider_key_sent``, ``origin_not_allowed``, ``endpoint_not_allowed``,
        ``method_not_allowed``, ``query_not_allowed``, ``rate_limited``, ``captcha_failed`` and
        what reading a body raises.
        """
        shown = self.identity.shown(request.headers)
        door = self.identity.door(request.headers)
        check_head(request.method, request.target, door)
        origin = request.headers.get("Origin")
        session = self._renewed(shown, door, origin)
        if session is not None:
            renewals = Window("renewal", session.client.id, MOST_RENEWALS, RENEWALS_SECONDS)
            told = "The session was renewed too often; it is good for an hour."
            await self._count([renewals], headers, told)
            return session
        network = self.identity.network(request.remote, request.headers)
        told = "Too many sessions were opened from this network address."
        await self._count(windows("session", network, self.rates), headers, told, self.rates)
        response = await _captcha_response(request, hold)
        if self.captcha is not None:
            if origin is None:  # it could have been solved anywhere
                raise Refusal("captcha_failed", "A captcha is solved on a page, with an Origin.")
            address = self.identity.address(request.remote, request.headers)
            await self.captcha.verify(response, address, origin=origin)
        return self.sessions.open(door.app, origin)

    def _renewed(self, shown: Sequence[str], door: Door, origin: str | None) -> Session | None:
        if len(shown) != 1 or not looks_like_session(shown[0]):
            return None
        try:
            session = self.sessions.renew(shown[0], origin)
        except Refusal:
            return None  # a new one is opened, as if nothing had been shown
        return session if session.client.app == door.app else None

    async def _count(
        self,
        counted: Sequence[Window],
        headers: dict[str, str],
        message: str,
        rates: Sequence[Rate] = (),
    ) -> None:
        """``rates``: what the operator may raise where a window is full."""
        verdict = await self.counters.take(counted)
        headers.update(rate_headers(announced(counted), verdict))
        if not verdict.is_admitted:
            full = verdict.in_the_way
            raise Refusal(
                "rate_limited",
                message,
                retry_after_seconds=max(standing.resets_in_seconds for standing in full),
                hint=doubled("KEYPROXY_SESSION_RATE_LIMIT", rates, full) if rates else None,
                is_unread=True,
            )


def check_head(method: str, target: str, door: Door) -> None:
    """Raises ``endpoint_not_allowed``, ``method_not_allowed``, ``query_not_allowed``."""
    if door.auth != "session":
        raise Refusal(
            "endpoint_not_allowed",
            "There are no sessions here.",
            hint=_SESSIONS + (": KEYPROXY_CLIENT_AUTH=session" if door.auth == "none" else ""),
        )
    if method != "POST":
        raise Refusal(
            "method_not_allowed", "This path answers POST only.", headers={"Allow": "POST, OPTIONS"}
        )
    if target != PATH:
        raise Refusal("query_not_allowed", "This call takes no query string.")


async def _captcha_response(request: Request, hold: intake.Hold) -> str:
    """What the page says that its captcha answered; "" where it sends nothing."""
    if not request.has_body:
        return ""
    body.check_media_type(request.headers)
    raw = await intake.read_body(
        request, hold, max_bytes=MAX_BODY_BYTES, timeout_seconds=BODY_SECONDS, is_setting=False
    )
    parsed = body.read(raw)[0] if raw else {}
    response = next((parsed[name] for name in _FIELDS if name in parsed), "")
    if not isinstance(response, str):
        raise Refusal("invalid_json", "The field captcha must be a text.", param="captcha")
    return response


def answer(session: Session) -> Response:
    """A session as the page gets it."""
    shown = {
        "token": session.token,
        "token_type": "Bearer",
        "expires_in": session.expires_in_seconds,
    }
    fields = {"Cache-Control": "no-store", "Content-Type": "application/json"}
    return Response(200, fields, json.dumps(shown).encode())
