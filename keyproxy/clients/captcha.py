"""Asks the vendor of a captcha whether a page's response is good.

Fails closed: no answer, a late one or one that cannot be read is a no. Knows no sessions.

Sources (November 2026): Cloudflare, "Turnstile: validate the token" (siteverify, its parameters,
error codes, 2,048 characters, five minutes, once) and "Test your Turnstile implementation";
docs.hcaptcha.com, "Verify the User Response Server Side" and "Integration Testing: Test Keys".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import structlog

from keyproxy import __version__
from keyproxy.clients.addresses import parse_address
from keyproxy.dataclass import dataclass, field
from keyproxy.errors import Refusal
from keyproxy.key_forms import Secret
from keyproxy.settings.consistency import TEST_SECRETS
from keyproxy.settings.table import Vendor as VendorName
from keyproxy.strict_json.body import load
from keyproxy.transport.fetch import fetch

TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = 5.0
MAX_ANSWER_BYTES = 16 * 1024  # a verdict has a few hundred
_log = structlog.get_logger("keyproxy.captcha")


class Vendor(NamedTuple):
    """What one vendor documents."""

    url: str
    max_response: int
    may_withhold_hostname: bool = False


VENDORS: Mapping[str, Vendor] = {
    "turnstile": Vendor("https://challenges.cloudflare.com/turnstile/v0/siteverify", 2048),
    "hcaptcha": Vendor(
        "https://api.hcaptcha.com/siteverify",
        max_response=8192,  # no documented bound; responses of some thousand are common
        # "not-provided" while a site has unusually many challenges, so just under attack.
        # There a response is bound to the account by its secret instead.
        may_withhold_hostname=True,
    ),
}
_PRINTABLE = re.compile(r"[!-~]+")
_CODE = re.compile(r"[a-z-]{1,64}")
_SPENT = {
    "timeout-or-duplicate",
    "expired-input-response",
    "already-seen-response",
    "invalid-or-already-seen-response",
}
_WRONG_SECRET = {"missing-input-secret", "invalid-input-secret"}


@dataclass(eq=False)
class Captcha:
    """One vendor, asked over a shared HTTP session.

    ``url``: another address that speaks as the vendor's siteverify does.
    """

    vendor: VendorName
    secret: Secret
    session: aiohttp.ClientSession
    url: str | None = None
    timeout_seconds: float = TIMEOUT_SECONDS
    _trouble: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._documented = VENDORS[self.vendor]
        self._is_test = self.secret.reveal() in TEST_SECRETS
        if self._is_test:
            _log.warning(
                "the captcha's secret is one of its vendor's for tests: it does not tell people"
                " from programs",
                vendor=self.vendor,
            )

    async def verify(
        self, response: str, remote_address: str | None, *, origin: str | None = None
    ) -> None:
        """Returns when the vendor says yes to ``response``, which it does once.

        ``remote_address`` is the caller's own, not a bucket. With ``origin`` the captcha must have
        been solved on a page of its host. Raises ``captcha_failed``.
        """
        if not response:
            raise _refused("A solved captcha is asked for, and none was sent.")
        if len(response) > self._documented.max_response or not _PRINTABLE.fullmatch(response):
            raise _refused("What was sent is no captcha's response.")
        verdict = await self._ask(response, remote_address)
        self._note(None)
        if verdict["success"] is not True:
            codes = reasons(verdict)
            hint = f"{self.vendor}: {', '.join(codes) or 'no reason given'}"
            text = "The captcha was not passed. Solve a new one."
            if not _SPENT.isdisjoint(codes):
                text = "The captcha's response was used before or is too old. Solve a new one."
            raise _refused(text, hint=hint)
        if origin is not None and not self._is_of(verdict.get("hostname"), origin):
            raise _refused(
                "The captcha was solved on another site. Solve one on this page.",
                hint=f"solved on {verdict.get('hostname')!r:.80}, sent by {origin!r:.80}",
            )

    async def _ask(self, response: str, remote_address: str | None) -> dict[str, Any]:
        """The vendor's verdict, whose ``success`` is a boolean. Raises ``captcha_failed``."""
        form = {"secret": self.secret.reveal(), "response": response}
        address = parse_address(remote_address or "")
        if address is not None and address.is_global:  # a private one tells the vendor nothing
            form["remoteip"] = str(address)
        try:
            status, _, raw = await fetch(
                self.session,
                self.url or self._documented.url,
                max_bytes=MAX_ANSWER_BYTES,
                timeout_seconds=self.timeout_seconds,
                head={"User-Agent": f"keyproxy/{__version__}"},
                sent=form,
            )
        except TimeoutError as error:
            raise self._no_verdict(f"no answer within {self.timeout_seconds:g} s") from error
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            raise self._no_verdict(f"cannot be reached ({type(error).__name__})") from error
        verdict = read_verdict(raw or b"")
        # A yes is a 200; a no may come with a 4xx.
        if verdict is None or not (
            status == 200 or (400 <= status < 500 and not verdict["success"])
        ):
            raise self._no_verdict(f"the answer, status {status}, is no verdict")
        codes = reasons(verdict)
        if not _WRONG_SECRET.isdisjoint(codes):
            raise self._no_verdict("the secret is not accepted; set KEYPROXY_CAPTCHA_SECRET")
        if "internal-error" in codes:
            raise self._no_verdict("internal-error")
        return verdict

    def _no_verdict(self, why: str) -> Refusal:
        """The vendor said neither yes nor no; ``why`` is for the operator."""
        self._note(why)
        return _refused(
            "The captcha cannot be checked at the moment. Solve a new one in a few seconds.",
            hint=f"{self.vendor}: {why}",
            retry_after_seconds=RETRY_SECONDS,
        )

    def _is_of(self, hostname: Any, origin: str) -> bool:
        """Whether a captcha solved on ``hostname`` was solved on a page of ``origin``."""
        if self._is_test:  # those answer with a host of the vendor's
            return True
        if self._documented.may_withhold_hostname and hostname in (None, "not-provided"):
            return True
        try:
            host = urlsplit(origin).hostname
        except ValueError:
            return False
        return isinstance(hostname, str) and host is not None and _plain(hostname) == _plain(host)

    def _note(self, trouble: str | None) -> None:
        """One log line whenever the vendor stops to answer, answers again or fails otherwise."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            _log.info("captchas are checked again", vendor=self.vendor)
        else:
            text = "captchas cannot be checked: no new session is opened"
            _log.error(text, vendor=self.vendor, cause=trouble)


def read_verdict(raw: bytes) -> dict[str, Any] | None:
    """The vendor's JSON object, or None for a body that says neither yes nor no."""
    try:
        verdict, _ = load(raw)
    except ValueError:
        return None
    return verdict if isinstance(verdict.get("success"), bool) else None


def reasons(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    """The vendor's error codes, as far as they have the form of one."""
    codes = verdict.get("error-codes")
    if not isinstance(codes, list):
        return ()
    return tuple(c for c in codes[:8] if isinstance(c, str) and _CODE.fullmatch(c))


def _plain(host: str) -> str:
    return host.lower().rstrip(".").strip("[]")


_refused = partial(Refusal, "captcha_failed")
