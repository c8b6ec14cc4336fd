"""Bytes of a client taken apart into requests.

llhttp parses, strictly, through httptools; ``intake.headers_of`` ends what it lets through and
others read differently. Nothing is parsed behind a fault.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import httptools
from multidict import CIMultiDictProxy

from keyproxy.errors import Refusal, overloaded
from keyproxy.transport import intake, refusals
from keyproxy.transport.intake import MAX_HEAD_BYTES, MAX_LINE_BYTES
from keyproxy.transport.messages import BrokenBody, Request, lines

_STEP_BYTES = 4096  # parsed at once: so little that the requests in it take no memory to speak of


class Requests:
    """``ahead``: those that wait to be answered; ``coming``: the one whose body is not whole;
    ``fault``: what is behind them; ``tail``: bytes that were not parsed yet; ``is_in_head``: of
    another one something has come."""

    __slots__ = (
        *("_fields", "_overhead", "_parser", "_remote", "_target", "_transport"),
        *("ahead", "coming", "fault", "is_in_head", "tail"),
    )

    def __init__(self, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        self._transport, self._remote = transport, str(peer[0]) if peer else None
        self._parser: httptools.HttpRequestParser | None = None
        self.ahead: list[Request] = []
        self.coming: Request | None = None
        self.fault: Refusal | None = None
        self.tail = b""
        self.is_in_head = False
        self._overhead = 0  # bytes that are none of a body

    def feed(self, data: bytes, answered: Request | None) -> None:
        """Take apart as much as is needed for a whole request to be ``answered``, or the next."""
        data = self.tail + data if self.tail else data
        done = 0
        while done < len(data) and self.fault is None:
            wanted = answered or (self.ahead[0] if self.ahead else None)
            if wanted is not None and wanted.is_whole:
                break
            self._parse(data[done : done + _STEP_BYTES])
            done += _STEP_BYTES
        self.tail = data[done:] if self.fault is None else b""

    def rest(self) -> None:
        """An answer may take minutes: until more comes, nothing is kept to parse it with."""
        if self.coming is None and not self.is_in_head:
            self._parser = None

    def close(self) -> None:
        """Let go of everything."""
        self._parser = None  # it knows us
        self.coming, self.tail = None, b""
        self.ahead.clear()

    def _parse(self, data: bytes) -> None:
        self._overhead += len(data)
        fault: Refusal | None = None
        lack: type[Exception] = BrokenBody
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._pass_over(data[offer.args[0] :])
        except httptools.HttpParserError as error:
            told = error.__context__
            fault = told if isinstance(told, Refusal) else refusals.of_head("bad_request")
            if isinstance(told, MemoryError):
                fault, lack = overloaded(), MemoryError
        if fault is None and self._overhead > MAX_HEAD_BYTES:
            fault = refusals.of_head("head_too_large")
        if fault is not None:
            self.fault = fault.with_traceback(None)
            if self.coming is not None:
                self.coming.end(lack)

    def _pass_over(self, rest: bytes) -> None:
        """An offer of another protocol. The parser takes what follows for that one: another has to
        read the body. It is the last request of the connection."""
        if (coming := self.coming) is not None:
            told = SimpleNamespace(
                on_body=self.on_body, on_message_complete=self.on_message_complete
            )
            self._parser = httptools.HttpRequestParser(told)
            names = ("Content-Length", "Transfer-Encoding")
            framing = [(each, coming.headers[each]) for each in names if each in coming.headers]
            self._parser.feed_data(f"POST / HTTP/1.1\r\n{lines(framing)}\r\n".encode())
            self._parse(rest)

    # What the parser tells.

    def on_message_begin(self) -> None:
        self.is_in_head = True
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []

    def on_url(self, part: bytes) -> None:
        self._target += part
        if len(self._target) > MAX_LINE_BYTES:
            raise refusals.of_head("uri_too_long")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_in_head:  # else it is a trailer
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None  # noqa: S101 - it is what tells
        method = parser.get_method().decode()
        target = self._target.decode("utf-8", "surrogateescape")
        version = parser.get_http_version()
        is_small = self._overhead + _STEP_BYTES <= MAX_LINE_BYTES
        headers = intake.headers_of(method, target, version, self._fields, is_small=is_small)
        self.is_in_head, self._overhead = False, 0
        del self._target, self._fields
        head, remote, transport = CIMultiDictProxy(headers), self._remote, self._transport
        keeps = parser.should_keep_alive() and "Upgrade" not in headers
        self.coming = Request(method, target, head, version, remote, keeps, transport)
        self.ahead.append(self.coming)

    def on_body(self, data: bytes) -> None:
        self._overhead = 0
        if self.coming is not None:
            self.coming.feed(data)

    def on_message_complete(self) -> None:
        coming, parser = self.coming, self._parser
        if parser is None or coming is None or (coming.has_body and parser.should_upgrade()):
            return  # that of an offer comes yet
        self.coming, self._overhead = None, 0
        if not parser.should_keep_alive():
            coming.keeps = False  # a trailer has said so
        coming.end()
