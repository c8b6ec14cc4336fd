"""Requests as bytes and answers taken apart, for heads that no HTTP library would write."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from tests.conftest import BODY, CHAT, Proxy

CALL = json.dumps(BODY).encode()


@dataclass(frozen=True)
class RawAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        return self.headers.get("x-keyproxy-code")


def request(
    method: str = "POST",
    target: str | bytes = CHAT,
    *fields: str | bytes,
    body: bytes | None = None,
    host: str | None = "localhost",
) -> bytes:
    """A head with its body; a POST is a whole allowed call unless it is told otherwise."""
    if method == "POST" and body is None:
        body = CALL
    lines = [b"%s %s HTTP/1.1" % (method.encode(), _bytes(target))]
    lines += [] if host is None else [b"Host: " + host.encode()]
    lines += map(_bytes, fields)
    if body is not None:
        names = [line.partition(b":")[0].lower() for line in lines]
        if b"content-type" not in names:
            lines.append(b"Content-Type: application/json")
        if b"content-length" not in names and b"transfer-encoding" not in names:
            lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body or b""])


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def answers(data: bytes) -> list[RawAnswer]:
    """Every answer in ``data``, each with a Content-Length or none, and no field of it twice."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        assert len(headers) == len(lines), head
        length = int(headers.get("content-length", 0))
        found.append(RawAnswer(int(status.split(" ")[1]), headers, data[:length]))
        data = data[length:]
    return found


async def only_answer(proxy: Proxy, data: bytes) -> RawAnswer:
    """The one answer to ``data``, after which the connection was closed."""
    [answer] = answers(await proxy.raw(data))
    return answer


async def refused_raw(proxy: Proxy, data: bytes, status: int, code: str) -> dict[str, Any]:
    """Assert that ``data`` gets this refusal, nothing more, and never reaches the upstream."""
    answer = await only_answer(proxy, data)
    assert (answer.status, answer.code) == (status, code), answer
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    assert proxy.upstream.calls == []
    assert proxy.upstream.catalogue == []
    body: dict[str, Any] = json.loads(answer.body)
    return body


class Connection:
    """One open connection, for tests in which time or order matters."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, proxy: Proxy) -> Connection:
        return await cls.at(proxy.port)

    @classmethod
    async def at(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def head(self) -> bytes:
        async with asyncio.timeout(5):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> RawAnswer:
        """The next answer; the connection may stay open behind it."""
        head = await self.head()
        [parsed] = answers(head)
        async with asyncio.timeout(5):
            body = await self.reader.readexactly(int(parsed.headers.get("content-length", 0)))
        return RawAnswer(parsed.status, parsed.headers, body)

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(5):
            return await self.reader.read()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.writer.close()
