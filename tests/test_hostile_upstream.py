"""Answers that no honest upstream gives: byte scripts over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from tests.conftest import BODY, KEY, Proxy, Start, refused
from tests.fake_upstream import RawScript, raw, read_call, replying

pytestmark = pytest.mark.usefixtures("no_loose_ends")
WIRE = Path(__file__).parent / "wire"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = OK + b"Content-Length: 2\r\n\r\n{}"
CUT = (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)

Before = Callable[..., Awaitable[Proxy]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture
async def before(start: Start) -> AsyncIterator[Before]:
    """Starts keyproxy before a byte script, or before an upstream that writes these pieces."""
    async with AsyncExitStack() as stack:

        async def started(*script: RawScript | bytes, **variables: str) -> Proxy:
            pieces = [piece for piece in script if isinstance(piece, bytes)]
            [run] = [piece for piece in script if not isinstance(piece, bytes)] or [
                replying(*pieces)
            ]
            base = await stack.enter_async_context(raw(run))
            return await start(UPSTREAM=base, **variables)

        yield started


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            id="length and chunks",
        ),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            id="chunks and length",
        ),
        pytest.param(OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}xxx", id="two lengths"),
        pytest.param(
            OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", id="one length twice"
        ),
        pytest.param(OK + b"Content-Length: 2, 2\r\n\r\n{}", id="a list of lengths"),
        pytest.param(OK + b"Content-Length: -2\r\n\r\n{}", id="a negative length"),
        pytest.param(OK + b"Content-Length: +2\r\n\r\n{}", id="a signed length"),
        pytest.param(OK + b"Content-Length: 99999999999999999999999\r\n\r\n{}", id="a huge length"),
        pytest.param(
            OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="an inner coding"
        ),
        pytest.param(OK + b"Transfer-Encoding: xchunked\r\n\r\n{}", id="an unknown coding"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="chunks twice",
        ),
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
            + b"x" * 70_000,
            id="another protocol",
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", id="204"),
        pytest.param(
            b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}", id="204 with a body"
        ),
        pytest.param(b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", id="205"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\n\r\n", id="304"),
        pytest.param(b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n", id="600"),
        pytest.param(b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", id="999"),
        pytest.param(b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n", id="099"),
        pytest.param(b"HTTP/1.1 20 OK\r\n\r\n", id="a short status"),
        pytest.param(b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n", id="an unknown version"),
        pytest.param(b"ICY 200 OK\r\n\r\n", id="another protocol's status line"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01", id="a TLS record"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="SSH"),
        pytest.param(
            OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", id="gzip"
        ),
        pytest.param(OK + b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\n\x1f\x8b", id="br"),
        pytest.param(
            OK + b"Content-Encoding: identity, gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
            id="a list of codings",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi", id="HTML"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Type: image/svg+xml\r\nContent-Length: 2\r\n\r\nhi",
            id="SVG",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", id="no type"),
        pytest.param(
            OK + b"Content-Type: text/html\r\nContent-Length: 2\r\n\r\nhi", id="two types"
        ),
        pytest.param(OK + b"X-A: b\r\n" * 50_000 + b"\r\n", id="50,000 fields"),
        pytest.param(OK + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n", id="a long field"),
        pytest.param(OK + b"X-A: a\x00b\r\n\r\n", id="a NUL in a field"),
        pytest.param(OK + b": b\r\n\r\n", id="a field without a name"),
        pytest.param(b"HTTP/1.1 200 " + b"a" * 70_000 + b"\r\n\r\n", id="a long reason"),
    ],
)
async def test_an_answer_that_must_not_pass_becomes_502(before: Before, answer: bytes) -> None:
    proxy = await before(answer)
    async with proxy.post() as refusal:
        await refused(refusal, 502, "upstream_invalid")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed_nor_shown(before: Before, status: int) -> None:
    """The second host, or /api/v1/keys of the same one, would get the key."""
    asked: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            asked.append(await read_call(reader, writer))
            writer.write(
                b"HTTP/1.1 %d Moved\r\nLocation: /api/v1/keys\r\nContent-Length: 0\r\n\r\n" % status
            )

    proxy = await before(script)
    async with proxy.post() as refusal:
        assert "Location" not in refusal.headers
        await refused(refusal, 502, "upstream_invalid")
    assert len(asked) == 1


async def test_interim_answers_are_passed_over(before: Before) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; Bearer=" + KEY.encode() + b"\r\n\r\n"
    proxy = await before(b"HTTP/1.1 100 Continue\r\n\r\n", early, WHOLE)
    async with proxy.post() as answer:
        assert (answer.status, await answer.read()) == (200, b"{}")
        assert "Link" not in answer.headers


@pytest.mark.parametrize("piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"X-A: b\r\n" * 10])
async def test_an_endless_head_is_cut(before: Before, piece: bytes) -> None:
    gone = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_call(reader, writer)
        if piece.startswith(b"X"):
            writer.write(OK)
        try:
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            gone.set()

    proxy = await before(script)
    async with proxy.post() as refusal:
        await refused(refusal, 502, "upstream_invalid")
    async with asyncio.timeout(5):
        await gone.wait()


@pytest.mark.parametrize("piece", [b"", b"HTTP/1.1 200 OK\r\nContent-Ty"])
async def test_silence_becomes_504(before: Before, piece: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_call(reader, writer)
        writer.write(piece)
        await reader.read()

    proxy = await before(script, CONNECT_TIMEOUT="100ms", FIRST_BYTE_TIMEOUT="100ms")
    async with proxy.post() as refusal:
        await refused(refusal, 504, "upstream_timeout")


@pytest.mark.parametrize("piece", [b"", b"HTTP/1.1 200 OK\r\nContent-Ty"])
async def test_an_upstream_that_hangs_up_becomes_502(before: Before, piece: bytes) -> None:
    proxy = await before(piece)
    async with proxy.post() as refusal:
        await refused(refusal, 502, "upstream_unreachable")


async def test_an_upstream_that_is_not_there_becomes_502(start: Start) -> None:
    proxy = await start(UPSTREAM="http://127.0.0.1:9/api/v1")
    async with proxy.post() as refusal:
        await refused(refusal, 502, "upstream_unreachable")


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b"zz\r\n{}\r\n", id="no size"),
        pytest.param(b"-1\r\n{}\r\n", id="a negative size"),
        pytest.param(b"0x2\r\n{}\r\n", id="a prefixed size"),
        pytest.param(b"fffffffffffffffff\r\n{}\r\n", id="a size beyond 64 bits"),
        pytest.param(b"2\r\n{}xx", id="no end of chunk"),
        pytest.param(b"0\r\n" + b"X-Trailer: a\r\n" * 50_000, id="endless trailers"),
        pytest.param(b"0\r\nX-Trailer: " + b"a" * 70_000, id="a long trailer"),
        pytest.param(b"", id="no last chunk"),
        pytest.param(b"0\r\n", id="half a last chunk"),
    ],
)
async def test_a_stream_whose_framing_breaks_is_cut(before: Before, tail: bytes) -> None:
    has_begun = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_call(reader, writer)
        writer.write(STREAM + chunk(b"data: 1\n\n"))
        await has_begun.wait()
        writer.write(tail)

    proxy = await before(script)
    async with proxy.post() as answer:
        assert await answer.content.readany() == b"data: 1\n\n"
        has_begun.set()
        with pytest.raises(CUT):
            await answer.content.read()


@pytest.mark.parametrize("is_late", [False, True])
async def test_an_answer_behind_the_answer_reaches_nobody(before: Before, is_late: bool) -> None:
    """Pooled, it would be the next caller's, whether it came with the head or the last bytes."""
    opened = 0
    has_begun = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        request = await read_call(reader, writer)
        opened += 1
        while request:
            writer.write(WHOLE[:-1])
            if is_late:
                await has_begun.wait()
            writer.write(b"}" + OK + b'Content-Length: 6\r\n\r\n"evil"')
            request = await read_call(reader, writer)

    proxy = await before(script)
    for _ in range(3):
        has_begun.clear()
        async with proxy.post() as answer:
            has_begun.set()
            assert await answer.read() == b"{}"
    assert opened == 3


@pytest.mark.parametrize(
    "late", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"x", b"\r\n"]
)
async def test_bytes_on_an_idle_connection_end_it(before: Before, late: bytes) -> None:
    release, ended = asyncio.Event(), asyncio.Event()
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        await read_call(reader, writer)
        connections += 1
        writer.write(WHOLE)
        if connections == 1:
            await release.wait()
            writer.write(late)
        await reader.read()
        ended.set()

    proxy = await before(script)
    async with proxy.post() as answer:
        assert await answer.read() == b"{}"
    release.set()
    async with asyncio.timeout(5):
        await ended.wait()
    async with proxy.post() as answer:
        assert await answer.read() == b"{}"
    assert connections == 2


def answering(answer: bytes, connections: list[None]) -> RawScript:
    """Answers each call; ``connections`` grows with each new one."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_call(reader, writer)
        connections.append(None)
        while True:
            writer.write(answer)
            await read_call(reader, writer)

    return script


async def test_an_honest_connection_is_used_again(before: Before) -> None:
    connections: list[None] = []
    proxy = await before(answering(WHOLE, connections))
    for _ in range(5):
        async with proxy.post() as answer:
            assert await answer.read() == b"{}"
    assert len(connections) == 1


async def test_a_connection_is_not_used_again_after_a_refused_answer(before: Before) -> None:
    connections: list[None] = []
    zipped = OK + b"Content-Encoding: gzip\r\nContent-Length: 50\r\n\r\n"
    proxy = await before(answering(zipped, connections))
    for _ in range(3):
        async with proxy.post() as refusal:
            await refused(refusal, 502, "upstream_invalid")
    assert len(connections) == 3


async def test_an_edges_error_page_becomes_json_of_its_status(before: Before) -> None:
    page = (WIRE / "error-502-cloudflare.html").read_bytes()
    head = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"
    proxy = await before(head % len(page) + page)
    async with proxy.post() as answer:
        assert (answer.status, answer.content_type) == (502, "application/json")
        assert "X-Keyproxy-Code" not in answer.headers
        body = await answer.text()
    assert json.loads(body)["error"]["code"] == 502
    assert "cloudflare" not in body


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(OK + b"Content-Length: 9\r\n\r\n{}", id="a short body"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\nzz", id="a bad chunk"),
        pytest.param(
            OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", id="gzip"
        ),
        pytest.param(OK + b"Content-Length: 2\r\n\r\n[]", id="another shape"),
        pytest.param(
            b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", id="a redirect"
        ),
    ],
)
async def test_a_broken_catalogue_becomes_502(before: Before, answer: bytes) -> None:
    proxy = await before(answer)
    async with proxy.get("/api/v1/models") as refusal:
        assert refusal.status == 502
        assert refusal.headers["X-Keyproxy-Code"] in ("upstream_invalid", "upstream_unreachable")


async def test_only_listed_headers_come_down(before: Before) -> None:
    proxy = await before(
        OK + b"Set-Cookie: a=b\r\nX-Accel-Redirect: /internal\r\nX-Sendfile: /etc/passwd\r\n"
        b"Clear-Site-Data: *\r\nAlt-Svc: h3\r\nStrict-Transport-Security: max-age=1\r\n"
        b"Access-Control-Allow-Origin: *\r\nLink: </x>\r\nX-Generation-Id: gen-1\r\ncf-ray: r\r\n"
        b"cf-ray: s\r\nContent-Length: 2\r\n\r\n{}"
    )
    async with proxy.post() as answer:
        names = {name.lower() for name in answer.headers}
        assert answer.headers.getall("cf-ray") == ["r"]
    ours = {
        "content-type",
        "content-length",
        "date",
        "cache-control",
        "vary",
        "x-request-id",
        "x-content-type-options",
        "ratelimit",
        "ratelimit-policy",
    }
    assert names == ours | {"x-generation-id", "cf-ray"}


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"200 Bearer %b\r\nContent-Type: application/json\r\n", id="reason"),
        pytest.param(b"200 OK\r\nContent-Type: application/json; charset=%b\r\n", id="charset"),
        pytest.param(b"200 OK\r\nContent-Type: application/json\r\ncf-ray: %b\r\n", id="field"),
        pytest.param(b"200 OK\r\nContent-Type: application/json\r\nX-%b: 1\r\n", id="field name"),
        pytest.param(
            b"429 %b\r\nContent-Type: application/json\r\nRetry-After: %b\r\n", id="error"
        ),
    ],
)
async def test_a_key_in_the_head_does_not_come_down(before: Before, head: bytes) -> None:
    proxy = await before(
        b"HTTP/1.1 " + head.replace(b"%b", KEY.encode()) + b"Content-Length: 2\r\n\r\n{}"
    )
    async with proxy.post() as answer:
        assert answer.status in (200, 429)
        assert KEY not in f"{answer.reason} {answer.raw_headers!r} {await answer.text()}"


@pytest.mark.parametrize("status", [b"200 OK", b"400 No", b"402 No", b"403 No", b"500 No"])
@pytest.mark.parametrize("kind", [b"application/json", b"text/plain"])
async def test_a_key_in_a_body_does_not_come_down(
    before: Before, status: bytes, kind: bytes
) -> None:
    body = b'{"error":{"message":"No auth: Bearer %b"},"user_id":"user_1"}' % KEY.encode()
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    proxy = await before(head % (status, kind, len(body)) + body)
    got = await everything(proxy)
    assert KEY not in got
    assert KEY[:40] not in got


async def test_a_key_that_cleaning_would_unfold_does_not_come_down(before: Before) -> None:
    """Written as \\u002d in JSON it is no key in the bytes, and one after parsing."""
    body = b'{"error":{"message":"%b"},"user_id":"u"}' % KEY.replace("-", "\\u002d").encode()
    head = b"HTTP/1.1 400 No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    proxy = await before(head % len(body) + body)
    assert KEY not in await everything(proxy)


@pytest.mark.parametrize("twice", [b"", b',"message":"no"'], ids=["once", "a name said twice"])
@pytest.mark.parametrize("status", [400, 401, 402, 500])
async def test_a_key_behind_escapes_does_not_come_down_though_nothing_is_cleaned(
    before: Before, status: int, twice: bytes
) -> None:
    body = b'{"error":{"message":"%b"%b}}' % (KEY.replace("-", "\\u002d").encode(), twice)
    head = b"HTTP/1.1 %d No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    proxy = await before(head % (status, len(body)) + body)
    async with proxy.post() as answer:
        assert answer.status == status
        shown = await answer.text()
        assert "0123456789abcdef" not in shown


@pytest.mark.parametrize("written", [KEY, KEY.replace("-", "\\u002d")], ids=["plain", "escaped"])
@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/models",
        "/api/v1/models?limit=1",
        "/api/v1/models/openai/gpt-4o/endpoints",
        "/api/v1/model/openai/gpt-4o",
    ],
)
@pytest.mark.parametrize("status", [b"200 OK", b"404 No"])
async def test_a_key_in_the_catalogue_does_not_come_down(
    before: Before, path: str, written: str, status: bytes
) -> None:
    """It is asked for without the key, which the upstream knows from calls."""
    row = b'{"id":"openai/gpt-4o","description":"%b","user_id":"u"}' % written.encode()
    body = b'{"data":[%b],"error":{"message":"no"},"data2":%b}' % (row, row)
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    proxy = await before(head % (status, len(body)) + body)
    async with proxy.get(path) as answer:
        assert KEY[:40] not in json.dumps(await answer.json())
        await refused(answer, 502, "upstream_invalid")


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-32-be"])
async def test_a_key_in_another_coding_does_not_come_down(before: Before, coding: str) -> None:
    """Python's reader of JSON guesses codings in which the bytes of a key are others."""
    row = {"id": "openai/gpt-4o", "description": KEY}
    body = json.dumps({"data": [row], "error": {"message": KEY}, "user_id": "u"}).encode(coding)
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    proxy = await before(head % (b"200 OK", len(body)) + body)
    async with proxy.get("/api/v1/models") as answer:
        await refused(answer, 502, "upstream_invalid")
    proxy = await before(head % (b"400 No", len(body)) + body)
    async with proxy.post() as answer:
        assert answer.status == 400
        assert KEY[:40] not in json.dumps(await answer.json())


async def everything(proxy: Proxy) -> str:
    """Head and body of an answer as the client has them, cut or whole."""
    got = bytearray()
    async with proxy.post() as answer:
        try:
            async for piece in answer.content.iter_any():
                got += piece
        except CUT:
            pass
        return f"{answer.raw_headers!r}{bytes(got)!r}"


async def test_a_key_in_a_stream_cuts_it_at_every_border(before: Before) -> None:
    """The key is cut in two chunks at each of its bytes; a loud line is logged each time."""
    key = KEY.encode()
    borders = iter(range(1, len(key)))

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_call(reader, writer)
        border = next(borders)
        writer.write(STREAM + chunk(b"data: a\n\n"))
        writer.write(chunk(b"data: " + key[:border]))
        await writer.drain()
        writer.write(chunk(key[border:] + b"\n\n") + chunk(b"data: b\n\n") + b"0\r\n\r\n")

    proxy = await before(script, RATE_LIMIT="off")
    with capture_logs() as lines:
        for _ in key[1:]:
            got = await everything(proxy)
            assert KEY[:40] not in got
            assert "data: b" not in got
    found = [line for line in lines if line["log_level"] == "error"]
    assert len(found) == len(key) - 1


async def test_a_key_in_a_trailer_does_not_come_down(before: Before) -> None:
    trailer = b"0\r\nX-Trailer: " + KEY.encode() + b"\r\n\r\n"
    proxy = await before(STREAM + chunk(b"data: 1\n\n") + trailer)
    body = json.dumps(BODY)
    head = (
        "POST /api/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    got = await proxy.raw((head + body).encode())
    assert got.endswith(b"9\r\ndata: 1\n\n\r\n0\r\n\r\n")
    assert KEY.encode() not in got


ERRORS = sorted(path.name for path in WIRE.glob("error-*.json"))


@pytest.mark.parametrize("name", [name for name in ERRORS if "401" not in name])
async def test_error_bodies_pass_without_what_belongs_to_the_account(
    before: Before, name: str
) -> None:
    sample = (WIRE / name).read_bytes()
    found = re.search("[45][0-9]{2}", name)
    status = int(found[0]) if found else 503
    head = b"HTTP/1.1 %d No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    proxy = await before(head % (status, len(sample)) + sample)
    async with proxy.post() as answer:
        assert answer.status == status
        text = await answer.text()
    for private in ("user_2EXAMPLE", "user_id", "is_byok", "27342", "can only afford", "upgrade"):
        assert private not in text
    sent: dict[str, Any] = json.loads(sample).get("error", {})
    assert json.loads(text)["error"].get("code") == sent.get("code")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain", b"You can only afford 27342 tokens"),
        ("application/json", b'{"error":"You can only afford 27342 tokens"}'),
        ("application/json", b'{"message":"You can only afford 27342 tokens"}'),
    ],
)
async def test_a_402_of_another_shape_tells_no_balance(
    before: Before, kind: str, body: bytes
) -> None:
    head = f"HTTP/1.1 402 No\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    proxy = await before(head.encode() + body)
    async with proxy.post() as answer:
        assert answer.status == 402
        text = await answer.text()
    assert "27342" not in text
    assert json.loads(text)["error"]["code"] == 402


async def test_an_error_body_without_an_end_becomes_json(before: Before) -> None:
    head = (
        b"HTTP/1.1 500 No\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    proxy = await before(head, *[chunk(b"a" * 60_000)] * 10)
    async with proxy.post() as answer:
        assert answer.status == 500
        assert (await answer.json())["error"]["code"] == 500


@pytest.mark.parametrize("word", ["org-", "team_user-", "sk-", "organization ", "project ", "'"])
async def test_an_error_made_of_one_word_holds_up_nobody(before: Before, word: str) -> None:
    """Some providers repeat what they were sent, so that a caller may have such an error made."""
    body = b'{"error":{"message":"%b"}}' % (word * (250_000 // len(word))).encode()
    head = b"HTTP/1.1 422 No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    proxy = await before(head % len(body) + body)
    async with proxy.post() as answer:
        assert (answer.status, await answer.read()) == (422, body)


async def test_an_error_body_that_stalls_becomes_json(before: Before) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_call(reader, writer)
        writer.write(
            b"HTTP/1.1 500 No\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        await reader.read()

    proxy = await before(script, IDLE_TIMEOUT="100ms")
    async with proxy.post() as answer:
        assert answer.status == 500
        assert (await answer.json())["error"]["code"] == 500
