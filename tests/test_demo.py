"""The fake upstream against the wire shapes it is meant to have."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from keyproxy.demo import page, texts, upstream
from keyproxy.demo.models import MODELS
from tests.program import started
from tests.sdk.outside import needed

ROOT = Path(__file__).resolve().parents[1]
AUTHORIZED = {"Authorization": f"Bearer {upstream.DEMO_KEY}"}
DEADLINE_SECONDS = 5


class Demo:
    """A running fake upstream and a session that knows its key."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.base = base
        self.session = session

    def post(self, path: str, **body: object) -> Any:
        return self.session.post(f"{self.base}{path}", json=body, headers=AUTHORIZED)

    def get(self, path: str) -> Any:
        return self.session.get(f"{self.base}{path}", headers=AUTHORIZED)

    async def calls(self, **wanted: int) -> dict[str, int]:
        """The counts, once they have reached ``wanted``."""
        url = f"{self.base.removesuffix('/api/v1')}/demo/calls"
        async with asyncio.timeout(DEADLINE_SECONDS), self.session.get(url, params=wanted) as got:
            counts: dict[str, int] = await got.json()
            return counts


@pytest.fixture
async def demo() -> AsyncIterator[Demo]:
    async with upstream.running(pace=0) as base, aiohttp.ClientSession() as session:
        yield Demo(base, session)


@pytest.fixture
async def paced_demo() -> AsyncIterator[Demo]:
    async with upstream.running() as base, aiohttp.ClientSession() as session:
        yield Demo(base, session)


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def chunks(stream: bytes) -> list[dict[str, Any]]:
    """The JSON of every ``data:`` line but ``[DONE]``."""
    lines = [line[6:] for line in stream.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("/chat/completions", {"messages": said("Grüße 🙂")}),
    ("/responses", {"input": "Grüße 🙂"}),
    ("/messages", {"messages": said("Grüße 🙂"), "max_tokens": 100}),
]


# who may call


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "No cookie auth credentials found"),
        ({"Authorization": "Bearer sk-or-v1-wrong"}, "User not found."),
    ],
)
async def test_nobody_gets_in_without_the_key(
    demo: Demo, headers: dict[str, str], message: str
) -> None:
    for path, body in CALLS:
        url = f"{demo.base}{path}"
        async with demo.session.post(url, json=body, headers=headers) as answer:
            assert answer.status == 401
            assert await answer.json() == {"error": {"message": message, "code": 401}}


async def test_key_route_describes_a_key_with_a_limit(demo: Demo) -> None:
    async with demo.get("/key") as answer:
        data = (await answer.json())["data"]
    assert data["limit"] > data["limit_remaining"] > 0
    assert data["is_management_key"] is False
    assert upstream.DEMO_KEY not in json.dumps(data)


# streams


async def test_chat_stream_has_the_wire_shape(demo: Demo) -> None:
    async with demo.post(
        "/chat/completions", model="demo/echo", messages=said("Grüße 🙂"), stream=True
    ) as answer:
        stream = await answer.read()
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert stream.startswith(b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\ndata: ")
    assert stream.endswith(b"\n\ndata: [DONE]\n\n")
    events = chunks(stream)
    assert "".join(event["choices"][0]["delta"]["content"] for event in events) == "Grüße 🙂"
    assert [event["choices"][0]["finish_reason"] for event in events[-2:]] == ["stop", "stop"]
    assert [event for event in events if "usage" in event] == [events[-1]]
    assert events[-1]["usage"]["cost"] == pytest.approx(
        events[-1]["usage"]["prompt_tokens"] * 2e-6
        + events[-1]["usage"]["completion_tokens"] * 1e-5
    )
    assert {event["id"] for event in events} == {answer.headers["X-Generation-Id"]}


async def test_responses_stream_has_the_wire_shape(demo: Demo) -> None:
    async with demo.post("/responses", model="demo/echo", input="Grüße 🙂", stream=True) as answer:
        stream = await answer.read()
    assert stream.startswith(b": \n\n")
    assert b"event:" not in stream
    events = chunks(stream)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["response"]["usage"] is None
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["usage"]["cost"] > 0
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "Grüße 🙂"


async def test_messages_stream_has_the_wire_shape(demo: Demo) -> None:
    async with demo.post(
        "/messages", model="demo/echo", messages=said("Grüße 🙂"), max_tokens=100, stream=True
    ) as answer:
        stream = await answer.read()
    assert b"[DONE]" not in stream
    names = [line[7:].decode() for line in stream.split(b"\n") if line.startswith(b"event: ")]
    events = chunks(stream)
    assert names == [event["type"] for event in events]
    assert names[:3] == ["message_start", "ping", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert "cost" not in events[-2]["usage"]


@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_whole_answers_are_chunked_json_with_a_cost(
    demo: Demo, path: str, body: dict[str, Any]
) -> None:
    async with demo.post(path, model="demo/echo", **body) as answer:
        text = await answer.text()
    assert "Grüße 🙂" in text
    assert json.loads(text)["usage"]["cost"] > 0
    assert "Content-Length" not in answer.headers


@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_broken_answers_say_so_in_every_shape(
    demo: Demo, path: str, body: dict[str, Any]
) -> None:
    async with demo.post(path, model="demo/midstream-error", **body, stream=True) as answer:
        stream = await answer.read()
    assert answer.status == 200
    assert b'"error"' in stream
    assert b'"usage":{"prompt_tokens"' not in stream


@pytest.mark.parametrize("is_streaming", [True, False])
@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_cut_answers_end_without_an_end(
    demo: Demo, path: str, body: dict[str, Any], is_streaming: bool
) -> None:
    async with demo.post(path, model="demo/cut", **body, stream=is_streaming) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_first_token_comes_before_the_last_is_made(paced_demo: Demo) -> None:
    async with paced_demo.post(
        "/chat/completions", model="demo/chat", messages=said("hello"), stream=True
    ) as answer:
        async for line in answer.content:
            if line.startswith(b"data: "):
                break
        assert (await paced_demo.calls())["open"] == 1
        rest = await answer.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    assert (await paced_demo.calls(finished=1))["open"] == 0


@pytest.mark.parametrize(
    ("path", "limit", "reason"),
    [
        ("/chat/completions", "max_tokens", b'"finish_reason":"length"'),
        ("/chat/completions", "max_completion_tokens", b'"finish_reason":"length"'),
        ("/responses", "max_output_tokens", b'"type":"response.incomplete"'),
        ("/messages", "max_tokens", b'"stop_reason":"max_tokens"'),
    ],
)
async def test_token_limits_are_honoured(demo: Demo, path: str, limit: str, reason: bytes) -> None:
    body: dict[str, Any] = {"messages": said("hello"), "stream": True, limit: 3}
    async with demo.post(path, model="demo/long", **body) as answer:
        stream = await answer.read()
    assert reason in stream
    assert len(stream) < 8000


@pytest.mark.parametrize(("limit", "reason"), [(3.0, "length"), (-1, "stop"), (-1.0, "stop")])
async def test_a_limit_is_read_as_other_upstreams_read_it(
    demo: Demo, limit: float, reason: str
) -> None:
    body = {"model": "demo/echo", "messages": said("a b c d e f g"), "max_tokens": limit}
    async with demo.post("/chat/completions", **body) as answer:
        assert (await answer.json())["choices"][0]["finish_reason"] == reason


async def test_welcome_mentions_what_was_said(demo: Demo) -> None:
    async with demo.post("/chat/completions", model="demo/chat", messages=said("tea?")) as answer:
        choice = (await answer.json())["choices"][0]
    assert "“tea?”" in choice["message"]["content"]
    assert "demo" in choice["message"]["content"]


# leaving


@pytest.mark.parametrize("is_streaming", [True, False])
@pytest.mark.parametrize("model", ["demo/slow", "demo/hang"])
async def test_a_caller_that_leaves_ends_the_work(
    paced_demo: Demo, model: str, is_streaming: bool
) -> None:
    call = asyncio.create_task(
        paced_demo.post(
            "/chat/completions", model=model, messages=said("hello"), stream=is_streaming
        ).__aenter__()
    )
    await paced_demo.calls(open=1)
    if call.done():
        (await call).close()
    else:
        call.cancel()
    assert await paced_demo.calls(aborted=1) == {"open": 0, "finished": 0, "aborted": 1}


async def test_an_aborted_call_can_be_settled_afterwards(paced_demo: Demo) -> None:
    async with paced_demo.post(
        "/chat/completions", model="demo/slow", messages=said("hello"), stream=True
    ) as answer:
        generation_id = answer.headers["X-Generation-Id"]
    await paced_demo.calls(aborted=1)
    async with paced_demo.get(f"/generation?id={generation_id}") as settled:
        data = (await settled.json())["data"]
    assert data["cancelled"] is True
    assert data["total_cost"] > 0


# failures


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("demo/402", 402),
        ("demo/403", 403),
        ("demo/429", 429),
        ("demo/500", 500),
        ("demo/503", 503),
    ],
)
async def test_failures_have_their_status_in_every_shape(
    demo: Demo, model: str, status: int
) -> None:
    for path, body in CALLS:
        async with demo.post(path, model=model, **body, stream=True) as answer:
            error = (await answer.json())["error"]
        assert answer.status == status
        assert error["message"]
        assert ("code" in error) is (path != "/messages")


async def test_too_many_requests_says_when_to_come_back(demo: Demo) -> None:
    async with demo.post("/chat/completions", model="demo/429", messages=said("x")) as answer:
        error = (await answer.json())["error"]
    assert answer.headers["Retry-After"] == "5"
    assert answer.headers["X-RateLimit-Remaining"] == "0"
    assert error["metadata"]["headers"] == {"Retry-After": "5"}


async def test_html_model_answers_like_an_edge(demo: Demo) -> None:
    async with demo.post("/chat/completions", model="demo/html", messages=said("x")) as answer:
        assert answer.status == 502
        assert answer.content_type == "text/html"
        assert (await answer.read()).startswith(b"<html>")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"model":"demo/chat"}',
        b'{"model":"no/such","messages":[{"role":"user","content":"x"}]}',
        b'{"model":"demo/chat","messages":[{"role":"user","content":"x"}],"max_tokens":0}',
        b'{"model":"demo/chat","messages":[{"role":"user","content":"x"}],"max_tokens":true}',
    ],
)
async def test_bodies_that_make_no_sense_are_bad_requests(demo: Demo, body: bytes) -> None:
    url = f"{demo.base}/chat/completions"
    async with demo.session.post(url, data=body, headers=AUTHORIZED) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["code"] == 400


async def test_every_answer_carries_what_a_proxy_must_strip(demo: Demo) -> None:
    for path in ("/models", "/key", "/no/such/path"):
        async with demo.get(path) as answer:
            assert answer.headers["Server"] == "cloudflare"
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert "Domain=openrouter.ai" in answer.headers["Set-Cookie"]
            assert answer.headers["cf-ray"]


# catalogue


async def test_catalogue_needs_no_key_and_describes_every_model(demo: Demo) -> None:
    async with demo.session.get(f"{demo.base}/models") as answer:
        listed = await answer.json()
    assert [row["id"] for row in listed["data"]] == list(MODELS)
    assert listed["total_count"] == len(MODELS)
    assert listed["links"] == {"next": None}
    for row in listed["data"]:
        assert row["name"]
        assert row["description"]
        assert isinstance(row["pricing"]["prompt"], str)


async def test_models_that_the_readme_names_answer_as_the_demo_does(demo: Demo) -> None:
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.*")]
    calls = re.compile(r'"model": ?"([^"]+)"')
    named = {name for text in texts for name in calls.findall(text.read_text())}
    assert "openai/gpt-4o-mini" in named
    for name in {*named, "~openai/gpt-latest", "anthropic/claude-sonnet-4"}:
        for path, body in CALLS:
            async with demo.post(path, model=name, **body) as answer:
                assert answer.status == 200, name
                assert (await answer.json())["model"] == name


@pytest.mark.parametrize("mode", ["whole", "as it stands"])
async def test_curl_of_the_readme_works_without_a_key(tmp_path: Path, mode: str) -> None:
    """Only the port is another one."""
    [snippet] = re.findall(r"```sh\n(curl .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    async with started("demo", tmp_path, OPENROUTER_API_KEY="") as program:
        command = snippet.replace("http://localhost:8484", program.url)
        if mode == "whole":
            command = command.replace('"stream":true,', "")
        done = await asyncio.create_subprocess_exec(
            "sh", "-c", command.replace("curl", f"{needed('curl')} -sS --noproxy '*'", 1),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await done.communicate()
    assert b"You wrote" in out or b'"content":"You' in out
    assert (b"[DONE]" in out) == (mode == "as it stands")


async def test_catalogue_comes_in_pages(demo: Demo) -> None:
    async with demo.session.get(f"{demo.base}/models?limit=2&offset=1") as answer:
        listed = await answer.json()
    assert [row["id"] for row in listed["data"]] == list(MODELS)[1:3]
    assert listed["links"]["next"].endswith("offset=3&limit=2")


async def test_catalogue_knows_single_models(demo: Demo) -> None:
    async with demo.session.get(f"{demo.base}/model/demo/chat") as answer:
        assert (await answer.json())["data"]["id"] == "demo/chat"
    async with demo.session.get(f"{demo.base}/models/demo/chat/endpoints") as answer:
        assert (await answer.json())["data"]["endpoints"][0]["model_id"] == "demo/chat"
    async with demo.session.get(f"{demo.base}/models/count") as answer:
        assert (await answer.json())["data"]["count"] == len(MODELS)
    async with demo.session.get(f"{demo.base}/model/no/such") as answer:
        assert answer.status == 404


# texts and page files


@pytest.mark.parametrize("text", ["", "a", "Grüße aus\n\nKöln 🙂 ", " 你好 ", "x" * 50])
def test_tokens_join_up_to_the_text(text: str) -> None:
    assert "".join(texts.tokens(text)) == text


def test_page_is_served_from_a_closed_list() -> None:
    served = page.files()
    assert served["/"].content_type == "text/html; charset=utf-8"
    assert {"/style.css", "/chat.js", "/favicon.svg"} <= set(served)
    assert {path for path in served if path.count("/") > 1} == {
        "/vendor/marked.js",
        "/vendor/purify.js",
    }
    assert "/README.md" not in served


def test_what_the_page_has_of_others_is_what_was_looked_at() -> None:
    vendor = Path(__file__).parent.parent / "examples" / "web" / "vendor"
    sums = dict(line.split("  ")[::-1] for line in (vendor / "SHA256SUMS").read_text().splitlines())
    assert {f"/vendor/{name}" for name in sums} == {p for p in page.files() if "vendor" in p}
    for name, digest in sums.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest
        assert (vendor / name).with_suffix(".LICENSE").is_file()


def test_page_needs_nothing_its_policy_forbids() -> None:
    html = page.files()["/"].body.decode()
    assert "<script>" not in html
    assert " style=" not in html
    assert "<style" not in html
    assert "onclick" not in html
    assert "https://" not in html
