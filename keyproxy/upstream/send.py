"""Sends a call to the upstream and hands back its answer.

An Upstream is a value: base address, key ring, ranking headers, over a shared session. Once an
answer has begun there is nothing left but to cut it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import structlog
from multidict import CIMultiDict

from keyproxy.call import Call, End, Head
from keyproxy.dialects import CATALOGUE, Dialect
from keyproxy.errors import AnswerCut
from keyproxy.record import ClientLeft
from keyproxy.settings import Secret, Settings
from keyproxy.transport.fetch import Fetched, read_bounded
from keyproxy.upstream import answers, headers
from keyproxy.upstream.keyring import KeyRing
from keyproxy.upstream.lingering import Lingering
from keyproxy.upstream.provider import Provider, Told
from keyproxy.upstream.requests import (
    Requests,
    check_head,
    invalid,
    key_rejected,
    unreachable,
)

_EVENT_STREAM = "text/event-stream"
_log = structlog.get_logger("keyproxy.upstream")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer on its way down: ``headers`` are final, ``length`` is known or None.

    ``key`` is the label of the key it answers to. ``is_own``: the upstream wrote the body, not
    we in place of an error page that is none of its own. By ``generation_id`` the upstream can be
    asked about the call.
    """

    key: str
    status: int
    headers: CIMultiDict[str]
    length: int | None
    chunks: AsyncIterator[bytes]
    is_own: bool = True
    generation_id: str | None = None

    @property
    def head(self) -> Head:
        kind = self.headers["Content-Type"]
        return Head(self.status, kind, self.generation_id, self.key, self.is_own)


class Upstream:
    """One API behind us."""

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession,
        ring: KeyRing,
        lingering: Lingering | None = None,
        hidden: Collection[Secret] = (),
        *,
        provider: Provider,
    ) -> None:
        """``hidden``: keys that no answer may hold, beside those of ``ring``."""
        self.provider = provider
        self.ring = ring
        self._hidden = tuple(dict.fromkeys((*ring.keys, *hidden)))
        self._lingering = lingering or Lingering()
        self._ranking = provider.attribution(settings.referer, settings.title, settings.categories)
        self.requests = Requests(session, settings.upstream, settings.first_byte_timeout_seconds)
        self._idle_seconds = settings.idle_timeout_seconds

    @asynccontextmanager
    async def send(self, call: Call) -> AsyncIterator[Answer]:
        """The answer to ``call``; leaving closes the upstream connection unless it is whole.

        Raises ``upstream_unreachable``, ``upstream_key_rejected``, ``upstream_invalid``,
        ``upstream_timeout``; cancelled, ``ClientLeft`` where it is known what became of the call.
        """
        key, reply = await self._first_accepted(call)
        dialect = call.endpoint.dialect
        del call  # a stream may last for minutes; its request body need not
        try:
            try:
                answer = await self._answer(reply, dialect, key.label)
            except asyncio.CancelledError:
                raise self._left(reply, key) from None
            yield answer
        finally:
            reply.close()  # a no-op once the body was read to its end

    async def fetch(self, path: str) -> Fetched:
        """A public resource, asked for without the key; calls may have told the key all the same.
        An error is as it may be shown.

        ``path`` begins after the base. Raises as ``send`` does.
        """
        fetched = await self._whole(path, headers.common())
        search = headers.KeySearch(self._hidden)
        if await asyncio.to_thread(answers.holds_key, fetched.raw, search):
            _log.error("the upstream's answer held a key", path=path)
            raise invalid("it holds a key")
        return self._shown(fetched)

    async def fetch_shown(self, path: str) -> Fetched:
        """The same; where the upstream shows it to nobody without a key, by ``fetch_with_key``."""
        fetched = await self.fetch(path)
        if fetched.status != 401:
            return fetched
        return (await self.fetch_with_key(path))._replace(is_public=False)

    async def fetch_with_key(self, path: str) -> Fetched:
        """The same with the key, for an upstream that shows it to nobody else: what came is
        searched for keys, and must not be shown to whoever has another key.

        Raises as ``send`` does.
        """
        key = next(self.ring.usable(), None)
        if key is None:
            raise key_rejected(self.provider)
        fetched = await self._whole(path, headers.common() | headers.credential(self.provider, key))
        search = headers.KeySearch(self._hidden)
        shown = await asyncio.to_thread(answers.of_account, self.provider, fetched.raw, search)
        if shown is None:
            _log.warning("what was asked for with the key cannot be shown", path=path)
        return self._shown(fetched._replace(raw=shown or b""))

    def _shown(self, fetched: Fetched) -> Fetched:
        status = fetched.status
        if status < 400:
            return fetched
        raw = answers.cleaned(self.provider, fetched.raw, status)
        return fetched._replace(raw=raw or answers.unreadable(status, CATALOGUE))

    async def _whole(self, path: str, head: Mapping[str, str]) -> Fetched:
        reply = await self.requests.answer("GET", path, head, b"")
        try:
            async with asyncio.timeout(self._idle_seconds):
                raw = await read_bounded(reply, MAX_FETCH_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unreachable() from error
        finally:
            reply.close()
        if raw is None:
            raise invalid("its catalogue is too large")
        passed = headers.incoming(self.provider, reply.headers, headers.KeySearch(self._hidden))
        return Fetched(reply.status, raw, passed)

    async def generation(self, id: str, key_label: str) -> Told | None:
        """What the upstream says of the call that it gave this id, None where it says nothing yet;
        asked for with the key that the label is of, or the first one that is usable.

        Raises as ``send`` does.
        """
        if self.provider.call_path is None:
            return None
        keys = list(self.ring.usable())
        if not keys:
            raise key_rejected(self.provider)
        key = next((key for key in keys if key.label == key_label), keys[0])
        head = headers.common() | headers.credential(self.provider, key)
        fetched = await self._whole(self.provider.call_path(id), head)
        is_small = len(fetched.raw) <= MAX_CALL_BYTES
        return self.provider.read_call(fetched.raw) if fetched.status == 200 and is_small else None

    async def _first_accepted(self, call: Call) -> tuple[Secret, aiohttp.ClientResponse]:
        """Try the keys in turn; nothing has been sent to the client yet.

        Where none is taken, the last 402 passes, else a 401 unless all keys turn out to be
        rejected.
        """
        refused: dict[Secret, aiohttp.ClientResponse] = {}
        unaffordable: dict[Secret, aiohttp.ClientResponse] = {}
        passed: aiohttp.ClientResponse | None = None
        try:
            for key in self.ring.usable():
                reply = await self._ask(call, key)
                if reply.status in self.provider.refuses_key:
                    refused[key] = reply
                    self.ring.refused(key)
                elif reply.status in self.provider.cannot_pay:
                    unaffordable[key] = reply
                    self.ring.demote(key)
                else:
                    if reply.status < 300:
                        self.ring.accepted(key)
                    passed = reply
                    return key, reply
            if not unaffordable and await self._are_rejected(refused):
                raise key_rejected(self.provider)
            key, passed = list((unaffordable or refused).items())[-1]
            return key, passed
        finally:
            for reply in (*refused.values(), *unaffordable.values()):
                if reply is not passed:
                    reply.close()

    async def _are_rejected(self, refused: Mapping[Secret, aiohttp.ClientResponse]) -> bool:
        try:
            return await self.ring.are_rejected(refused)
        except asyncio.CancelledError:
            [*_, (key, reply)] = refused.items()
            raise self._left(reply, key) from None

    async def _ask(self, call: Call, key: Secret) -> aiohttp.ClientResponse:
        target = self.provider.target(call.target)
        head = headers.outgoing(self.provider, key, self._ranking, call.headers)
        has_left, sent = False, asyncio.Event()
        asking = self.requests.answer(call.endpoint.method, target, head, call.body, sent)
        try:
            if not call.is_streaming:
                return await asking
            reply, has_left = await self._lingering.outlast(asking, sent.is_set)
        except asyncio.CancelledError:
            if sent.is_set():
                raise
            raise ClientLeft(None) from None
        if has_left:
            raise self._left(reply, key)
        return reply

    def _left(self, reply: aiohttp.ClientResponse, key: Secret) -> ClientLeft:
        """The upstream's connection is closed at once."""
        reply.close()
        passed = headers.incoming(self.provider, reply.headers, headers.KeySearch(self._hidden))
        return ClientLeft(Head(reply.status, "", self._id_in(passed), key.label, is_own=False))

    async def _answer(self, reply: aiohttp.ClientResponse, dialect: Dialect, key: str) -> Answer:
        check_head(reply)
        search = headers.KeySearch(self._hidden)
        head = headers.incoming(self.provider, reply.headers, search)
        kind = headers.media_type(reply.headers, dialect)
        if reply.status >= 400:
            return await self._error(reply, dialect, head, kind, search, key)
        if kind is None:
            raise invalid("its type is none that may pass")
        head["Content-Type"] = kind
        if kind.startswith(_EVENT_STREAM):
            head["Cache-Control"] = "no-cache, no-transform"
            head["X-Accel-Buffering"] = "no"  # nginx would collect the events
        else:
            head["Cache-Control"] = "no-store"
        return Answer(
            key,
            reply.status,
            head,
            reply.content_length,
            _searched(reply, search),
            generation_id=self._id_in(head),
        )

    def _id_in(self, head: CIMultiDict[str]) -> str | None:
        name = self.provider.call_header
        return None if name is None else head.get(name)

    async def _error(
        self,
        reply: aiohttp.ClientResponse,
        dialect: Dialect,
        head: CIMultiDict[str],
        kind: str | None,
        search: headers.KeySearch,
        key: str,
    ) -> Answer:
        raw: bytes | None = None
        try:
            async with asyncio.timeout(self._idle_seconds):
                raw = await read_bounded(reply, answers.MAX_ERROR_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError):
            _log.warning("the upstream's error body broke off", http_status=reply.status)
        is_json = kind is not None and kind.startswith("application/json")
        may_tell = reply.status not in self.provider.cannot_pay
        is_text = kind is not None and kind.startswith("text/plain") and may_tell
        if raw is not None:
            as_sent = raw
            raw = (
                answers.cleaned(self.provider, raw, reply.status)
                if is_json
                else raw
                if is_text
                else None
            )
            if search.is_in(as_sent) or search.is_in(raw or b""):
                _log.error("the upstream's error body held a key", http_status=reply.status)
                raw = None
        is_own = raw is not None
        if reply.status == 401:
            raw, kind = answers.unauthorized(dialect), "application/json"
            head["x-should-retry"] = "false"
        if raw is None:
            raw, kind = answers.unreadable(reply.status, dialect), "application/json"
        head["Content-Type"] = kind or "application/json"
        head["Cache-Control"] = "no-store"
        id = self._id_in(head)
        return Answer(key, reply.status, head, len(raw), _piece(raw), is_own, id)


MAX_CALL_BYTES = 256 * 1024
MAX_FETCH_BYTES = 8 << 20  # the whole list is about 1 MB (November 2026)


async def _searched(
    reply: aiohttp.ClientResponse, search: headers.KeySearch
) -> AsyncIterator[bytes]:
    """The body as it comes. Raises AnswerCut."""
    try:
        async for chunk in reply.content.iter_any():
            out = search.feed(chunk)
            if out is None:
                _log.error("the upstream's answer held a key and was cut")
                raise AnswerCut(End.KEY_IN_ANSWER)
            if out:
                yield out
    except (aiohttp.ClientError, OSError) as error:
        raise AnswerCut(End.UPSTREAM_CUT) from error
    if rest := search.rest():
        yield rest


async def _piece(raw: bytes) -> AsyncIterator[bytes]:
    yield raw
