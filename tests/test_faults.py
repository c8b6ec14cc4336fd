"""Whose fault an error is, in the shapes and words of those who send it (state November 2026)."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import pytest
from multidict import CIMultiDict

from keyproxy.upstream import faults
from keyproxy.upstream.faults import Fault
from keyproxy.upstream.gemini import GEMINI
from keyproxy.upstream.groq import GROQ
from keyproxy.upstream.openrouter import OPENROUTER
from keyproxy.upstream.provider import Provider
from keyproxy.upstream.providers import PROVIDERS
from tests.fakes.vendor import Complaint
from tests.fakes.vendors import VENDORS

NESTED = {"detail": [{"loc": ["body", "n"], "msg": "No"}]}
SHAPES: list[tuple[Any, tuple[str | None, str | int | None, str | None]]] = [
    ({"error": {"message": "No", "code": "c", "type": "t", "param": "p"}}, ("No", "c", "p")),
    ({"code": "Client specified", "error": "No"}, ("No", "Client specified", None)),
    ({"message": "No", "type": "t", "param": "p", "code": "c"}, ("No", "c", "p")),
    ({"detail": [{"type": "x", "loc": ["body", "store"], "msg": "No"}]}, ("No", None, "store")),
    ([{"error": {"code": 400, "message": "No", "status": "X"}}], ("No", 400, None)),
    ({"object": "error", "message": NESTED, "code": 3001}, ("No", 3001, "n")),
    ({"detail": "No"}, ("No", None, None)),
]


@pytest.mark.parametrize(("body", "told"), SHAPES)
def test_each_shape_of_an_error_is_read(
    body: Any, told: tuple[str | None, str | int | None, str | None]
) -> None:
    said = faults.said(body)
    assert said is not None
    assert (said.message, said.code, said.param) == told


@pytest.mark.parametrize("body", [None, [], 7, "No", {}, {"error": None}, {"error": []}, [[]]])
def test_what_is_no_error_says_nothing(body: Any) -> None:
    assert faults.said(body) is None


def error(message: str = "", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


NO_FILE = "You do not have permission to access the File abc or it may not exist."


@pytest.mark.parametrize(
    ("provider", "status", "body", "fault"),
    [
        (GROQ, 429, error(code="rate_limit_exceeded"), Fault.LOAD),
        (GROQ, 413, error("too large", code="rate_limit_exceeded", type="tokens"), Fault.LOAD),
        (GROQ, 413, error("Request Entity Too Large"), Fault.CALLER),
        (GROQ, 498, None, Fault.LOAD),
        (GROQ, 400, error("property 'store' is unsupported"), Fault.FIELD),
        (GROQ, 400, error("property 'x' is unsupported", param="messages.0.x"), Fault.CALLER),
        (GROQ, 400, error("no such tool", code="tool_use_failed"), Fault.CALLER),
        (GROQ, 400, error("Please reduce the length of the messages"), Fault.CONTEXT),
        (GROQ, 404, error(code="model_not_found"), Fault.CONFIG),
        (GROQ, 401, None, Fault.ACCOUNT),
        (GROQ, 422, error("bad"), Fault.CALLER),
        (GROQ, 500, None, Fault.UNCERTAIN),
        (GROQ, 200, error("overloaded", code=503), Fault.LOAD),
        (GROQ, 200, error("broke off"), Fault.UNCERTAIN),
        (GROQ, 200, error("bad", code="x", type="invalid_request_error"), Fault.CALLER),
        (GROQ, 200, error("bad", type="server_error"), Fault.UNCERTAIN),
        (GEMINI, 403, error("Permission denied", status="PERMISSION_DENIED"), Fault.ACCOUNT),
        (GEMINI, 403, error(NO_FILE, status="PERMISSION_DENIED"), Fault.CALLER),
        (OPENROUTER, 404, error("No endpoints found"), Fault.CONFIG),
        (OPENROUTER, 404, error("No endpoints found for a/b."), Fault.CONFIG),
        (OPENROUTER, 404, error("No endpoints found matching your data policy"), Fault.CALLER),
        (OPENROUTER, 404, error("No endpoints found that can handle the parameters"), Fault.CALLER),
        (OPENROUTER, 404, error("No allowed providers are available"), Fault.CALLER),
        (OPENROUTER, 402, error("This request would exceed your in-flight budget"), Fault.LOAD),
        (OPENROUTER, 400, error("x/y is not a valid model ID"), Fault.CONFIG),
        (OPENROUTER, 403, error("flagged by moderation"), Fault.CALLER),
        (OPENROUTER, 402, error("more credits"), Fault.ACCOUNT),
    ],
)
def test_whose_fault_it_is(provider: Provider, status: int, body: Any, fault: Fault) -> None:
    assert provider.classify(status, body) is fault


def test_an_accounts_trouble_may_be_told_with_an_apostrophe() -> None:
    body = error("This request would exceed your organization's spend limit.")
    assert PROVIDERS["anthropic"].classify(400, body) is Fault.ACCOUNT


ECHOED = (
    *("Your credit balance is too low", "reached your usage limits", "API key not valid"),
    *("incorrect API key", "used all available credits", "x is not a valid model ID"),
    "This request would exceed your credits given your in-flight requests",
)


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("said", ECHOED)
def test_what_a_caller_wrote_is_not_taken_for_the_providers_word(name: str, said: str) -> None:
    """Errors repeat the values that they refuse; what they say themselves begins them."""
    for text in (f"tool_choice.type: '{said}' is none", f"This model has no tool `{said}`"):
        assert PROVIDERS[name].classify(400, error(text)) is Fault.CALLER


def test_a_message_is_judged_by_its_beginning() -> None:
    """A caller may have written the rest of it, so that it takes long to look through."""
    said = "maximum context length"
    assert GROQ.classify(400, error("x" * 1900 + said)) is Fault.CONTEXT
    assert GROQ.classify(400, error("x" * 2000 + said)) is Fault.CALLER


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}


@pytest.mark.parametrize(
    ("head", "body", "seconds"),
    [
        ({"Retry-After": "7"}, None, 7.0),
        ({"Retry-After": "7", "Retry-After-Ms": "1500"}, None, 1.5),
        ({}, [{"error": {"details": [{"@type": "x"}, RETRY_INFO]}}], 34.07),
        ({"Retry-After": "soon"}, None, None),
        ({"Retry-After": "-1"}, {"error": "x"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, None, 0.0),
        ({}, None, None),
    ],
)
def test_an_error_tells_when_to_ask_again(
    head: dict[str, str], body: Any, seconds: float | None
) -> None:
    assert faults.rest_seconds(CIMultiDict(head), body) == seconds


def test_a_date_is_some_time_from_now() -> None:
    head = CIMultiDict({"Retry-After": formatdate(time.time() + 3600, usegmt=True)})
    rest = faults.rest_seconds(head, None)
    assert rest is not None
    assert 3500 < rest <= 3600


@pytest.mark.parametrize("name", PROVIDERS)
def test_each_error_of_the_fakes_is_laid_at_the_right_door(name: str) -> None:
    provider, vendor = PROVIDERS[name], VENDORS[name]
    for said, trouble in vendor.troubles.items():
        for dialect in vendor.paths:
            fault = provider.classify(trouble.status, vendor.body_of(trouble, dialect))
            told = "context" if said == "context" else trouble.kind
            assert fault == told, (said, dialect)


@pytest.mark.parametrize("name", sorted(VENDORS.keys() - {"deepinfra", "openrouter"}))
@pytest.mark.parametrize(
    ("complaint", "told"),
    [
        (Complaint("unknown", ("store",)), Fault.FIELD),
        (Complaint("unknown", ("messages", 1, "x")), Fault.CALLER),
        (Complaint("unknown", ("messages", 0, "content", 0, "x")), Fault.CALLER),
        (Complaint("unknown", ("tools", 0, "function", "x")), Fault.CALLER),
        (Complaint("value", ("n",), "must be one of [1]"), Fault.CALLER),
    ],
)
def test_what_a_caller_wrote_deep_within_takes_no_home_from_others(
    name: str, complaint: Complaint, told: Fault
) -> None:
    """At the top nothing goes up that the policy does not know: there our table is wrong."""
    provider, vendor = PROVIDERS[name], VENDORS[name]
    if name == "xai" and len(complaint.path) > 1:
        return  # it looks at the top only, and does not say where it has found something
    trouble = vendor.complain(complaint)
    for dialect in vendor.strict:
        body = vendor.body_of(trouble, dialect)
        assert provider.classify(trouble.status, body) == told, body


RESTS = {
    "openai": 1.4,
    "anthropic": 7.0,
    "gemini": 34.07,
    "groq": 2.0,
    "cerebras": None,
    "deepinfra": None,
    "mistral": 1.0,
    "xai": 7.0,
    "openrouter": 7.0,
}


@pytest.mark.parametrize(("name", "seconds"), RESTS.items())
def test_how_long_each_of_the_fakes_wants_to_be_left_alone(
    name: str, seconds: float | None
) -> None:
    vendor = VENDORS[name]
    trouble = vendor.troubles["rate"]
    headers = CIMultiDict({**vendor.hints, **trouble.headers})
    assert faults.rest_seconds(headers, vendor.body_of(trouble, "chat")) == seconds
