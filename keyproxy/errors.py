"""Every refusal and failure: code, status, side; the one table of codes.

Knows no HTTP library and no settings. ``server/app.py`` is the only place that
turns these into answers.

    KeyproxyError
    ├── SettingsFault      one setting is wrong: variable, what was found, what is expected
    ├── SettingsFaults     all of them at once; nothing starts
    └── Refusal            our "no" to one call, with a code of ``CODES``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

from keyproxy.dataclass import KW_ONLY, dataclass, field


class Side(StrEnum):
    """Whose fault a refusal is."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    OURS = "ours"


class Step(StrEnum):
    """Where on its way a call was refused, in the order of the steps."""

    STOPPING = "stopping"
    HEAD = "head"
    HOST = "host"
    ORIGIN = "origin"
    CREDENTIAL = "credential"
    ENDPOINT = "endpoint"
    LIMITS = "limits"
    BODY = "body"
    POLICY = "policy"
    ROUTING = "routing"
    MONEY = "money"
    UPSTREAM = "upstream"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Code:
    """What a refusal's name stands for. ``curable``: the same call may succeed later.
    ``must_close``: the connection ends after the answer, because a body is left unread or in
    doubt."""

    status: int
    step: Step
    side: Side = Side.CLIENT
    curable: bool = False
    must_close: bool = False


CODES: Mapping[str, Code] = MappingProxyType(
    {
        "shutting_down": Code(503, Step.STOPPING, Side.OURS, curable=True, must_close=True),
        "bad_request": Code(400, Step.HEAD, must_close=True),
        "head_timeout": Code(408, Step.HEAD, curable=True, must_close=True),
        "uri_too_long": Code(414, Step.HEAD, must_close=True),
        "expectation_failed": Code(417, Step.HEAD, must_close=True),
        "head_too_large": Code(431, Step.HEAD, must_close=True),
        "host_not_allowed": Code(421, Step.HOST, must_close=True),
        "origin_not_allowed": Code(403, Step.ORIGIN),
        "not_paired": Code(403, Step.ORIGIN),
        "credential_missing": Code(401, Step.CREDENTIAL),
        "credential_invalid": Code(401, Step.CREDENTIAL),
        "credential_expired": Code(401, Step.CREDENTIAL),
        "captcha_failed": Code(403, Step.CREDENTIAL),
        "provider_key_sent": Code(400, Step.CREDENTIAL),
        "endpoint_not_allowed": Code(404, Step.ENDPOINT, must_close=True),
        "method_not_allowed": Code(405, Step.ENDPOINT, must_close=True),
        "query_not_allowed": Code(400, Step.ENDPOINT, must_close=True),
        "rate_limited": Code(429, Step.LIMITS, curable=True),
        "too_many_in_flight": Code(429, Step.LIMITS, curable=True),
        "overloaded": Code(503, Step.LIMITS, Side.OURS, curable=True),
        "body_timeout": Code(408, Step.BODY, curable=True, must_close=True),
        "body_too_large": Code(413, Step.BODY, must_close=True),
        "unsupported_media_type": Code(415, Step.BODY, must_close=True),
        "invalid_json": Code(400, Step.BODY),
        "model_missing": Code(400, Step.POLICY),
        "model_not_allowed": Code(403, Step.POLICY),
        "field_not_allowed": Code(403, Step.POLICY),
        "no_provider_qualifies": Code(404, Step.ROUTING),
        "budget_exhausted": Code(402, Step.MONEY, curable=True),
        "call_too_costly": Code(402, Step.MONEY),
        "budget_busy": Code(429, Step.MONEY, curable=True),
        "upstream_unavailable": Code(503, Step.UPSTREAM, Side.UPSTREAM, curable=True),
        "upstream_unreachable": Code(502, Step.UPSTREAM, Side.UPSTREAM, curable=True),
        "upstream_key_rejected": Code(502, Step.UPSTREAM, Side.UPSTREAM),
        "upstream_invalid": Code(502, Step.UPSTREAM, Side.UPSTREAM, curable=True),
        "upstream_timeout": Code(504, Step.UPSTREAM, Side.UPSTREAM, curable=True),
        "internal_error": Code(500, Step.SERVER, Side.OURS, curable=True, must_close=True),
    }
)
"""The one table of refusals; what each asks of a page stands in the README."""


_MESSAGES_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def messages_type(status: int) -> str:
    """Anthropic's name for an HTTP status (docs.anthropic.com, "Errors")."""
    return _MESSAGES_TYPES.get(status, "api_error")


class KeyproxyError(Exception):
    """Base of everything keyproxy raises on purpose."""


@dataclass(eq=False, repr=False)
class SettingsFault(KeyproxyError):
    """One setting is wrong. ``found`` never holds a secret's value."""

    variable: str
    _: KW_ONLY
    expected: str
    found: str | None = None
    paste: str | None = None

    def __str__(self) -> str:
        found = "is not set" if self.found is None else f"is {self.found}"
        pasted = [] if self.paste is None else self.paste.splitlines()
        return "\n    ".join([f"{self.variable} {found}; expected: {self.expected}", *pasted])


class SettingsFaults(KeyproxyError):
    """Every fault of the settings, in the order of the settings table."""

    def __init__(self, faults: Sequence[SettingsFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, faults)))


@dataclass(eq=False, repr=False)
class Refusal(KeyproxyError):
    """Our "no" to one call.

    ``message`` is fit for strangers. ``hint`` is shown in ``dev`` and in the log only: the line to
    paste, ``NAME=value`` with the whole new value, which ``advice`` writes as its layer wants it,
    or words, or ``words: NAME=value``. ``retry_after_seconds`` is the true wait.
    ``is_unread``: a body is left unread, although its code alone does not say so.
    ``is_free``: whatever was asked of the upstream, it did nothing that could cost.
    ``details``: what an SDK of Anthropic's reads off ``error.details``.
    """

    code: str
    message: str
    _: KW_ONLY
    param: str | None = None
    hint: str | None = None
    retry_after_seconds: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_unread: bool = False
    is_free: bool = False
    details: Mapping[str, object] | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def status(self) -> int:
        return CODES[self.code].status

    @property
    def side(self) -> Side:
        return CODES[self.code].side

    @property
    def step(self) -> Step:
        return CODES[self.code].step

    @property
    def must_close(self) -> bool:
        return self.is_unread or CODES[self.code].must_close


def overloaded() -> Refusal:
    """The refusal of what this process has no memory for at the moment."""
    return Refusal(
        "overloaded",
        "Too many large requests at the moment.",
        retry_after_seconds=1,
        is_unread=True,
    )
