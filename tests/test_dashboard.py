"""The dashboard in a real browser, during calls to a demo upstream."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from keyproxy.admin import listener
from keyproxy.demo import page, upstream
from keyproxy.server import service
from tests.browser.chromium import Tab
from tests.conftest import CHAT, settings
from tests.test_live import over

TOKEN = secrets.token_hex(32)
UPLOT = {  # of uplot 1.6.32, as npm has it
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}
LIVE = (
    "document.querySelector('#link').dataset.state === 'live'"
    " && !document.querySelector('main').hidden"
)
CALLS = "document.querySelector('#calls').textContent"


@dataclass(frozen=True)
class Watching:
    """A proxied demo, and the dashboard beside it."""

    service: service.Service
    session: aiohttp.ClientSession
    tab: Tab

    @property
    def url(self) -> str:
        assert self.service.admin is not None
        return f"http://{self.service.admin.addresses[0]}"

    async def call(self, model: str = "demo/chat", **headers: str) -> int:
        url = f"http://{self.service.addresses[0]}{CHAT}"
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
        async with self.session.post(url, json=body, headers=headers) as answer:
            await answer.read()
            return answer.status

    async def open(self, query: str = "") -> None:
        await self.tab.go(f"{self.url}/{query}")
        await self.tab.wait_for(LIVE)

    async def is_within_the_window(self) -> bool:
        return bool(
            await self.tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        )


@pytest.fixture
async def watching(
    request: pytest.FixtureRequest, tab: Tab, tmp_path: Path
) -> AsyncIterator[Watching]:
    async with upstream.running(pace=0) as base, aiohttp.ClientSession() as session:
        said = {"OPENROUTER_API_KEY": upstream.DEMO_KEY, "UPSTREAM": base}
        said |= {"ADMIN": "127.0.0.1:0", "TOTAL_BUDGET": "5/day", **getattr(request, "param", {})}
        if "LEDGER" in said:
            said["LEDGER"] = str(tmp_path / "ledger.sqlite3")
        async with service.running(settings("dev", **said)) as running:
            yield Watching(running, session, tab)


def asking(**variables: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("watching", [variables], indirect=True, ids=[""])


async def test_a_call_is_seen_as_it_is_made(watching: Watching) -> None:
    tab = watching.tab
    await watching.open()
    assert "No call yet" in await tab.evaluate(CALLS)
    await watching.call("demo/chat")
    await watching.call("demo/429")
    await tab.wait_for(f"{CALLS}.includes('demo/chat') && {CALLS}.includes('demo/429')", seconds=2)
    await tab.wait_for(
        "document.querySelector('#tiles').textContent.includes('2 in the last hour')"
    )
    assert "demo/429" in await tab.evaluate("document.querySelector('#errors').textContent")
    assert "the provider’s answer" in await tab.evaluate(CALLS)
    drawn = "document.querySelectorAll('.plots canvas').length"
    assert await tab.evaluate(drawn) == 4
    assert tab.errors == []


async def test_an_axis_of_counts_says_no_number_twice(watching: Watching) -> None:
    tab = watching.tab
    await watching.open()
    await tab.evaluate(
        "window.drawn = []; const draw = CanvasRenderingContext2D.prototype.fillText;"
        "CanvasRenderingContext2D.prototype.fillText = function (text, ...where) {"
        " drawn.push([this.canvas.closest('figure').dataset.plot, text]);"
        " return draw.call(this, text, ...where); }"
    )
    await watching.call("demo/chat")
    labels = "drawn.filter(([plot, text]) => plot === 'calls' && !text.includes(':'))"
    await tab.wait_for(f"{labels}.length > 1")
    await tab.evaluate("drawn.length = 0; window.dispatchEvent(new Event('resize'))")
    await tab.wait_for(f"{labels}.length > 1")
    said = [text for _, text in await tab.evaluate(labels)]
    drawings = " ".join(said).split("0")  # each begins with it
    assert {drawing.strip() for drawing in drawings} == {"", "1"}


async def test_nothing_is_loaded_from_elsewhere(watching: Watching) -> None:
    await watching.open()
    loaded = "performance.getEntriesByType('resource').map((each) => each.name)"
    urls = await watching.tab.evaluate(loaded)
    assert {url.split("/")[2] for url in urls} == {watching.url.removeprefix("http://")}
    assert watching.tab.errors == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [390, 1440])
async def test_it_fits_the_window_in_both_colours(
    watching: Watching, scheme: str, width: int
) -> None:
    tab = watching.tab
    await tab.resize(width, 844)
    await tab.prefer(color_scheme=scheme)
    await watching.open()
    for model in ("demo/chat", "nope/" + "long" * 40, "demo/500"):
        await watching.call(model, Origin="http://localhost:3000")
    await tab.wait_for(f"{CALLS}.includes('demo/500')")
    assert await watching.is_within_the_window()
    within = "[...document.querySelectorAll('#calls, #errors, #refusals, .tops .panel')].filter("
    assert await tab.evaluate(within + "(each) => each.scrollWidth > each.clientWidth).length") == 0
    assert await tab.evaluate("document.documentElement.dataset.theme") == scheme
    assert tab.errors == []


@asking(TOTAL_BUDGET="0.0125/day;1500/month")
async def test_a_budget_is_shown_as_it_was_set(watching: Watching) -> None:
    await watching.open()
    await watching.tab.wait_for("document.querySelectorAll('#budgets li').length === 2")
    text = await watching.tab.evaluate("document.querySelector('#budgets').textContent")
    assert "$0 of $0.0125" in text
    assert "$0 of $1,500.00" in text


@asking(ALERT_SPEND="0.000001/day")
async def test_what_alerts_tell_of_is_said_above_all_else(watching: Watching) -> None:
    tab = watching.tab
    await watching.open()
    firing = "document.querySelector('#firing')"
    assert await tab.evaluate(f"{firing}.hidden") is True
    await watching.call()
    await watching.service.alerts.look()
    await tab.wait_for(f"{firing}.textContent.includes('USD were spent in this day, more than')")
    assert (
        await tab.evaluate(
            f"{firing}.hidden || !document.querySelector('main > :first-child').contains({firing})"
        )
        is False
    )
    watching.service.apply(watching.service.settings.kept(alert_spend=()))
    await watching.service.alerts.look()
    await tab.wait_for(f"{firing}.hidden")


async def test_the_switch_of_colours_is_remembered(watching: Watching) -> None:
    tab = watching.tab
    await tab.prefer(color_scheme="light")
    await watching.open()
    await tab.evaluate("document.querySelector('#theme').click()")
    theme = "document.documentElement.dataset.theme"
    assert await tab.evaluate(theme) == "dark"
    await watching.open()
    assert await tab.evaluate(theme) == "dark"


async def test_what_callers_write_stays_text(watching: Watching) -> None:
    tab = watching.tab
    await watching.open()
    hostile = "<img src=x onerror=alert(1)>/<b>x"
    watching.service.readers.ended(over(hostile, hostile, code="rate_limited", hint=hostile))
    await tab.wait_for(f"{CALLS}.includes('onerror')")
    assert await tab.evaluate("document.querySelectorAll('main img, main td b').length") == 0
    assert tab.errors == []


async def test_every_plot_has_its_figures_as_a_table(watching: Watching) -> None:
    tab = watching.tab
    await watching.call()
    await watching.open()
    await tab.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    await tab.wait_for("document.querySelectorAll('details table').length === 4")
    figures = "document.querySelector('[data-plot=calls] tbody').textContent"
    assert re.search("1", await tab.evaluate(figures))
    label = await tab.evaluate("document.querySelector('[data-plot=calls] .canvas').ariaLabel")
    assert label.startswith("Calls per minute: answered at most 1")


async def test_it_can_be_used_by_keyboard_and_is_named(watching: Watching) -> None:
    tab = watching.tab
    await watching.open()
    await tab.press("Tab")
    assert await tab.evaluate("document.activeElement.className") == "skip"
    unnamed = """[...document.querySelectorAll('button, a, input, section, [role=region], canvas')]
      .filter((each) => !each.closest('.canvas, .spark'))
      .filter((each) => !(each.ariaLabel || each.textContent.trim() || each.labels?.length
        || each.getAttribute('aria-labelledby'))).length"""
    assert await tab.evaluate(unnamed) == 0
    landmarks = "['header', 'main', 'footer'].every((name) => document.querySelector(name))"
    assert await tab.evaluate(landmarks)
    assert await tab.evaluate("document.querySelectorAll('[aria-live]').length") == 1


@asking(ADMIN_TOKEN=TOKEN)
async def test_a_token_is_asked_for_and_stays_in_the_tab(watching: Watching) -> None:
    tab = watching.tab
    await tab.go(f"{watching.url}/")
    await tab.wait_for("!document.querySelector('#door').hidden")
    for token, seen in (("wrong", "not the one of"), (TOKEN, "")):
        await tab.evaluate("document.querySelector('#token').focus()")
        await tab.write(token)
        await tab.press("Enter")
        if seen:
            await tab.wait_for(f"document.querySelector('#why').textContent.includes('{seen}')")
    await tab.wait_for(LIVE)
    assert await tab.evaluate("JSON.stringify([Object.keys(localStorage), document.cookie])") == (
        '[[],""]'
    )
    await watching.open()  # in the same tab: it is not asked for again
    await watching.call()
    await tab.wait_for(f"{CALLS}.includes('demo/chat')")


@asking(LEDGER="a file")
async def test_thirty_days_are_shown(watching: Watching) -> None:
    await watching.call()
    book: Any = watching.service.accounting.book
    await book.flush()
    await watching.open("?range=30d")
    tab = watching.tab
    await tab.wait_for("document.querySelector('[data-plot=spend] canvas')")
    caption = "document.querySelector('[data-plot=spend] figcaption').textContent"
    assert await tab.evaluate(caption) == "Spend per day"
    assert "out of the ledger" in await tab.evaluate("document.querySelector('main').textContent")


async def test_it_finds_back_after_the_connection_was_lost(watching: Watching) -> None:
    tab = watching.tab
    await watching.open()
    admin = watching.service.admin
    assert admin is not None
    admin._events._tell(b"")  # each stream ends
    await tab.wait_for("document.querySelector('#link').dataset.state === 'lost'")
    await tab.wait_for(LIVE)
    assert "Connected again" in await tab.evaluate("document.querySelector('#said').textContent")


async def test_other_pages_may_link_it_and_not_frame_or_read_it(watching: Watching) -> None:
    session, url = watching.session, watching.url
    came = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    async with session.get(url + "/", headers=came) as answer:
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        text = await answer.text()
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<style|style=|<script>|onclick|https?://(?!www\.w3\.org)", text)


@asking(ADMIN="localhost:0", ADMIN_TOKEN=TOKEN)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_page_of_another_origin_is_read_no_figures_by_the_browser(
    watching: Watching, host: str
) -> None:
    """That of the chat page among them, also where it shows the token; a page without a policy of
    its own asks here."""
    tab, port = watching.tab, watching.service.addresses[0].rpartition(":")[2]
    dashboard = watching.url.rpartition(":")[2]
    shown = f"{{headers: {{Authorization: 'Bearer {TOKEN}'}}}}"
    await tab.go(f"http://{host}:{port}/healthz")
    with capture_logs() as logs:
        for name in ("127.0.0.1", "localhost"):
            for options in ("{mode: 'no-cors'}", "{}", shown):
                asked = f"fetch('http://{name}:{dashboard}/state.json', {options})"
                read = await tab.evaluate(f"{asked}.then((each) => each.text(), () => '')")
                assert read == ""
    refused = {log["code"] for log in logs if log["event"] == "not shown"}
    assert "origin_not_allowed" in refused
    assert refused <= {"origin_not_allowed", "method_not_allowed"}  # a preflight


def test_the_page_weighs_little_and_brings_its_library_unchanged() -> None:
    files = listener.pages()
    assert sum(len(file.body) for file in files.values()) < 250_000
    for name, digest in UPLOT.items():
        content = (listener.PAGES / "uplot" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest


@pytest.mark.parametrize(("host", "is_linked"), [("localhost", True), ("app.test", False)])
async def test_the_chat_page_links_it_on_this_computer(
    tab: Tab, host: str, is_linked: bool
) -> None:
    served = {**page.files()}
    served["/"] = page.linked(served["/"], "http://localhost:8485/")
    async with upstream.running() as base:
        said = {"OPENROUTER_API_KEY": upstream.DEMO_KEY, "UPSTREAM": base}
        said["ALLOWED_HOSTS"] = "localhost,app.test"
        async with service.running(settings("dev", **said), served) as running:
            port = running.addresses[0].rpartition(":")[2]
            await tab.go(f"http://{host}:{port}/")
            await tab.wait_for("document.querySelector('#base').textContent")
            link = "document.querySelector('#dashboard')"
            seen = await tab.evaluate(f"[{link}.hidden, {link}.href]")
            assert seen == ([False, "http://localhost:8485/"] if is_linked else [True, ""])
