"""One piece of long work at a time, in a thread; those who wait for it take turns.

The unit of fairness is the network address, and within it the client: whoever brings more waits
longer, and nobody else does. It knows nothing of the work.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from keyproxy.errors import overloaded

SWITCH_SECONDS = 0.0005
_USUAL_SECONDS = sys.getswitchinterval()  # Python's default is 5 ms

T = TypeVar("T")
_Line = deque[asyncio.Future[None]]


class Turns:
    """Work that is done one after the other."""

    def __init__(self) -> None:
        self._is_busy = False
        self._waiting: dict[str, dict[str, _Line]] = {}  # those whose turn is next come first

    async def do(self, address: str, client: str, work: Callable[..., T], *arguments: Any) -> T:
        """What ``work`` returns, or raises, from a thread. Raises ``overloaded`` where none is to
        be had."""
        await self._turn(address, client)
        _share()
        try:
            done = asyncio.get_running_loop().run_in_executor(None, work, *arguments)
        except RuntimeError as error:  # no memory for a thread, or the process ends
            self._end()
            raise overloaded() from error
        done.add_done_callback(self._end)  # not before: a caller that leaves stops no thread
        try:
            return await asyncio.shield(done)
        finally:
            # It holds what was raised, whose traceback holds this frame, and with it all that the
            # work had in hand.
            del done

    async def _turn(self, address: str, client: str) -> None:
        if not self._is_busy:
            self._is_busy = True
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(address, {}).setdefault(client, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had just come
                self._next()
            raise

    def _end(self, done: asyncio.Future[Any] | None = None) -> None:
        _share_as_usual()
        if done is not None and not done.cancelled():
            done.exception()  # nobody may be left to look at it
        self._next()

    def _next(self) -> None:
        while self._waiting:
            turn = self._take()
            if not turn.done():
                turn.set_result(None)
                return
        self._is_busy = False

    def _take(self) -> asyncio.Future[None]:
        """Who is next; the others of its address, and of its client, are last now."""
        address = next(iter(self._waiting))
        clients = self._waiting.pop(address)
        client = next(iter(clients))
        line = clients.pop(client)
        turn = line.popleft()
        if line:
            clients[client] = line
        if clients:
            self._waiting[address] = clients
        return turn


def _share() -> None:
    """Let the event loop have the interpreter lock soon when it asks a working thread for it.

    A collection would keep the lock for as long as it looks through everything that lives.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.disable()


def _share_as_usual() -> None:
    gc.enable()
    sys.setswitchinterval(_USUAL_SECONDS)
