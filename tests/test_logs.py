"""What is logged, and what never is."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import structlog
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from keyproxy import logs
from keyproxy.call import Cost, End, Usage
from keyproxy.dataclass import fields
from keyproxy.key_forms import STARS
from keyproxy.policy.models import Models, Served
from keyproxy.record import Record, new_request_id
from tests.conftest import BODY, KEY, Proxy, Start
from tests.fake_upstream import WIRE_HEADERS, FakeUpstream, event_stream


@pytest.fixture
def lines() -> Iterator[Any]:
    """Reads the JSON log so far."""
    stream = io.StringIO()
    logs.configure("json", "debug", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


async def call_line(lines: Any) -> dict[str, Any]:
    [line] = [line for line in lines() if "request_id" in line]
    return dict(line)


async def test_a_call_leaves_one_line(lines: Any, start: Start) -> None:
    proxy = await start("serve")
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"Origin": "https://app.example", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    async with proxy.post(headers=headers) as answer:
        length = len(await answer.read())
        request_id = answer.headers["X-Request-Id"]
    line = await call_line(lines)
    assert line.pop("timestamp").endswith("Z")
    first_byte, total = line.pop("first_byte_ms"), line.pop("total_ms")
    before = line.pop("queue_ms") + line.pop("client_ms") + line.pop("connect_ms")
    assert 0 < first_byte <= total
    assert before <= total + 0.2  # each is rounded
    assert 0 <= line.pop("longest_gap_ms") <= total
    assert line == {
        "message": "POST /api/v1/chat/completions 200",
        "level": "info",
        "request_id": request_id,
        "trace_id": trace,
        "app": "default",
        "client": "127.0.0.0/24",
        "origin": "https://app.example",
        "endpoint": "POST /api/v1/chat/completions",
        "model": "openai/gpt-4o-mini",
        "provider": "openrouter",
        "generation_id": WIRE_HEADERS["X-Generation-Id"],
        "served": "openai/gpt-4o-mini",
        "stream": False,
        "http_status": 200,
        "attempts": 1,
        "bytes": length,
        "bytes_up": len(json.dumps(BODY)),
        "input_tokens": 14,
        "output_tokens": 6,
        "cost": "0.000088",
        "cost_source": "exact",
        "ended": "complete",
    }


async def test_a_refusal_is_info_with_its_code_and_hint(lines: Any, start: Start) -> None:
    proxy = await start("serve")
    async with proxy.post(BODY | {"model": "x/y"}) as answer:
        assert "KEYPROXY" not in await answer.text()
    line = await call_line(lines)
    assert (line["level"], line["code"], line["ended"]) == ("info", "model_not_allowed", "refused")
    assert "KEYPROXY_ALLOWED_MODELS" in line["hint"]


async def test_a_refusal_names_the_field_that_it_is_about_and_no_value(
    lines: Any, start: Start, upstream: FakeUpstream
) -> None:
    proxy = await start("serve")
    async with proxy.post(BODY | {"temprature": "my-secret-value"}) as answer:
        assert answer.status == 403
    line = await call_line(lines)
    assert (line["code"], line["param"]) == ("field_not_allowed", "temprature")
    assert "my-secret-value" not in json.dumps(line)
    assert not upstream.calls


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        (
            "gpt-4o-mini",
            "the upstream lists no model gpt-4o-mini; openai/gpt-4o-mini perhaps?",
        ),
        ("openai/nope", "the upstream lists no model openai/nope"),
        ("openai/gpt-4o-mini", None),
    ],
)
async def test_a_model_that_the_upstream_does_not_list_is_named(
    lines: Any, proxy: Proxy, upstream: FakeUpstream, model: str, hint: str | None
) -> None:
    async def unknown(request: web.Request) -> web.Response:
        if request.method == "GET":
            return upstream.catalogue_answer(request)
        return web.json_response({"error": {"code": 400, "message": "not valid"}}, status=400)

    upstream.answer = unknown
    async with proxy.get("/api/v1/models") as answer:
        assert answer.status == 200
    async with proxy.post(BODY | {"model": model}) as answer:
        assert answer.status == 400
        assert "lists" not in await answer.text()
    assert lines()[-1].get("hint") == hint


async def test_a_refused_preflight_names_the_setting_in_the_log(lines: Any, proxy: Proxy) -> None:
    """The page shows only "CORS error", so the log must say what to do."""
    headers = {"Origin": "https://new.example", "Access-Control-Request-Method": "POST"}
    async with proxy.session.options(proxy.url + "/api/v1/models", headers=headers) as answer:
        assert answer.status == 403
    line = await call_line(lines)
    assert line["hint"] == "KEYPROXY_ALLOWED_ORIGINS=localhost,https://new.example"


async def test_a_served_model_that_is_not_allowed_stands_out(
    lines: Any, start: Start, upstream: FakeUpstream
) -> None:
    """A router or an alias of the upstream's may answer by another model."""
    stream = b': x\n\ndata: {"text":"\\"model\\":\\"a/b\\"","model" : "anthropic/opus"}\n\n'

    async def other(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        for byte in stream:
            await response.write(bytes([byte]))
        return response

    upstream.answer = other
    proxy = await start("serve")
    async with proxy.post() as answer:
        assert await answer.read() == stream
    line = await call_line(lines)
    assert (line["model"], line["served"]) == ("openai/gpt-4o-mini", "anthropic/opus")
    assert (line["level"], line["is_other_model"]) == ("warning", True)
    assert proxy.service.readers.totals.counts() == {"other_model_served": 1}
    upstream.answer = None
    async with proxy.post() as answer:
        await answer.read()
    assert proxy.service.readers.totals.counts() == {"other_model_served": 1}


async def test_a_stream_that_carried_an_error_is_not_complete(
    lines: Any, start: Start, upstream: FakeUpstream
) -> None:
    """Its status was sent long before; line and ledger are where the error can be seen."""
    events = [
        b'data: {"choices":[{"delta":{"content":"Gr"}}]}\n\n',
        b'data: {"error":{"code":"server_error","message":"secret"},"choices":[]}\n\n',
        b"data: [DONE]\n\n",
    ]

    async def failing(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        for one in events:
            await response.write(one)
        return response

    upstream.answer = failing
    proxy = await start("serve")
    async with proxy.post(BODY | {"stream": True}) as answer:
        assert await answer.read() == b"".join(events)
    line = await call_line(lines)
    assert (line["http_status"], line["ended"]) == (200, "upstream_error")
    assert line["error"] == "server_error"
    assert "secret" not in json.dumps(line)


async def test_an_upstream_failure_is_an_error(lines: Any, start: Start) -> None:
    proxy = await start(UPSTREAM="http://127.0.0.1:9/api/v1")
    async with proxy.post() as answer:
        assert answer.status == 502
    assert (await call_line(lines))["level"] == "error"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_calls_are_not_logged(lines: Any, proxy: Proxy, path: str) -> None:
    async with proxy.get(path) as answer:
        assert (answer.status, await answer.text()) == (200, "ok\n")
    assert not [line for line in lines() if "request_id" in line]


async def test_a_path_cannot_forge_a_line(lines: Any, proxy: Proxy) -> None:
    await proxy.raw(
        b"GET /x%0a%1b[2JFORGED?api_key=hunter2hunter2 HTTP/1.1\r\nHost: localhost\r\n"
        b"User-Agent: \\x1b[2J\r\nConnection: close\r\n\r\n"
    )
    line = await call_line(lines)
    assert line["endpoint"] == "GET /x%0a%1b[2JFORGED"
    assert "hunter2" not in json.dumps(lines())


async def test_prompts_and_credentials_are_never_logged(lines: Any, proxy: Proxy) -> None:
    body = BODY | {"messages": [{"role": "user", "content": "my-secret-prompt"}]}
    for changes in ({}, {"model": "m\nFORGED\u001b[2J"}, {"plugins": ["my-secret-plugin"]}):
        headers = {"Authorization": "Bearer client-token-123456", "X-Api-Key": "client-key-123456"}
        async with proxy.post(body | changes, headers=headers):
            pass
    text = json.dumps(lines())
    for secret in ("my-secret", "client-token", "client-key", KEY):
        assert secret not in text


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"Authorization: Bearer {KEY}",
        "sk-ant-api03-" + "a" * 30,
        "gsk_" + "a" * 52,
        "{'Authorization': 'Bearer abcdefgh12345678'}",
    ],
)
def test_masking_is_a_second_line_of_defence(text: str) -> None:
    event = {"message": text, "nested": {"list": [text]}, "error": ValueError(text)}
    masked = json.dumps(logs.Masking()("", "", event))
    assert STARS in masked
    assert not any(part in masked for part in (KEY, "aaaaaaaaaa", "abcdefgh12345678"))


def test_a_known_secret_is_masked_whatever_it_looks_like() -> None:
    masking = logs.Masking()
    masking.hide(["correct horse battery staple"])
    assert masking("", "", {"a": "x correct horse battery staple y"}) == {"a": "x *** y"}


async def test_secrets_are_known_wherever_they_stand_in_the_settings(start: Start) -> None:
    given = {"ALERT_SECRET": "correct-horse", "SESSION_SECRET": "kU3v9xQ2" * 5}
    await start(ALERT_URL="https://a.example", CLIENT_AUTH="session", **given)
    for secret in given.values():
        assert logs.masking("", "", {"a": f"x {secret} y"}) == {"a": "x *** y"}


_PARTS = [KEY, "\r8_" + "a" * 12, "AIza", "AQ." + "b" * 12, "-" * 12, "BeaReR", "\n", "c" * 12]
_PARTS += [
    " ",
    "hf-",
    "csk_",
    "kps_",
    'cor"rect\\hör\x00se',
    "HORSE ",
    "horse battery",
    "x" * 19_990,
]


@given(st.lists(st.sampled_from(_PARTS), max_size=6).map("".join), st.booleans())
def test_a_line_of_json_is_masked_as_its_fields_are(text: str, is_nested: bool) -> None:
    masking = logs.Masking()
    masking.hide(['cor"rect\\hör\x00se', "horse battery", KEY])
    event = {"a": 1, "b": [text] if is_nested else text, "c": ValueError(text), "d": 0.5, "e": None}
    event |= {"f": True, "g": False, "h": 0}
    line = masking.json("", "", dict(event))
    assert line == json.dumps(masking("", "", event))


_OTHER: dict[str, Any] = {
    "str": f"100 % {KEY}",
    "tuple[str, ...]": (f"100 % {KEY}", "b"),
    "bool": False,
    "int": 77,
    "float": 7.77,
    "End": End.STALLED,
    "Usage": Usage(output_tokens=3),
    "Cost": Cost(Decimal("1E-7"), Decimal(0), "computed"),
}


def _usual() -> Record:
    usage, cost = Usage(1, 2), Cost(Decimal("0.12"), Decimal(0), "exact")
    call = Record("POST", "/x", app="a", client="c", endpoint="POST /x", models=("m",))
    call.usage, call.cost, call.clock = usage, cost, lambda: 3.0
    call.started_at, call.first_byte_at, call.attempts = 1.0, 2.0, 1
    return call


def test_a_calls_line_tells_each_fact_in_which_it_differs_from_others(lines: Any) -> None:
    """What calls share is written once; that tells no fact of one for another's."""
    for name, kind in [(each.name, str(each.type)) for each in fields(Record)]:
        other = _OTHER.get(kind.removesuffix(" | None"))
        if other is None or name in ("is_quiet", "code"):
            continue
        _usual().write()
        call = _usual()
        setattr(call, name, other)
        with structlog.testing.capture_logs() as told:
            call.write()
        call.write()
        whole, line = dict(told[0]), lines()[-1]
        assert line.pop("timestamp")
        whole |= {"message": whole.pop("event"), "level": whole.pop("log_level")}
        assert line == json.loads(logs.masking.json("", "", whole)), name
        assert name in ("request_id", "trace_id") or KEY not in json.dumps(line)


def test_a_secret_that_becomes_known_is_masked_in_what_calls_share(lines: Any) -> None:
    call = _usual()
    call.models = ("a-model-like-a-secret",)
    call.write()
    logs.masking.hide(call.models)
    call.write()
    assert [line["model"] for line in lines()] == [*call.models, STARS]


@pytest.mark.parametrize("style", ["json", "console"])
def test_tracebacks_are_masked_and_show_no_locals(style: str) -> None:
    stream = io.StringIO()
    logs.configure(style, "info", stream)
    secret = KEY
    try:
        raise ValueError(f"with {secret}")
    except ValueError:
        structlog.get_logger("x").exception("failed")
    text = stream.getvalue()
    structlog.reset_defaults()
    assert "Traceback (most recent call last)" in text
    assert "ValueError" in text
    assert KEY not in text


async def test_a_broken_head_is_logged_without_an_echo(lines: Any, proxy: Proxy) -> None:
    answer = await proxy.raw(b"GET / HTTP/1.1\r\nX-Forged: \x1b[2Jsecret\r\n\r\n")
    line = await call_line(lines)
    assert f"X-Request-Id: {line['request_id']}".encode() in answer
    assert (line["message"], line["code"]) == ("head refused", "bad_request")
    assert "secret" not in json.dumps(lines())


def test_request_ids_are_of_their_time_and_differ() -> None:
    ids = [new_request_id() for _ in range(1000)]
    assert all(re.fullmatch("req_[0-9a-f]{24}", id) for id in ids)
    assert len({id[14:] for id in ids}) == len(ids)
    times = [int(id[4:14], 16) / 256 for id in ids]
    assert times == sorted(times)
    assert abs(times[-1] - time.time()) <= 60


@pytest.mark.parametrize(
    ("served", "is_other"),
    [
        (b"openai/gpt-4o-mini", False),
        (b"openai/gpt-4o-mini-2024-07-18", False),
        (b"openai/gpt-4o", True),
        (b"openai/gpt-4o-minister", True),
    ],
)
def test_a_dated_form_of_the_asked_model_is_no_other_model(served: bytes, is_other: bool) -> None:
    record = Record("POST", "/")
    watcher = Served(record, ["openai/gpt-4o-mini:free"], Models(["openai/gpt-4o-mini"]))
    watcher.watch(b'{"id":"gen-1","model":"' + served + b'"}')
    assert bool(record.is_other_model) is is_other
