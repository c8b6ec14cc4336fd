"""Heads and bodies that break the rules of HTTP/1.1, and clients that take their time."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

import pytest

from keyproxy.floods import Floods
from keyproxy.settings import Address, Settings
from keyproxy.transport.connection import Serving
from keyproxy.transport.messages import NO_LINES, Request, Response
from keyproxy.transport.server import Server
from tests.conftest import BODY, CHAT, Proxy, Start
from tests.fake_upstream import begun, silent, streaming
from tests.raw import CALL, Connection, answers, only_answer, refused_raw, request

CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(CALL), CALL)

TRANSFER_ENCODINGS: list[bytes] = [
    b"Transfer-Encoding: chunked",
    b"transfer-encoding:chunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding: chunked ",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: 'chunked'",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: \xef\xbd\x83hunked",
    b"Transfer-Encoding: chun\x00ked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b" Transfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
]


@pytest.mark.parametrize("field", TRANSFER_ENCODINGS)
async def test_a_length_beside_a_transfer_coding_is_refused(proxy: Proxy, field: bytes) -> None:
    data = request("POST", CHAT, b"Content-Length: 5", field, body=CHUNKED)
    await refused_raw(proxy, data, 400, "bad_request")


@pytest.mark.parametrize(
    "field",
    [f for f in TRANSFER_ENCODINGS if f.strip().lower().split(b":")[-1].strip() != b"chunked"],
)
async def test_an_odd_transfer_coding_alone_is_refused(proxy: Proxy, field: bytes) -> None:
    # Some of them frame nothing: what follows the head is then a request of its own, and broken.
    data = request("POST", CHAT, field, b"X: Transfer-Encoding", body=CHUNKED)
    [answer, *_] = answers(await proxy.raw(data))
    assert answer.status == 400
    assert proxy.upstream.calls == []


@pytest.mark.parametrize(
    "value",
    [
        b"+%d", b"-%d", b"0x%x", b"%d_0", b"%d, %d", b"%d,%d", b"%d %d", b"", b" ", b"%d.0",
        b"%de0", b"99999999999999999999999999%d", b"18446744073709551616", b"\xd9\xa5", b"%d;",
        b'"%d"', b"%d\x00", b"\x0b%d", b"%d\x0c", b"NaN",
        b"%d\r\nContent-Length: 5", b"5\r\nContent-Length: %d", b"%d\r\nContent-Length: %d",
    ],
)  # fmt: skip
async def test_a_length_that_is_not_one_plain_number_is_refused(proxy: Proxy, value: bytes) -> None:
    length = b"%d" % len(CALL)
    field = b"Content-Length: " + value.replace(b"%d", length).replace(b"%x", b"%x" % len(CALL))
    await refused_raw(proxy, request("POST", CHAT, field), 400, "bad_request")


@pytest.mark.parametrize(
    "chunks",
    [
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5g\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nbroken trailer\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: a\x00b\r\n\r\n",
    ],
)
async def test_broken_chunks_are_refused(proxy: Proxy, chunks: bytes) -> None:
    field = "Transfer-Encoding: chunked"
    data = request("POST", CHAT, field, body=chunks)
    answer = answers(await proxy.raw(data))[0]
    assert (answer.status, answer.code) == (400, "bad_request")
    assert proxy.upstream.calls == []


async def test_a_chunked_call_goes_up_with_a_length_and_without_its_trailers(proxy: Proxy) -> None:
    chunks = CHUNKED[:-2] + b"Authorization: Bearer evil\r\nX-Trailer: 1\r\n\r\n"
    fields = ("Transfer-Encoding: chunked", "Trailer: X-Trailer", "Connection: close")
    data = request("POST", CHAT, *fields, body=chunks)
    assert (await only_answer(proxy, data)).status == 200
    [seen] = proxy.upstream.calls
    assert seen.body == CALL
    assert seen.headers.getall("Content-Length") == [str(len(CALL))]
    assert not {"Transfer-Encoding", "Trailer", "X-Trailer"} & set(seen.headers)
    assert "evil" not in str(seen.headers)


async def test_a_trailer_is_no_field_of_the_request_behind_it(proxy: Proxy) -> None:
    """A front that keeps connections may send another client's request there."""
    chunks = CHUNKED[:-2] + b"X-Trailer: 1\r\nOrigin: https://evil.example\r\n\r\n"
    data = request("POST", CHAT, "Transfer-Encoding: chunked", body=chunks)
    got = answers(await proxy.raw(data + request("POST", CHAT, "Connection: close")))
    assert {answer.status for answer in got} == {200}, got


@pytest.mark.parametrize(
    "field",
    [
        b": empty name", b" folded", b"X: a\r\n folded", b"X: a\r\n\tfolded", b"no colon", b"X : a",
        b"X\t: a", b"X(Y): a", b"X\x00Y: a", b"X: a\x00b", b"X: a\rb", b"X: a\x01b", b"X: \x7f",
        b"\xc3\xa9: a", b"Host: localhost", b"Host: evil.example",
    ],
)  # fmt: skip
async def test_broken_header_lines_are_refused(proxy: Proxy, field: bytes) -> None:
    data = request("POST", CHAT, field)
    await refused_raw(proxy, data, 400, "bad_request")


async def test_a_head_without_a_host_is_refused(proxy: Proxy) -> None:
    await refused_raw(proxy, request(host=None), 400, "bad_request")


async def test_bare_line_feeds_end_no_header_line(proxy: Proxy) -> None:
    await refused_raw(proxy, request().replace(b"\r\n", b"\n"), 400, "bad_request")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (("POST", "/nope"), 404),
        (("POST", "/api/v1/models"), 405),
        (("DELETE", CHAT), 405),
        (("PUT", "/healthz"), 404),
        (("GET", "/api/v1/models"), 400),
        (("POST", "/api/v1/chat/completions?x=1"), 400),
        (("POST", CHAT, "Connection: close", "Origin: https://evil.example"), 403),
        (("POST", CHAT, "Connection: close", "X-Forwarded-For: 8.8.8.8"), 403),
        (("POST", CHAT, "Content-Type: text/plain"), 415),
        (("POST", CHAT, "Content-Encoding: gzip"), 415),
        (("POST", CHAT, "Expect: 200-maybe"), 417),
        (("CONNECT", "localhost:443"), 405),
        (("CONNECT", CHAT), 405),
        (("TRACE", CHAT), 405),
        (("GET", "http://localhost"), 404),
        (("POST", CHAT, "Connection: upgrade", "Upgrade: websocket"), 400),
        (("POST", CHAT, "Connection: upgrade", "Upgrade: h2c, websocket"), 400),
    ],
)
async def test_a_request_hidden_in_a_refused_body_is_never_run(
    proxy: Proxy, head: tuple[str, ...], status: int
) -> None:
    answer = await only_answer(proxy, request(*head, body=request()))
    assert answer.status == status
    assert proxy.upstream.calls == []


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.0"])
async def test_an_upgrade_at_the_health_path_ends_the_connection(
    proxy: Proxy, protocol: str
) -> None:
    fields = ("Connection: upgrade", f"Upgrade: {protocol}")
    assert (await only_answer(proxy, request("GET", "/healthz", *fields) + request())).status == 200
    assert proxy.upstream.calls == []


async def test_an_offer_of_http_2_is_passed_over_and_ends_the_connection(proxy: Proxy) -> None:
    fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    answer = await only_answer(proxy, request("POST", CHAT, *fields) + request())
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    [seen] = proxy.upstream.calls
    assert not {"Upgrade", "HTTP2-Settings"} & set(seen.headers)


@pytest.mark.parametrize("target", ["localhost:443", "/x", CHAT, "evil:1"])
async def test_connect_is_refused_and_what_follows_is_dropped(proxy: Proxy, target: str) -> None:
    body = await refused_raw(
        proxy, request("CONNECT", target) + request(), 405, "method_not_allowed"
    )
    assert target not in body["error"]["message"]


@pytest.mark.parametrize(
    "data",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/3\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/0.9\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.2\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.10\r\nHost: localhost\r\n\r\n",
        b"GET /healthz http/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET\t/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"G\xc3\x89T /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PROXY TCP4 8.8.8.8 127.0.0.1 1 8484\r\n" + request("GET", "/healthz"),
        b"\r\n\r\n\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a" + request("GET", "/healthz"),
        bytes.fromhex("160301020001000001fc0303") + bytes(300),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00" * 64,
    ],
)
async def test_other_protocols_get_a_plain_refusal(proxy: Proxy, data: bytes) -> None:
    body = await refused_raw(proxy, data, 400, "bad_request")
    assert body["error"]["message"] == "The request's head is not valid HTTP/1.1."


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
        (b"GET /?" + b"a" * 100_000, 414, "uri_too_long"),
        (request("GET", "/", "Cookie: " + "a" * 33_000), 431, "head_too_large"),
        (request("GET", "/", "A" * 33_000 + ": a"), 431, "head_too_large"),
        (request("GET", "/", *["X: " + "a" * 32_000] * 3), 431, "head_too_large"),
        (request("GET", "/", "Authorization: Bearer " + "a" * 9000), 431, "head_too_large"),
        (request("GET", "/", "x-api-key: " + "a" * 9000), 431, "head_too_large"),
        (request("GET", "/", "X-GOOG-API-KEY: " + "a" * 9000), 431, "head_too_large"),
        (request("GET", "/", *["X: a"] * 200), 431, "head_too_large"),
        (request("GET", "/", *["X: " + "a" * 8000] * 20), 431, "head_too_large"),
        (request("GET", "/", *["X: " + "a" * 8000] * 100), 431, "head_too_large"),
    ],
)
async def test_large_heads_are_refused_by_what_is_too_large(
    proxy: Proxy, data: bytes, status: int, code: str
) -> None:
    body = await refused_raw(proxy, data, status, code)
    assert "aaaa" not in str(body)


@pytest.mark.parametrize("field", ["Cookie: a=" + "b" * 9000, "X-Own: " + "a" * 32_000])
async def test_a_large_field_passes_and_ends_here(proxy: Proxy, field: str) -> None:
    """A page sends its site's cookies along, and some sites keep whole sessions in them."""
    answer = await only_answer(proxy, request("POST", CHAT, field, "Connection: close"))
    assert answer.status == 200
    [call] = proxy.upstream.calls
    assert field.partition(":")[0] not in call.headers


async def test_a_head_is_measured_also_where_it_came_in_one_piece(proxy: Proxy) -> None:
    """Behind a body, the whole of the next head is there before anybody can look at its length."""
    large = request("GET", "/healthz", *["X: " + "a" * 30_000] * 3)
    [first, second] = answers(await proxy.raw(request() + large))
    assert (first.status, second.status, second.code) == (200, 431, "head_too_large")


async def test_trailers_take_no_more_than_a_head_may(proxy: Proxy) -> None:
    data = request("POST", CHAT, "Transfer-Encoding: chunked", body=CHUNKED[:-2])
    async with await Connection.open(proxy) as connection:
        connection.writer.write(data)
        answered = asyncio.create_task(connection.rest())
        for _ in range(100):
            connection.writer.write(b"X: " + b"a" * 8000 + b"\r\n")
            if (await asyncio.wait([answered], timeout=0.02))[0]:
                break
        [answer] = answers(await answered)
    assert (answer.status, answer.code) == (400, "bad_request")
    assert proxy.upstream.calls == []


@pytest.mark.parametrize(
    "begun", [b"", b"G", b"GET /healthz HTTP/1.1\r\n", request("GET", "/x")[:-2]]
)
async def test_a_head_that_does_not_come_in_time_ends_the_connection(
    start: Start, begun: bytes
) -> None:
    proxy = await start(HEADER_TIMEOUT="200ms")
    await refused_raw(proxy, begun, 408, "head_timeout")


async def test_a_head_that_drips_in_is_ended_by_the_same_timer(start: Start) -> None:
    proxy = await start(HEADER_TIMEOUT="300ms")
    async with await Connection.open(proxy) as connection:
        answered = asyncio.create_task(connection.rest())
        for byte in request("GET", "/healthz", "X: " + "a" * 4000):
            connection.writer.write(bytes([byte]))
            if (await asyncio.wait([answered], timeout=0.02))[0]:
                break
        [answer] = answers(await answered)
        assert (answer.status, answer.code) == (408, "head_timeout")


async def test_the_second_head_on_a_connection_has_the_same_time(start: Start) -> None:
    proxy = await start(HEADER_TIMEOUT="200ms")
    async with await Connection.open(proxy) as connection:
        connection.writer.write(request("GET", "/healthz"))
        assert (await connection.answer()).status == 200
        connection.writer.write(b"GET /hea")
        [answer] = answers(await connection.rest())
        assert (answer.status, answer.code) == (408, "head_timeout")


async def test_a_connection_serves_several_calls_and_is_closed_when_idle(start: Start) -> None:
    proxy = await start(KEEPALIVE_TIMEOUT="500ms", HEADER_TIMEOUT="250ms")
    async with await Connection.open(proxy) as connection:
        for _ in range(3):
            connection.writer.write(request())
            assert (await connection.answer()).status == 200
        assert await connection.rest() == b""
    assert len(proxy.upstream.calls) == 3


async def test_a_refusal_whose_body_was_read_keeps_the_connection(proxy: Proxy) -> None:
    async with await Connection.open(proxy) as connection:
        connection.writer.write(request(body=b"{}"))
        assert (await connection.answer()).code == "model_missing"
        connection.writer.write(request())
        assert (await connection.answer()).status == 200


async def test_a_body_that_nobody_reads_holds_up_no_request_behind_it() -> None:
    # One byte more than may wait for a reader: the last one stops the reading from the socket.
    async def refuse_late(request: Request, connection: object) -> Response:
        while not request.is_whole:
            await asyncio.sleep(0)
        return Response(429)

    settings = Settings.from_environ("dev", {"OPENROUTER_API_KEY": "sk-or-v1-" + "0" * 64})
    server = Server(Serving(refuse_late, lambda *_: NO_LINES, settings, 9, Floods()))
    [address] = await server.listen([Address("127.0.0.1", 0)])
    try:
        async with await Connection.at(int(address.rpartition(":")[2])) as connection:
            for _ in range(2):
                connection.writer.write(request(body=b"x" * 131_073))
                assert (await connection.answer()).status == 429
    finally:
        await server.close()


async def test_pipelined_calls_are_checked_one_by_one_and_answered_in_order(start: Start) -> None:
    proxy = await start(RATE_LIMIT="off", ALLOWED_MODELS="openai/*")
    wrong = json.dumps(BODY | {"model": "other/model"}).encode()
    pipeline = (request() + request(body=wrong)) * 60
    data = await proxy.raw(pipeline + request("GET", "/healthz", "Connection: close"))
    assert [answer.status for answer in answers(data)] == [200, 403] * 60 + [200]
    assert len(proxy.upstream.calls) == 60


@pytest.mark.parametrize("early", [0, 1, 40, -40, -1, None])
async def test_what_comes_early_of_a_call_behind_a_stream_is_kept(
    proxy: Proxy, early: int | None
) -> None:
    """Of head and body, with the call before it; the rest while that one is answered."""
    until, next_call = asyncio.Event(), request()
    proxy.upstream.answer = streaming(until)
    async with await Connection.open(proxy) as connection:
        connection.writer.write(request() + next_call[:early])
        await connection.reader.readuntil(b"data: 1\n\n")
        connection.writer.write(b"" if early is None else next_call[early:])
        proxy.upstream.answer = None
        until.set()
        await connection.reader.readuntil(b"\r\n0\r\n\r\n")
        assert (await connection.answer()).status == 200
    assert len(proxy.upstream.calls) == 2


async def test_a_broken_head_behind_a_stream_is_refused(proxy: Proxy) -> None:
    until = asyncio.Event()
    proxy.upstream.answer = streaming(until)
    async with await Connection.open(proxy) as connection:
        connection.writer.write(request())
        await connection.reader.readuntil(b"data: 1\n\n")
        connection.writer.write(b"GET / HTTP/1.1\nHost: localhost\r\n\r\n")
        until.set()
        await connection.reader.readuntil(b"\r\n0\r\n\r\n")
        [answer] = answers(await connection.rest())
        assert (answer.status, answer.code) == (400, "bad_request")


async def test_nothing_pipelined_behind_a_closing_refusal_is_run(proxy: Proxy) -> None:
    answer = await only_answer(proxy, request("GET", "/nope") + request() * 50)
    assert answer.status == 404
    assert proxy.upstream.calls == []


async def test_a_body_is_asked_for_after_admission(proxy: Proxy) -> None:
    head, _, body = request("POST", CHAT, "Expect: 100-continue").partition(b"\r\n\r\n")
    async with await Connection.open(proxy) as connection:
        connection.writer.write(head + b"\r\n\r\n")
        assert await connection.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert proxy.upstream.calls == []
        connection.writer.write(body)
        assert (await connection.answer()).status == 200
    assert "Expect" not in proxy.upstream.calls[0].headers


@pytest.mark.parametrize("rest", [b"XX", b"5\nhello", b"0\r\nbroken trailer\r\n\r\n"])
async def test_chunks_that_break_after_the_first_are_refused_at_once(
    proxy: Proxy, rest: bytes
) -> None:
    fields = ("Expect: 100-continue", "Transfer-Encoding: chunked")
    async with await Connection.open(proxy) as connection:
        connection.writer.write(request("POST", CHAT, *fields, body=b""))
        assert b" 100 " in await connection.head()
        connection.writer.write(CHUNKED[: -len(b"0\r\n\r\n")] + rest)
        [answer] = answers(await connection.rest())
        assert (answer.status, answer.code) == (400, "bad_request")
    assert proxy.upstream.calls == []


async def test_who_goes_on_sending_behind_a_broken_chunk_gets_the_answer(proxy: Proxy) -> None:
    """Closing over what was sent and not read would take it back."""
    async with await Connection.open(proxy) as connection:
        connection.writer.write(request("POST", CHAT, "Transfer-Encoding: chunked", body=b"XX\r\n"))
        assert (await connection.answer()).code == "bad_request"
        assert await connection.rest() == b""
        assert _known(proxy) != set()  # what still comes is read, and would else reset it
    await _until_forgotten(proxy)


async def test_a_broken_body_behind_a_refusal_leaves_no_traceback(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    async with await Connection.open(proxy) as connection:
        connection.writer.write(request("POST", "/nope", "Transfer-Encoding: chunked", body=b""))
        assert (await connection.answer()).status == 404
        connection.writer.write(b"XX\r\n")
        assert await connection.rest() == b""
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (("POST", "/nope"), 404),
        (("POST", "/api/v1/models"), 405),
        (("POST", CHAT, "Origin: https://evil.example"), 403),
        (("POST", CHAT, "Content-Type: text/plain"), 415),
        (("POST", CHAT, "Content-Length: 999999999"), 413),
        (("GET", "/api/v1/models"), 400),
    ],
)
async def test_a_body_that_would_be_refused_is_not_asked_for(
    proxy: Proxy, head: tuple[str, ...], status: int
) -> None:
    data = request(*head, "Expect: 100-continue", body=CALL)
    async with await Connection.open(proxy) as connection:
        connection.writer.write(data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert (await connection.answer()).status == status
    assert proxy.upstream.calls == []


async def test_a_body_is_not_asked_for_beyond_the_rate_limit(start: Start) -> None:
    proxy = await start(RATE_LIMIT="1/hour")
    async with await Connection.open(proxy) as connection:
        connection.writer.write(request())
        assert (await connection.answer()).status == 200
        late = request("POST", CHAT, "Expect: 100-continue")
        connection.writer.write(late.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert (await connection.answer()).status == 429
    assert len(proxy.upstream.calls) == 1


@pytest.mark.parametrize(
    "value", ["200-maybe", "100-continue, x", "100-continue\r\nExpect: 100-continue", "x", ""]
)
async def test_other_expectations_are_not_met(proxy: Proxy, value: str) -> None:
    data = request("POST", CHAT, f"Expect: {value}")
    await refused_raw(proxy, data, 417, "expectation_failed")


async def test_http_1_0_is_served_and_closed(proxy: Proxy) -> None:
    data = request("POST", CHAT, "Expect: 100-continue")
    answer = await only_answer(proxy, data.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert answer.status == 200
    assert len(proxy.upstream.calls) == 1


@pytest.mark.parametrize(
    "data",
    [
        request()[:-10],
        request("POST", CHAT, "Transfer-Encoding: chunked", body=CHUNKED[:-5]),
        request("POST", CHAT, "Transfer-Encoding: chunked", body=CHUNKED[:-2]),
        request()[:60],
    ],
)
async def test_a_truncated_call_is_not_forwarded(proxy: Proxy, data: bytes) -> None:
    async with await Connection.open(proxy) as connection:
        connection.writer.write(data)
        connection.writer.write_eof()
        assert b" 200 " not in await connection.rest()
    assert proxy.upstream.calls == []


async def test_a_client_that_half_closes_has_left_and_its_call_is_cancelled(proxy: Proxy) -> None:
    proxy.upstream.answer = silent
    async with await Connection.open(proxy) as connection:
        connection.writer.write(request())
        async with asyncio.timeout(5):
            await proxy.upstream.arrived.wait()
            connection.writer.write_eof()
            await proxy.upstream.left.wait()
        assert await connection.rest() == b""


@pytest.mark.parametrize("fields", [(), ("Transfer-Encoding: chunked",)])
async def test_a_body_that_does_not_come_in_time_is_refused(
    start: Start, fields: tuple[str, ...]
) -> None:
    proxy = await start(BODY_TIMEOUT="200ms")
    body = CHUNKED if fields else CALL
    data = request("POST", CHAT, *fields, body=body)
    async with await Connection.open(proxy) as connection:
        connection.writer.write(data[:-10])
        answer = await connection.answer()
    assert (answer.status, answer.code) == (408, "body_timeout")
    assert answer.headers["connection"] == "close"
    assert proxy.upstream.calls == []


@pytest.mark.parametrize("field", ["X: plain", "Transfer-Encoding: chunked"])
async def test_a_large_body_is_refused_while_it_comes(start: Start, field: str) -> None:
    proxy = await start(MAX_BODY="1KiB")
    text = b'{"a":"%s"}' % (b"x" * 3000)
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(text), text) if "chunked" in field else text
    data = request("POST", CHAT, field, body=body)
    await refused_raw(proxy, data, 413, "body_too_large")


async def test_a_body_of_exactly_the_allowed_size_passes(start: Start) -> None:
    proxy = await start(MAX_BODY="1KiB")
    body = CALL + b" " * (1024 - len(CALL))
    data = request("POST", CHAT, "Connection: close", body=body)
    assert (await only_answer(proxy, data)).status == 200
    await_more = request("POST", CHAT, body=body + b" ")
    assert (await only_answer(proxy, await_more)).status == 413
    assert len(proxy.upstream.calls) == 1


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_body_is_bounded_alike_with_its_head_and_behind_it(
    start: Start, is_late: bool
) -> None:
    proxy = await start(MAX_BODY="1KiB")
    expecting = ["Expect: 100-continue"] if is_late else []
    for size, status in ((1024, 200), (1025, 413)):
        body = CALL.ljust(size)
        sent = b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
        head = request("POST", CHAT, "Transfer-Encoding: chunked", *expecting, body=b"")
        async with await Connection.open(proxy) as connection:
            connection.writer.write(head if is_late else head + sent)
            if is_late:
                assert await connection.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
                connection.writer.write(sent)
            assert (await connection.answer()).status == status
    assert [call.body for call in proxy.upstream.calls] == [CALL.ljust(1024)]


async def test_head_faults_echo_nothing_and_carry_the_usual_shape(proxy: Proxy) -> None:
    data = b"GET /<script>SECRET HTTP/9.9\r\nSECRET: SECRET\r\n\r\n"
    body = await refused_raw(proxy, data, 400, "bad_request")
    assert "SECRET" not in str(body)
    assert body["error"]["metadata"]["source"] == "keyproxy"
    assert body["error"]["metadata"]["request_id"].startswith("req_")


def _reset(connection: Connection) -> None:
    sock = connection.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.writer.transport.abort()


def _known(proxy: Proxy) -> set[Any]:
    return proxy.service._server.connections


async def _until_forgotten(proxy: Proxy) -> None:
    async with asyncio.timeout(10):
        while _known(proxy):
            await asyncio.sleep(0.01)


async def test_a_client_that_resets_behind_two_requests_is_forgotten(proxy: Proxy) -> None:
    health = request("GET", "/healthz")
    for data in (health * 2, request(body=b"{}") + health, request() + health, health * 5_000):
        for _ in range(20):
            async with await Connection.open(proxy) as connection:
                connection.writer.write(data)
                await connection.writer.drain()
                _reset(connection)
        await _until_forgotten(proxy)


async def test_a_client_that_queues_calls_for_long_has_one_timer(proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    async with await Connection.open(proxy) as connection:

        async def send() -> None:
            for _ in range(30):
                connection.writer.write(request("GET", "/healthz") * 3_000)
                await connection.writer.drain()

        sending, left = asyncio.create_task(send()), 20_000
        async with asyncio.timeout(60):
            while left > 0:
                left -= (await connection.reader.read(1 << 16)).count(b"HTTP/1.1 200 ")
        sending.cancel()
        timers = [each for each in loop._scheduled if not each.cancelled()]  # type: ignore[attr-defined]
        names = [each._callback.__name__ for each in timers]
        assert names.count("_look_paused") <= 1


@pytest.mark.parametrize("how", ["stop", "half-close"])
async def test_a_stream_in_http_1_0_that_is_cut_ends_with_a_reset(start: Start, how: str) -> None:
    proxy = await start(SHUTDOWN_GRACE="0s")
    proxy.upstream.answer = begun
    data = request("POST", CHAT, body=json.dumps({**BODY, "stream": True}).encode())
    async with await Connection.open(proxy) as connection:
        connection.writer.write(data.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        await connection.reader.readuntil(b"data: ")
        if how == "stop":
            stopping = asyncio.create_task(proxy.service.drain())
        else:
            connection.writer.write_eof()
        with pytest.raises(ConnectionResetError):
            await connection.reader.read()
    if how == "stop":
        await stopping
