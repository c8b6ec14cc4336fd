"""The one connection to a shared storage: commands in, answers out, and the circuit breaker.

All calls of the process share it. Commands that are ready at the same moment go out in one
write, answers are handed out in their order, and nobody waits for a free connection. It knows
no windows. Redis and Valkey speak the same protocol.
"""

from __future__ import annotations

import asyncio
import math
import random
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keyproxy.dataclass import dataclass, field
from keyproxy.errors import KeyproxyError
from keyproxy.settings.grammar.network import StorageServer

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

# A call is decided within 100 ms: so long may its answer take from when its question was sent.
ANSWER_SECONDS = 0.07
# An answer that came while other calls had their turn is read after one turn of the loop, or three
# with TLS; what has not come by then is the storage's delay, however busy this process is.
_TURNS_TO_READ = 5
LATE_SECONDS = 1.0
"""An answer for which nobody waits any more is read for so long: it says what was heard."""
CONNECT_SECONDS = 2.0  # a lost SYN (1 s) and a TLS handshake
_PAUSE_SECONDS = 0.1  # between tries to come back, doubled each time
_LONGEST_PAUSE_SECONDS = 2.0
_SETTLED_SECONDS = 5.0  # after so long a connection the next loss is a new story
_MOST_KEPT = 10_000
_COMMANDS_A_WRITE = 128

Arguments = Sequence[str | int]


class StorageDown(KeyproxyError):
    """The storage did not answer in time, or said no. ``may_be_heard``: it may have obeyed.
    ``later``: what it still answers, or that it does not."""

    def __init__(
        self, reason: str, *, may_be_heard: bool = False, later: asyncio.Future[Any] | None = None
    ) -> None:
        super().__init__(reason)
        self.may_be_heard, self.later = may_be_heard, later


@dataclass(slots=True)
class Command:
    """``answer`` is None where nobody waits: such a command is kept until it was heard."""

    arguments: Arguments
    answer: asyncio.Future[Any] | None
    sent_at: float = 0.0


@dataclass(eq=False, slots=True)
class Lane:
    """Starts up; ``run`` is its life. ``scripts``: texts by the names that EVALSHA has for
    them. ``on_up`` hears the server's run id after each connect, before any call is sent;
    ``on_change`` hears why it went down, and None when it came back."""

    server: StorageServer
    trust: ssl.SSLContext | None
    scripts: Mapping[str, str]
    on_up: Callable[[str], None]
    on_change: Callable[[str | None], None]
    answer_seconds: float = ANSWER_SECONDS
    late_seconds: float = LATE_SECONDS
    is_down: bool = field(default=False, init=False)
    _queue: deque[Command] = field(default_factory=deque, init=False)
    _sent: deque[Command] = field(default_factory=deque, init=False)
    _is_queued: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _is_late: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _watch: asyncio.Handle | None = field(default=None, init=False)
    _run_id: str = field(default="", init=False)

    def ask(self, arguments: Arguments) -> asyncio.Future[Any]:
        """The answer to a command, to come. It raises ``StorageDown``; when down, at once."""
        answer = asyncio.get_running_loop().create_future()
        if self.is_down:
            answer.set_exception(StorageDown("still down"))
        else:
            self._put(Command(arguments, answer))
        return answer

    def tell(self, arguments: Arguments) -> None:
        """Send a command and do not wait. It may be sent twice."""
        self._put(Command(arguments, None))

    async def run(self, is_tried: asyncio.Event) -> None:
        """Connect, serve, come back, until cancelled. Sets ``is_tried`` after the first try."""
        pause = _PAUSE_SECONDS
        while True:
            began = asyncio.get_running_loop().time()
            try:
                connection = await self._connect()
                try:
                    self._set_up()
                    is_tried.set()
                    await self._serve(connection)
                finally:
                    await connection.disconnect(nowait=True)
            except Exception as error:  # whatever it is, nobody must wait for it
                self.give_up(_reason(error))
            is_tried.set()
            if asyncio.get_running_loop().time() - began > _SETTLED_SECONDS:
                pause = _PAUSE_SECONDS
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 (no secret)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def close(self) -> None:
        """To be called when ``run`` has ended: whoever still waits learns it."""
        if self._watch is not None:
            self._watch.cancel()
        self.is_down = True
        self._lose("closed")

    def _put(self, command: Command) -> None:
        self._queue.append(command)
        self._is_queued.set()

    def _look_at_the_clock(self, late_since: float = math.inf, turns: int = 0) -> None:
        """Nobody waits too long: what was late some turns of the loop ago, since it was sent
        before ``late_since``, must have been read by now."""
        self._watch = None
        if not self._sent:
            return
        oldest, loop = self._sent[0].sent_at, asyncio.get_running_loop()
        limit = loop.time() - self.answer_seconds
        if oldest > limit:
            self._watch = loop.call_at(oldest + self.answer_seconds, self._look_at_the_clock)
        elif turns == 0 or (turns >= _TURNS_TO_READ and oldest > late_since):
            self._watch = loop.call_soon(self._look_at_the_clock, limit, 1)
        elif turns < _TURNS_TO_READ:
            self._watch = loop.call_soon(self._look_at_the_clock, late_since, turns + 1)
        else:
            self._is_late.set()
            self._wait_no_longer(f"no answer within {(loop.time() - oldest) * 1000:.0f} ms")

    async def _connect(self) -> AbstractConnection:
        """A connection that can count: logged in, scripts loaded, a write tried.

        A replica, a full memory or missing rights show here, and not at a call. What redis-py
        raises is an optional extra's own, so ``run`` takes all there is.
        """
        connection = self._connection()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.connect()  # type: ignore[no-untyped-call]
                commands: list[Arguments] = [("INFO", "server")]
                commands += [("SCRIPT", "LOAD", text) for text in self.scripts.values()]
                commands.append(("SET", "keyproxy:alive", 1, "PX", 1000))
                await connection.send_packed_command(connection.pack_commands(commands))
                self._run_id = await _run_id(connection)
                for _ in commands[1:]:
                    await connection.read_response()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    def _connection(self) -> AbstractConnection:
        from redis.asyncio.connection import Connection, SSLConnection
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        server = self.server
        options: dict[str, Any] = {
            "host": server.host,
            "port": server.port,
            "db": server.database,
            "username": server.user,
            "password": None if server.password is None else server.password.reveal(),
            "socket_timeout": None,  # the clock is looked at here
            "socket_connect_timeout": CONNECT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
        }
        if self.trust is None:
            return Connection(**options)
        connection = SSLConnection(**options)
        connection.ssl_context.context = self.trust
        return connection

    async def _serve(self, connection: AbstractConnection) -> None:
        """Send and read until it breaks, or is late: then read what is still answered. Raises what
        redis-py raises."""
        self._is_late.clear()
        writing = asyncio.create_task(self._write(connection))
        reading = asyncio.create_task(self._read(connection))
        late = asyncio.create_task(self._is_late.wait())
        tasks: list[asyncio.Task[Any]] = [writing, reading, late]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if late in done:
                writing.cancel()
                await asyncio.wait([reading], timeout=self.late_seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
        raise StorageDown("late")  # said before; what was told since then is kept

    async def _write(self, connection: AbstractConnection) -> None:
        while True:
            await self._is_queued.wait()
            size = min(len(self._queue), _COMMANDS_A_WRITE)
            commands = [self._queue.popleft() for _ in range(size)]
            now = asyncio.get_running_loop().time()
            for command in commands:
                command.sent_at = now
            self._sent.extend(commands)
            if self._watch is None:
                self._look_at_the_clock()
            if not self._queue:
                self._is_queued.clear()
            packed = connection.pack_commands(command.arguments for command in commands)
            await connection.send_packed_command(packed, check_health=False)
            await asyncio.sleep(0)  # others' turn, answers to be read among them

    async def _read(self, connection: AbstractConnection) -> None:
        from redis.exceptions import NoScriptError, ResponseError

        while self._sent or not self.is_down:
            try:
                answer = await connection.read_response()
            except NoScriptError:  # the server restarted, or its scripts were flushed
                command = self._sent.popleft()
                _, name, *arguments = command.arguments
                # EVAL takes the script along, and the server knows it from then on.
                command.arguments = ("EVAL", self.scripts[str(name)], *arguments)
                self._put(command)
                continue
            except ResponseError as error:  # of this one it is known, and it is not sent again
                _fail([self._sent.popleft()], _reason(error))
                raise
            waiting = self._sent.popleft().answer
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    def _set_up(self) -> None:
        was_down, self.is_down = self.is_down, False
        self._queue = deque(self._queue)  # as many as are asked: none may push another out
        self.on_up(self._run_id)
        if was_down:
            self.on_change(None)

    def give_up(self, reason: str) -> None:
        """From now on nobody waits, until ``run`` has found the storage again."""
        was_down, self.is_down = self.is_down, True
        self._lose(reason)
        if not was_down:
            self.on_change(reason)

    def _wait_no_longer(self, reason: str) -> None:
        """As ``give_up``, but what was sent is still answered, to who wants to know ``later``."""
        sent, self._sent = self._sent, deque()
        self.give_up(reason)
        for command in sent:
            if (answer := command.answer) is not None and not answer.done():
                command.answer = later = asyncio.get_running_loop().create_future()
                later.add_done_callback(asyncio.Future.exception)  # few want to
                answer.set_exception(StorageDown(reason, may_be_heard=True, later=later))
        self._sent = sent

    def _lose(self, reason: str) -> None:
        """Those who wait are told; what nobody waits for is kept, and was it sent, sent again."""
        kept = [command for command in (*self._sent, *self._queue) if command.answer is None]
        _fail(self._queue, reason)
        _fail(self._sent, reason, may_be_heard=True)
        self._sent.clear()
        self._queue = deque(kept, _MOST_KEPT)


def _fail(commands: Iterable[Command], reason: str, *, may_be_heard: bool = False) -> None:
    for command in commands:
        if command.answer is not None and not command.answer.done():
            down = StorageDown(reason, may_be_heard=may_be_heard)  # one for each traceback
            command.answer.set_exception(down)


async def _run_id(connection: AbstractConnection) -> str:
    """What names this start of the server; "" where it must not be asked."""
    from redis.exceptions import ResponseError

    try:
        answer = await connection.read_response()
    except ResponseError:
        return ""
    fields = (line.partition(b":") for line in bytes(answer).splitlines())
    return next((value.decode() for name, _, value in fields if name == b"run_id"), "")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]
