"""Whether a server in front of ``keyproxy demo`` lets a stream through as it comes, and large
cookies: ``check --through URL``. It asks the demo's models, which cost nothing.
"""

from __future__ import annotations

import json

import aiohttp

from keyproxy.commands.findings import Finding
from keyproxy.settings.grammar import shown

_CALL = {
    "model": "demo/chat",  # some 60 tokens, 30 ms from one to the next
    "stream": True,
    "messages": [{"role": "user", "content": "Hello"}],
}
_SECONDS = 60.0
_LARGEST_ANSWER = 1 << 20
_COOKIE_BYTES = 7_000  # a page's log-in may have as much; nginx' buffers take 8 KB in all
# A quiet network hands on each event alone; where some come together, most still do not.
_FEWEST_PIECES = 1 / 4
_UNBUFFERED = (
    "have the server in front hold nothing back: nginx: proxy_buffering off, or let"
    " X-Accel-Buffering through; no compression of text/event-stream (docs/deploy.md)"
)


async def through(url: str) -> list[Finding]:
    """What a stream and a call with large cookies meet on their way through ``url``, the address
    of the front server with or without ``/api/v1``."""
    base = url.rstrip("/").removesuffix("/api/v1")
    timeout, found = aiohttp.ClientTimeout(total=_SECONDS), list[Finding]()
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            found.append(await _stream(session, f"{base}/api/v1/chat/completions"))
            found.append(await _cookies(session, f"{base}/api/v1/models"))
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
        why = type(error).__name__  # its own text may repeat an address with a password
        cure = "is the address right, and does keyproxy demo run behind it?"
        found.append(Finding("front", "error", f"{shown(url)} cannot be used ({why})", cure))
    return found


async def _stream(session: aiohttp.ClientSession, url: str) -> Finding:
    async with session.post(url, json=_CALL, allow_redirects=False) as answer:
        if answer.status != 200:
            return await _refused(answer)
        if answer.content_type != "text/event-stream":
            what = f"the answer is {shown(answer.content_type)}, no stream"
            return Finding("front", "error", what, "is it keyproxy that answers there?")
        pieces, whole = 0, b""
        async for piece in answer.content.iter_any():
            pieces += 1
            whole += piece
            if len(whole) > _LARGEST_ANSWER:
                break
    events = whole.count(b"\ndata:") + whole.startswith(b"data:")
    if b"data: [DONE]" not in whole:
        cure = "raise its read timeout, and close no connection that is answering"
        return Finding("front", "error", "the stream was cut before its end", cure)
    if pieces < events * _FEWEST_PIECES:
        text = f"the stream is held back: {events} events came in {pieces} pieces"
        return Finding("front", "error", text, _UNBUFFERED)
    return Finding("front", "fine", f"tokens come one by one: {events} events, {pieces} pieces")


async def _refused(answer: aiohttp.ClientResponse) -> Finding:
    code = answer.headers.get("X-Keyproxy-Code", "")
    text = f"the call got status {answer.status}"
    if code == "host_not_allowed":
        return Finding("front", "error", text, "have the front pass on the Host it was asked by")
    if code:
        raw = await answer.content.read(_LARGEST_ANSWER)
        try:
            message = str(json.loads(raw)["error"]["message"])
        except (ValueError, LookupError, TypeError):
            message = code
        cure = f"for the trial, let it point at keyproxy demo ({shown(message)})"
        return Finding("front", "error", f"{text}, {shown(code)}", cure)
    cure = "it is not keyproxy that answers; /api/v1 must be handed on as it is, path and all"
    return Finding("front", "error", text, cure)


async def _cookies(session: aiohttp.ClientSession, url: str) -> Finding:
    head = {"Cookie": f"session={'x' * _COOKIE_BYTES}"}
    async with session.get(url, headers=head, allow_redirects=False) as answer:
        if answer.status in (400, 413, 414, 431, 494):
            text = f"a call with {_COOKIE_BYTES} bytes of cookies got status {answer.status}"
            cure = "nginx: large_client_header_buffers 8 32k; or serve it under a host of its own"
            return Finding("front", "warning", text, cure)
    return Finding("front", "fine", f"{_COOKIE_BYTES} bytes of cookies pass")
