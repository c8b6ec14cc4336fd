"""Captchas, verified against a small real server that answers as siteverify is documented to."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from keyproxy.clients.captcha import (
    TIMEOUT_SECONDS,
    VENDORS,
    Captcha,
    read_verdict,
    reasons,
)
from keyproxy.errors import Refusal
from keyproxy.key_forms import Secret
from keyproxy.settings.table import Vendor as VendorName
from tests import fake_upstream
from tests.siteverify import SECRET, Siteverify, serving

ORIGIN = "https://app.example"
USER = "93.184.216.34"
RESPONSE = "made-up.captcha_response-0001"


@pytest.fixture
async def vendor() -> AsyncIterator[Siteverify]:
    async with serving() as fake:
        yield fake


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as opened:
        yield opened


@pytest.fixture
def turnstile(vendor: Siteverify, session: aiohttp.ClientSession) -> Captcha:
    return Captcha("turnstile", SECRET, session, url=vendor.url)


async def refusal(asked: Captcha, response: str = RESPONSE, origin: str | None = ORIGIN) -> Refusal:
    """The refusal of one response; the secret is nowhere in it or in what led to it."""
    with pytest.raises(Refusal) as caught:
        await asked.verify(response, USER, origin=origin)
    error: BaseException | None = caught.value
    assert (caught.value.code, caught.value.status) == ("captcha_failed", 403)
    while error is not None:
        assert SECRET.reveal() not in f"{error!r} {error} {vars(error)}"
        error = error.__cause__ or error.__context__
    return caught.value


def is_for_later(refused: Refusal) -> bool:
    return refused.retry_after_seconds == 5 and "at the moment" in refused.message


@pytest.mark.parametrize("name", ["turnstile", "hcaptcha"])
async def test_a_yes_of_the_vendor_is_a_yes(
    name: VendorName, vendor: Siteverify, session: aiohttp.ClientSession
) -> None:
    asked = Captcha(name, SECRET, session, url=vendor.url)
    await asked.verify(RESPONSE, USER, origin=ORIGIN)
    assert vendor.asked == [
        {"secret": SECRET.reveal(), "response": RESPONSE, "remoteip": USER},
    ]
    assert vendor.headers[0]["Content-Type"] == "application/x-www-form-urlencoded"
    assert vendor.headers[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("name", ["turnstile", "hcaptcha"])
def test_the_documented_address_is_asked_over_tls(name: str) -> None:
    assert VENDORS[name].url.startswith("https://")
    assert VENDORS[name].url.endswith("/siteverify")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("93.184.216.34:99", "93.184.216.34"),
        ("[2606:2800:220:1::1]:9", "2606:2800:220:1::1"),
        ("::ffff:93.184.216.34", "93.184.216.34"),
        ("10.0.0.1", None),
        ("127.0.0.1", None),
        ("unknown", None),
        (None, None),
    ],
)
async def test_only_a_public_address_is_told(
    turnstile: Captcha, vendor: Siteverify, address: str | None, told: str | None
) -> None:
    await turnstile.verify(RESPONSE, address, origin=ORIGIN)
    assert vendor.asked[0].get("remoteip") == told


async def test_a_no_of_the_vendor_is_a_no(turnstile: Captcha, vendor: Siteverify) -> None:
    refused = await refusal(turnstile, "forged")
    assert "not passed" in refused.message
    assert refused.retry_after_seconds is None
    assert "invalid-input-response" in (refused.hint or "")
    assert len(vendor.asked) == 1


@pytest.mark.parametrize(
    "code",
    [
        "timeout-or-duplicate",
        "already-seen-response",
        "expired-input-response",
        "invalid-or-already-seen-response",
    ],
)
async def test_a_response_used_twice_is_told_so(
    turnstile: Captcha, vendor: Siteverify, code: str
) -> None:
    vendor.spent = code
    await turnstile.verify(RESPONSE, USER, origin=ORIGIN)
    refused = await refusal(turnstile)
    assert "used before" in refused.message
    assert refused.retry_after_seconds is None


@pytest.mark.parametrize("hostname", ["evil.example", "app.example.evil.example", "", None, 7])
async def test_a_captcha_solved_on_another_site_does_not_pass(
    turnstile: Captcha, vendor: Siteverify, hostname: Any
) -> None:
    vendor.hostname = hostname
    assert "another site" in (await refusal(turnstile)).message


@pytest.mark.parametrize("origin", ["null", "", "file://", "https://[", "https://evil.example"])
async def test_an_origin_of_another_host_or_none_does_not_pass(
    turnstile: Captcha, origin: str
) -> None:
    assert "another site" in (await refusal(turnstile, origin=origin)).message


@pytest.mark.parametrize(
    ("origin", "hostname"),
    [
        ("https://app.example:8443", "APP.example"),
        ("http://localhost:5173", "localhost"),
        ("capacitor://localhost", "localhost"),
        ("http://[::1]:5173", "[::1]"),
        (None, "anything.example"),
    ],
)
async def test_the_host_alone_of_an_origin_counts(
    turnstile: Captcha, vendor: Siteverify, origin: str | None, hostname: str
) -> None:
    vendor.hostname = hostname
    await turnstile.verify(RESPONSE, USER, origin=origin)
    assert len(vendor.asked) == 1


@pytest.mark.parametrize("hostname", ["not-provided", None])
async def test_hcaptcha_may_withhold_the_host_and_turnstile_may_not(
    vendor: Siteverify, session: aiohttp.ClientSession, hostname: str | None
) -> None:
    """It does so while a site is under attack, when refusing would lock every user out."""
    vendor.hostname = hostname
    await Captcha("hcaptcha", SECRET, session, url=vendor.url).verify("made-up-1", USER)
    await Captcha("hcaptcha", SECRET, session, url=vendor.url).verify(
        "made-up-2", USER, origin=ORIGIN
    )
    asked = Captcha("turnstile", SECRET, session, url=vendor.url)
    assert "another site" in (await refusal(asked, "made-up-3")).message


@pytest.mark.parametrize(
    ("name", "response"),
    [
        ("turnstile", ""),
        ("turnstile", " "),
        ("turnstile", "made-up\r\nresponse"),
        ("turnstile", "made-up\n"),
        ("turnstile", "mäde-up"),
        ("turnstile", "made-up\udcff"),
        ("turnstile", "a" * 2049),
        ("hcaptcha", "a" * 8193),
    ],
)
async def test_what_is_no_response_never_reaches_the_vendor(
    vendor: Siteverify, session: aiohttp.ClientSession, name: VendorName, response: str
) -> None:
    refused = await refusal(Captcha(name, SECRET, session, url=vendor.url), response)
    assert refused.retry_after_seconds is None
    assert vendor.asked == []


@pytest.mark.parametrize(("name", "length"), [("turnstile", 2048), ("hcaptcha", 8192)])
async def test_the_longest_response_is_asked_about(
    vendor: Siteverify, session: aiohttp.ClientSession, name: VendorName, length: int
) -> None:
    response = "made-up&remoteip=1.1.1.1".ljust(length, "x")
    await Captcha(name, SECRET, session, url=vendor.url).verify(response, None, origin=ORIGIN)
    assert vendor.asked == [{"secret": SECRET.reveal(), "response": response}]


HUGE = b'{"success":true,"hostname":"app.example","x":"' + b"x" * 20_000 + b'"}'
YES = '{"success":true,"hostname":"app.example"}'


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        True,
        {"success": "true", "hostname": "app.example"},
        {"success": 1, "hostname": "app.example"},
        {"success": None},
        {"success": False, "error-codes": ["internal-error"]},
        web.Response(text="<html>Just a moment…</html>", content_type="text/html"),
        web.Response(text=""),
        web.Response(body=b'\xff{"success":true}'),
        web.Response(text="[" * 10_000),
        web.Response(text="9" * 10_000),
        web.Response(body=HUGE),
        web.Response(status=500, text=YES),
        web.Response(status=503),
        web.Response(status=400, text=YES),
        web.Response(status=201, text=YES),
        web.Response(status=429, text="slow down"),
    ],
    ids=lambda answer: str(answer)[:40],
)
async def test_no_verdict_is_a_no_for_now(
    turnstile: Captcha, vendor: Siteverify, answer: Any
) -> None:
    vendor.answer = answer
    assert is_for_later(await refusal(turnstile))
    assert len(vendor.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"success": False},
        {"success": False, "error-codes": None},
        {"success": False, "error-codes": [7, None, "<b>", "x" * 10_000, "bad-request"]},
        web.Response(status=400, text='{"success":false,"error-codes":["bad-request"]}'),
    ],
    ids=lambda answer: str(answer)[:40],
)
async def test_a_no_may_give_any_reason_or_none(
    turnstile: Captcha, vendor: Siteverify, answer: Any
) -> None:
    vendor.answer = answer
    refused = await refusal(turnstile)
    assert "not passed" in refused.message
    assert len(refused.hint or "") < 100
    assert "<b>" not in (refused.hint or "")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    turnstile: Captcha, vendor: Siteverify, status: int
) -> None:
    vendor.answer = web.Response(status=status, headers={"Location": "/elsewhere"}, text=YES)
    assert is_for_later(await refusal(turnstile))
    assert len(vendor.asked) == 1


@pytest.mark.parametrize("begins", [False, True], ids=["silent", "stops in the middle"])
async def test_a_hanging_vendor_is_a_no(
    vendor: Siteverify, session: aiohttp.ClientSession, begins: bool
) -> None:
    vendor.answer, vendor.begins = None, begins
    asked = Captcha("turnstile", SECRET, session, url=vendor.url, timeout_seconds=0.2)
    refused = await refusal(asked)
    assert is_for_later(refused)
    assert "no answer within 0.2 s" in (refused.hint or "")
    assert TIMEOUT_SECONDS == 5


async def test_a_vendor_that_is_away_is_a_no(session: aiohttp.ClientSession) -> None:
    with socket.socket() as bound:  # to a port where nobody listens
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/siteverify"
        refused = await refusal(Captcha("turnstile", SECRET, session, url=url))
    assert is_for_later(refused)
    assert "cannot be reached" in (refused.hint or "")


async def test_an_answer_that_breaks_off_is_a_no(session: aiohttp.ClientSession) -> None:
    async with fake_upstream.raw(
        fake_upstream.replying(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + YES.encode())
    ) as url:
        assert is_for_later(await refusal(Captcha("turnstile", SECRET, session, url=url)))


async def test_a_wrong_secret_is_told_to_the_operator_and_not_to_the_page(
    vendor: Siteverify, session: aiohttp.ClientSession
) -> None:
    asked = Captcha("turnstile", Secret("0xWRONG-MADE-UP"), session, url=vendor.url)
    with capture_logs() as logs:
        refused = await refusal(asked)
    assert is_for_later(refused)
    assert "secret" not in refused.message
    assert "KEYPROXY_CAPTCHA_SECRET" in (refused.hint or "")
    assert "KEYPROXY_CAPTCHA_SECRET" in logs[0]["cause"]
    assert "0xWRONG" not in str(logs)


async def test_trouble_with_the_vendor_is_logged_once_per_change(
    turnstile: Captcha, vendor: Siteverify
) -> None:
    with capture_logs() as logs:
        vendor.answer = web.Response(status=503)
        await refusal(turnstile)
        vendor.answer = web.Response(status=503)
        await refusal(turnstile)
        vendor.answer = {"success": False, "error-codes": ["internal-error"]}
        await refusal(turnstile)
        vendor.answer = {"success": False}
        await refusal(turnstile)
        await refusal(turnstile)
    assert [line["log_level"] for line in logs] == ["error", "error", "info"]
    assert [line.get("cause", "")[-14:] for line in logs] == [
        " is no verdict",
        "internal-error",
        "",
    ]


async def test_a_caller_that_leaves_is_no_trouble_of_the_vendor(
    turnstile: Captcha, vendor: Siteverify
) -> None:
    vendor.answer = None
    with capture_logs() as logs:
        task = asyncio.create_task(turnstile.verify(RESPONSE, USER))
        await vendor.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert logs == []


@pytest.mark.parametrize(
    ("name", "secret", "hostname"),
    [
        ("turnstile", "1x0000000000000000000000000000000AA", "example.com"),
        ("hcaptcha", "0x0000000000000000000000000000000000000000", "dummy-key-pass"),
    ],
)
async def test_a_vendors_secret_for_tests_works_anywhere_and_is_warned_of(
    vendor: Siteverify,
    session: aiohttp.ClientSession,
    name: VendorName,
    secret: str,
    hostname: str,
) -> None:
    vendor.answer = {"success": True, "hostname": hostname}
    with capture_logs() as logs:
        asked = Captcha(name, Secret(secret), session, url=vendor.url)
    await asked.verify("XXXX.DUMMY.TOKEN.XXXX", None, origin="http://localhost:5173")
    assert [line["log_level"] for line in logs] == ["warning"]
    assert secret not in str(logs)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["success", "error-codes", "hostname"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_body_is_read_as_a_verdict_or_none(raw: bytes) -> None:
    verdict = read_verdict(raw)
    assert verdict is None or verdict["success"] in (True, False)
    assert all(isinstance(code, str) for code in reasons(verdict or {}))
