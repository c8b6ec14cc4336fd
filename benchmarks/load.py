"""Upstream and clients on one loop: the load of ``compare.py`` and ``pauses.py``.

One process on purpose: both stamps of an event come from one clock, and the next event of a stream
can go out when the one before has arrived. It answers 401 unless the server-held key arrives.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import json
import math
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import repeat
from typing import Any, NamedTuple, cast

KEY = "sk-or-v1-benchmark-" + "0123456789abcdef" * 4
TOKEN = "kpt_ss2-4R-oJtsclJ100FmxyHFwO8UVwaZoRNPWjGnOwqk"  # noqa: S105  (made up)
MODEL, TEXT = "openai/gpt-4o-mini", "Say something about Köln. " * 36
GENERATION = b"gen-1790981416-0123456789abcdefghij"
USAGE = b'"usage":{"prompt_tokens":200,"completion_tokens":100,"total_tokens":300,"cost":0.00009}'
CHOICE = b'{"message":{"content":"' + b"x" * 500 + b'"}}'
ANSWER = b'{"id":"%b","choices":[%b],%b}' % (GENERATION, CHOICE, USAGE)
DELTA = b'{"index":0,"delta":{"content":"%b"},"finish_reason":null}' % (b"x" * 90)
TOLD = b'"id":"%b","model":"%b","object":"chat.completion.chunk"' % (GENERATION, MODEL.encode())
EVENT = b"data: {" + TOLD + b',"created":%017.6f,"choices":[' + DELTA + b"]}\n\n"
LAST = b'data: {"id":"%b","choices":[],%b}\n\ndata: [DONE]\n\n' % (GENERATION, USAGE)
PRICING = {"prompt": "0.00000015", "completion": "0.0000006"}
MODELS = json.dumps({"data": [{"id": MODEL, "pricing": PRICING}]}).encode()
AS_JSON = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
AS_EVENTS = b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
OPENING_AT_ONCE, DEADLINE_SECONDS = 50, 120.0
MOST_AT_ONCE = 32  # later calls wait for one of these


class Window(NamedTuple):
    """What was seen for so long: calls or events, the proxy's CPU seconds, and microseconds."""

    count: int
    cpu: float
    waits: list[float]

    @property
    def cost(self) -> float:
        """Microseconds of CPU time for each."""
        return self.cpu / max(self.count, 1) * 1e6

    def at(self, share: float) -> float:
        return sorted(self.waits)[int(len(self.waits) * share)] if self.waits else math.nan


class Load:
    """What is sent and answered now; ``count`` and ``waits`` are of calls or events that ended."""

    def __init__(self, *, is_spinning: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self.use(TOKEN)
        self.streams: dict[int, Stream] = {}
        self.pace: float | None = None  # seconds; None: when the event before has arrived
        self.length: float = math.inf  # events of a stream
        self.is_on = False
        self.count, self.waits, self.faults = 0, list[float](), list[str]()
        self.base = self.base_tls = ""
        self._is_spinning = is_spinning

    def use(self, credential: str) -> None:
        """What clients show: to the upstream itself its key."""
        self.credential = credential
        self.requests: Iterator[bytes] = repeat(request(credential=credential))

    async def window(self, cpu: Callable[[], float], warm: float, seconds: float) -> Window:
        await asyncio.sleep(warm)
        self.count, self.waits, before = 0, [], cpu()
        await asyncio.sleep(seconds)
        found = Window(self.count, cpu() - before, self.waits)
        self._look(found.count)
        return found

    def _look(self, count: int) -> None:
        if self.faults or not count:
            raise SystemExit(f"the load went wrong: {(self.faults or ['nothing came'])[0]}")

    @asynccontextmanager
    async def calling(self, port: int, connections: int) -> AsyncIterator[None]:
        """Calls over so many connections, each as fast as the one before is answered."""
        callers = [await self._connect(port, Caller) for _ in range(connections)]
        self.is_on = True
        for caller in callers:
            caller.call(time.perf_counter())
        yield
        await self._end(callers)

    @asynccontextmanager
    async def calling_at(self, port: int, rate: float) -> AsyncIterator[None]:
        """So many calls a second, each timed from when it was due."""
        idle = deque([await self._connect(port, Caller) for _ in range(MOST_AT_ONCE)])
        callers, late = list(idle), deque[float]()
        for caller in callers:
            caller.idle, caller.late = idle, late
        next_due = time.perf_counter() + 1 / rate
        self.is_on = True

        def call_those_due() -> None:
            nonlocal next_due
            while next_due <= time.perf_counter():
                if idle:
                    idle.popleft().call(next_due)  # in turn, so that none stays unused
                else:
                    late.append(next_due)
                next_due += 1 / rate

        self._turn(call_those_due)
        yield
        late.clear()
        await self._end(callers)

    @asynccontextmanager
    async def streaming(
        self, port: int, count: int, pace: float | None, length: float = math.inf
    ) -> AsyncIterator[None]:
        """Open streams, each begun anew at its end; ``pace``: as for the attribute. Events begin
        once all are open, evenly spread."""
        self.pace, self.length, self.is_on = math.inf, length, True
        followers: list[Follower] = []
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                for first in range(0, count, OPENING_AT_ONCE):
                    some = range(first, min(first + OPENING_AT_ONCE, count))
                    new = [await self._connect(port, Follower, number) for number in some]
                    for follower in new:
                        follower.begin()
                    await asyncio.gather(*(follower.opened for follower in new))
                    followers += new
        except TimeoutError:
            raise SystemExit(f"only {len(followers)} of {count} streams opened") from None
        self._look(count)
        self.pace = pace
        if pace != math.inf:
            for number, stream in self.streams.items():
                stream.left *= (number + 1) / count
                self.loop.call_later((pace or 0) * number / count, stream.begin)
        if pace is not None and pace < math.inf:
            self._turn()
        yield
        await self._end(followers)
        self.streams.clear()

    def _turn(self, work: Callable[[], None] = lambda: None) -> None:
        """Do it again and again, at once where the core is ours: a sleeping core and rounded
        timers would be in each figure."""
        if self.is_on:
            work()
            delay = 0 if self._is_spinning else 0.001
            self.loop.call_later(delay, self._turn, work)

    async def _connect(self, port: int, kind: type[Any], *more: int) -> Any:
        _, made = await self.loop.create_connection(lambda: kind(self, *more), "127.0.0.1", port)
        return made

    async def _end(self, clients: list[Any]) -> None:
        """Whatever is under way is left after a moment."""
        self.is_on = False
        await asyncio.sleep(0.3)
        for client in clients:
            client.transport.abort()
        await asyncio.sleep(0.2)


class Connection(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self.load, self.data = load, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def fault(self, said: bytes) -> None:
        self.load.faults.append(said[:500].decode(errors="replace"))


class Caller(Connection):
    """A client's connection for calls that are answered whole."""

    idle: deque[Caller] | None = None
    late: deque[float]

    def call(self, due: float) -> None:
        self.due = due
        self.transport.write(next(self.load.requests))

    def data_received(self, data: bytes) -> None:
        self.data = data = self.data + data if self.data else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        if not data.startswith(b"HTTP/1.1 200"):
            self.fault(data)
            return
        head = data[:end].lower()
        at = head.find(b"content-length: ")
        if at >= 0:
            if len(data) < end + 4 + int(head[at + 16 :].partition(b"\r\n")[0]):
                return
        elif not data.endswith(b"\r\n0\r\n\r\n"):
            return
        self.data, now = b"", time.perf_counter()
        self.load.count += 1
        self.load.waits.append((now - self.due) * 1e6)
        if self.idle is not None:
            if self.late:
                self.call(self.late.popleft())
            else:
                self.idle.append(self)
        elif self.load.is_on:
            self.call(now)


class Follower(Connection):
    """A client's connection for a stream, of this number."""

    def __init__(self, load: Load, number: int) -> None:
        super().__init__(load)
        self.number, self.opened = number, load.loop.create_future()

    def begin(self) -> None:
        self.is_done = False
        self.transport.write(request(stream=self.number, credential=self.load.credential))

    def data_received(self, data: bytes) -> None:
        now, load, at = time.perf_counter(), self.load, 0
        if not self.opened.done():
            if not data.startswith(b"HTTP/1.1 200"):
                self.fault(data)
            self.opened.set_result(None)
        data = self.data + data
        while (end := data.find(b"\n\n", at)) >= 0:
            if (stamp := data.find(b'"created":', at, end)) >= 0:
                load.count += 1
                load.waits.append((now - float(data[stamp + 10 : stamp + 27])) * 1e6)
                if load.pace is None:
                    load.streams[self.number].send()
            elif data.find(b"[DONE]", at, end) >= 0:
                self.is_done = True
            at = end + 2
        self.data = data[at:]
        if self.is_done and load.is_on and data.endswith(b"\r\n0\r\n\r\n"):
            self.data = b""
            self.begin()


class Upstream(Connection):
    """The upstream's end of a connection."""

    def data_received(self, data: bytes) -> None:
        self.data = data = self.data + data if self.data else data
        head, end, body = data.partition(b"\r\n\r\n")
        at = head.lower().find(b"\r\ncontent-length: ")
        if not end or (at >= 0 and len(body) < int(head[at + 18 :].partition(b"\r\n")[0])):
            return
        self.data = b""
        if head.startswith(b"GET "):  # the public list of models, without the key
            is_list = head.startswith(b"GET /api/v1/models?")
            self._answer(b"200 OK" if is_list else b"404 Not Found", MODELS if is_list else b"{}")
        elif KEY.encode() not in head or TOKEN.encode() in head:
            self._answer(b"401 Unauthorized", b'{"error":"not the key"}')
        elif (user := body.find(b'"user": "')) >= 0:
            top = b"HTTP/1.1 200 OK\r\nX-Generation-Id: " + GENERATION + b"\r\n"
            self.transport.write(top + AS_EVENTS + b"\r\n")
            number = int(body[user + 9 : user + 15])
            self.load.streams[number] = Stream(self.load, self.transport)
        else:
            self._answer(b"200 OK", ANSWER)

    def _answer(self, status: bytes, body: bytes) -> None:
        head = AS_JSON % (status, len(body)) + b"X-Generation-Id: " + GENERATION + b"\r\n\r\n"
        self.transport.write(head + body)


class Stream:
    """An answer under way; the first event goes out at once."""

    def __init__(self, load: Load, transport: asyncio.Transport) -> None:
        self.load, self._transport, self.left = load, transport, load.length
        self.begin()

    def begin(self) -> None:
        self._due = self.load.loop.time()
        self.send()

    def send(self) -> None:
        load = self.load
        if self._transport.is_closing():
            return
        if self.left <= 0 or not load.is_on:
            self._transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(LAST), LAST))
            return
        self.left -= 1
        text = EVENT % time.perf_counter()
        self._transport.write(b"%x\r\n%b\r\n" % (len(text), text))
        if load.pace is not None and load.pace < math.inf:
            self._due += load.pace
            load.loop.call_at(self._due, self.send)


def request(*, stream: int | None = None, address: str = "", credential: str = TOKEN) -> bytes:
    """A chat call of 1 KB, as a browser sends it."""
    more: dict[str, object] = {} if stream is None else {"stream": True, "user": f"{stream:06}"}
    said = {"model": MODEL, "messages": [{"role": "user", "content": TEXT}], **more}
    body = json.dumps(said, ensure_ascii=False).encode()
    head = (
        "POST /api/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Accept: application/json\r\nAccept-Language: de\r\nAuthorization: Bearer {credential}\r\n"
        "Origin: https://app.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    forwarded = f"X-Forwarded-For: {address}\r\n" if address else ""
    return f"{head}{forwarded}\r\n".encode() + body


def requests_of(clients: int) -> Iterator[bytes]:
    """Calls of so many clients by turns, told apart by address."""
    before, _, after = request(address="@").partition(b"@")
    while True:
        for n in range(clients):
            yield b"%b10.%d.%d.%d%b" % (before, n >> 16, n >> 8 & 255, n & 255, after)


@asynccontextmanager
async def running(context: ssl.SSLContext | None, *, is_spinning: bool) -> AsyncIterator[Load]:
    """A load with its upstream: plain, and behind TLS where there is a context."""
    asyncio.sslproto.SSLProtocol.max_size = 32_768  # 256 KiB for each stream by default
    load = Load(is_spinning=is_spinning)
    plain = await load.loop.create_server(lambda: Upstream(load), "127.0.0.1", 0, backlog=4096)
    load.base = f"http://127.0.0.1:{plain.sockets[0].getsockname()[1]}"
    servers = [plain]
    if context is not None:
        tls = await load.loop.create_server(
            lambda: Upstream(load), "127.0.0.1", 0, ssl=context, backlog=4096
        )
        load.base_tls = f"https://localhost:{tls.sockets[0].getsockname()[1]}"
        servers.append(tls)
    yield load
    for server in servers:
        server.close()
