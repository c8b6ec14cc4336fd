"""Whole calls through real sockets: what goes up, what comes down."""

from __future__ import annotations

from tests.conftest import CHAT, KEY, Proxy
from tests.fake_upstream import COMPLETION


async def test_a_key_free_call_is_answered(proxy: Proxy) -> None:
    async with proxy.post() as answer:
        assert answer.status == 200
        assert await answer.json() == COMPLETION
    [seen] = proxy.upstream.calls
    assert (seen.method, seen.target) == ("POST", CHAT)
    assert seen.headers.getall("Authorization") == [f"Bearer {KEY}"]


async def test_what_was_checked_is_what_is_sent(proxy: Proxy) -> None:
    raw = (
        '{ "messages" :[{"role":"user","content":"\\u00e9 é 🙂"}],\n\t"temperature":1.50e0,'
        '"model":"openai/gpt-4o-mini" } '
    )
    async with proxy.post(raw) as answer:
        assert answer.status == 200
    assert proxy.upstream.calls[0].body == raw.encode()
