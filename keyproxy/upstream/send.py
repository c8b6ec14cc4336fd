"""Sends a call to the upstream and hands back its answer.

An Upstream is a value: base address, keys, ranking headers, over a shared client. Once an
answer has begun there is nothing left but to cut it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import structlog

from keyproxy.call import Call, Head, Told
from keyproxy.dataclass import dataclass, field
from keyproxy.dialects import MESSAGES, Dialect
from keyproxy.errors import Refusal
from keyproxy.record import ClientLeft, Record
from keyproxy.settings import Secret, Settings
from keyproxy.transport.messages import lines
from keyproxy.transport.pool import Pool
from keyproxy.transport.reply import Reply, known
from keyproxy.upstream import answers, faults, headers
from keyproxy.upstream.answers import check_head, invalid
from keyproxy.upstream.faults import Fault
from keyproxy.upstream.headers import Heads, KeySearch
from keyproxy.upstream.keyring import KeyStates
from keyproxy.upstream.provider import Fetched, KeyReport, Listing, Model, Provider
from keyproxy.upstream.requests import FAULTS, Lingering, fail, key_rejected, whole

MAX_REPORT_BYTES = 256 * 1024  # of a call, of a key
MAX_FETCH_BYTES = 8 << 20  # the whole list is about 1 MB (November 2026)
MOST_MODELS = 5_000  # DeepInfra, the largest, has some 200 (November 2026)
_PRICES_SECONDS = 5.0
_MODEL_ID = re.compile(r"[!-~]{1,200}")
_log = structlog.get_logger("keyproxy.upstream")


@dataclass(slots=True)
class Answer:
    """An answer on its way down: ``headers`` are final, the bytes of ``reply`` are to pass
    ``search`` first. Of an error: whose ``fault`` it is, and after how many ``rest_seconds`` it
    asks us to come again. ``outlives_client``: it is read on when nobody wants it any more."""

    head: Head
    headers: dict[str, str]
    reply: Reply
    search: KeySearch
    fault: Fault | None = None
    rest_seconds: float | None = None
    outlives_client: bool = False


@dataclass(slots=True)
class Sending:
    """What ``Upstream.send`` gives."""

    _upstream: Upstream
    _call: Call
    _record: Record
    _seconds: float | None
    _reply: Reply = field(init=False)

    async def __aenter__(self) -> Answer:
        call = self._call
        del self._call  # a stream may last for minutes; its request body need not
        upstream, dialect = self._upstream, call.endpoint.dialect
        key, reply = await upstream.first_accepted(call, self._record, self._seconds)
        del call
        self._reply = reply
        try:
            check_head(reply)
            if reply.status < 400:
                return upstream.answer(reply, dialect, key)
            return await upstream.error(reply, dialect, key)
        except asyncio.CancelledError:
            raise upstream.left(reply, key) from None
        except BaseException:
            reply.close()
            raise

    async def __aexit__(self, *error: object) -> None:
        self._reply.close()  # a no-op once the body was read to its end


class Upstream:
    """One API behind us."""

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        states: KeyStates,
        lingering: Lingering | None = None,
        hidden: Collection[Secret] = (),
        *,
        provider: Provider,
        keys: Sequence[Secret],
        messages_pool: Pool | None = None,
    ) -> None:
        """``keys`` are tried in turn, and go to ``pool``, and ``messages_pool`` for calls in that
        dialect, alone; ``hidden``: all that no answer may hold."""
        self.provider = provider
        self.keys = tuple(keys)
        self.states = states
        self._search = KeySearch(tuple(dict.fromkeys(hidden)))
        self._holds_key = self._search.is_in_text  # one for all: heads stay as long as streams
        self._lingering = lingering or Lingering()
        self.ranking = provider.attribution(settings.referer, settings.title, settings.categories)
        self._heads = [Heads(provider, key, self.ranking) for key in keys]
        self._passed = headers.findable(provider.passed)
        self._pool, self._messages_pool = pool, messages_pool or pool
        self._first_byte_seconds = settings.first_byte_timeout_seconds
        self._idle_seconds = settings.idle_timeout_seconds

    def send(self, call: Call, record: Record, seconds: float | None = None) -> Sending:
        """The answer to ``call``, once entered, whose head comes within so many ``seconds`` where
        they are fewer than usual; leaving closes the upstream connection unless it is whole.
        ``record`` is told of each attempt.

        Raises ``upstream_unreachable``, ``upstream_key_rejected``, ``upstream_invalid``,
        ``upstream_timeout``; cancelled, ``ClientLeft`` where it is known what became of the call.
        """
        return Sending(self, call, record, seconds)

    async def fetch(self, path: str, *, with_key: bool = False) -> Fetched:
        """A resource, read: a public one, asked for without the key; calls may have told the key
        all the same. ``with_key``: for an upstream that shows it to nobody else; what comes must
        not be shown to whoever has another key.

        ``path`` begins after the base. Raises as ``send`` does.
        """
        key = self._usable()[0] if with_key else None
        fetched = await self._whole(path, key, MAX_FETCH_BYTES)
        return await asyncio.to_thread(answers.read, self.provider, path, fetched, self._search)

    async def fetch_shown(self, path: str) -> Fetched:
        """The same, with the key where the upstream shows it to nobody without one."""
        fetched = await self.fetch(path)
        is_shown = fetched.status != 401 or not self.keys
        return fetched if is_shown else await self.fetch(path, with_key=True)

    async def generation(self, id: str, key_label: str) -> Told | None:
        """What the upstream says of the call that it gave this id, None where it says nothing yet;
        asked for with the key that the label is of, or the first one that is usable.

        Raises as ``send`` does.
        """
        if self.provider.call_path is None:
            return None
        keys = self._usable()
        key = next((key for key in keys if key.label == key_label), keys[0])
        fetched = await self._whole(self.provider.call_path(id), key, MAX_REPORT_BYTES)
        told = self.provider.read_call(fetched.raw) if fetched.status == 200 else None
        if told is not None and self._search.is_in_text(told.model or ""):
            told = told._replace(model=None)  # it goes into the books
        return told

    async def inspect(self, key: Secret) -> KeyReport:
        """What the upstream says of ``key``, one of its own; costs nothing. Raises as ``send``
        does, from what the HTTP client raises."""
        if key not in self.keys:
            raise LookupError("a key of another upstream's, or of none")
        fetched = await self._whole(self.provider.key_path, key, MAX_REPORT_BYTES)
        status, body = fetched.status, answers.loads(fetched.raw)
        if status == 400 and self.provider.classify(status, body) is Fault.ACCOUNT:
            status = 401  # so Google and xAI say it
        return self.provider.read_key(status, body)

    async def models(self) -> Mapping[str, Model]:
        """The provider's own list of models, by their ids there. Raises as ``send`` does."""
        listing = self.provider.listing
        models = await self._listed(listing)
        if listing.priced is not None:
            with contextlib.suppress(Refusal, TimeoutError):  # they are in the shipped table, too
                async with asyncio.timeout(_PRICES_SECONDS):
                    told = await self._listed(listing.priced, is_rooted=True)
                models = {id: told.get(id, model) for id, model in models.items()}
        return models

    async def _listed(self, listing: Listing, *, is_rooted: bool = False) -> Mapping[str, Model]:
        key = None if listing.is_public else self._usable()[0]
        fetched = await self._whole(listing.path, key, MAX_FETCH_BYTES, is_rooted=is_rooted)
        if fetched.status != 200:
            raise invalid(f"its list of models has the status {fetched.status}")
        try:
            models = await asyncio.to_thread(_models_in, listing, fetched.raw, self._search)
        except (TypeError, RecursionError) as error:
            raise invalid("it is no list of models") from error
        if models is None:
            _log.error("the upstream's list of models held a key", provider=self.provider.name)
            raise invalid("it holds a key")
        return models

    def _usable(self) -> list[Secret]:
        if not (keys := self.states.usable(self.keys)):
            raise key_rejected(self.provider)
        return keys

    async def _whole(
        self, path: str, key: Secret | None, max_bytes: int, *, is_rooted: bool = False
    ) -> Fetched:
        """As it came; its body is neither searched nor read."""
        head, seconds = lines(headers.asking(self.provider, key).items()), self._first_byte_seconds
        try:
            reply = await self._pool.ask(
                "GET", path, head, b"", timeout_seconds=seconds, is_rooted=is_rooted
            )
        except FAULTS as error:
            fail(error)
        try:
            raw = await whole(reply, max_bytes, self._idle_seconds)
        finally:
            reply.close()
        if raw is None:
            raise invalid("it is too large")
        passed = headers.incoming(self._passed, reply.headers, self._search)
        return Fetched(reply.status, raw, passed, is_public=key is None)

    async def first_accepted(
        self, call: Call, record: Record, seconds: float | None
    ) -> tuple[Secret, Reply]:
        """Try the keys in turn; nothing has been sent to the client yet.

        Where none is taken, the last 402 passes, else a 401 unless all keys turn out to be
        rejected.
        """
        failed: dict[Secret, Reply] = {}
        try:
            for key in self._usable():
                reply = await self._ask(call, key, record, seconds)
                if reply.status in self.provider.refuses_key:
                    self.states.refused(key)
                elif reply.status in self.provider.cannot_pay:
                    self.states.demote(key)
                else:
                    if reply.status < 300:
                        self.states.accepted(key)
                    return key, reply
                failed[key] = reply
            cannot_pay = [k for k in failed if failed[k].status in self.provider.cannot_pay]
            key = (cannot_pay or list(failed))[-1]
            try:
                if not cannot_pay and await self.states.are_rejected(failed):
                    raise key_rejected(self.provider)
            except asyncio.CancelledError:
                raise self.left(failed[key], key) from None
            return key, failed.pop(key)
        finally:
            for key in failed:
                failed[key].close()

    async def _ask(self, call: Call, key: Secret, record: Record, seconds: float | None) -> Reply:
        head = self._heads[self.keys.index(key)].of(call)
        endpoint, most = call.endpoint, self._first_byte_seconds
        pool = self._messages_pool if endpoint.dialect is MESSAGES else self._pool
        seconds = min(seconds or most, most)
        left = partial(self._linger, key) if call.is_streaming else None
        record.ask(self.provider.name)
        try:
            return await pool.ask(
                endpoint.method, call.target, head, call.body, seconds, record.connected, left
            )
        except asyncio.CancelledError:
            if record.is_connected:
                raise
            raise ClientLeft(None) from None
        except FAULTS as error:
            fail(error)

    async def _linger(self, key: Secret, answered: asyncio.Future[Reply]) -> None:
        """The client has left. Raises ``ClientLeft`` where the head of its answer still comes."""
        if (reply := await self._lingering.outlast(answered)) is not None:
            raise self.left(reply, key)

    def left(self, reply: Reply, key: Secret) -> ClientLeft:
        """The client has left before it got ``reply``, whose connection is closed at once."""
        reply.close()
        passed = headers.incoming(self._passed, reply.headers, self._search)
        return ClientLeft(self._head(reply.status, "", passed, key, is_own=False))

    def answer(self, reply: Reply, dialect: Dialect, key: Secret, *, is_own: bool = True) -> Answer:
        """What ``reply`` to a call with ``key`` brings. Raises ``upstream_invalid``."""
        search = self._search.anew()
        fields = headers.incoming(self._passed, reply.headers, search)
        kind = headers.media_type(reply.headers, dialect)
        if kind is None:
            raise invalid("its type is none that may pass")
        if reply.status == 401:
            fields["x-should-retry"] = "false"
        fields["Content-Type"], fields["Cache-Control"] = kind, "no-store"
        if kind.startswith("text/event-stream"):
            fields["Cache-Control"] = "no-cache, no-transform"
            fields["X-Accel-Buffering"] = "no"  # nginx would collect the events
        head = self._head(reply.status, kind, fields, key, is_own=is_own)
        return Answer(head, fields, reply, search)

    async def error(self, reply: Reply, dialect: Dialect, key: Secret) -> Answer:
        """The same of an error, whose body is read."""
        status, fields, body = reply.status, reply.headers, None
        try:
            raw = await whole(reply, answers.MAX_ERROR_BYTES, self._idle_seconds)
        except Refusal:
            raw = None
            _log.warning("the upstream's error body broke off", http_status=status)
        said = None if raw is None else answers.loads(raw)
        fault = self.provider.classify(status, said)  # before it is cleaned
        rest_seconds = faults.rest_seconds(headers.told(fields), said)
        if raw is not None and answers.holds_key(raw, self._search):
            _log.error("the upstream's error body held a key", http_status=status)
        elif raw is not None:
            kind = headers.media_type(fields, dialect) or ""
            body = answers.shown_error(self.provider, dialect, status, raw, said, kind, fault)
        is_own = body is not None
        if body is None or status == 401:
            body = answers.in_place(status, dialect)
            fields[b"content-type"] = [b"application/json"]
        answer = self.answer(known(status, body, fields), dialect, key, is_own=is_own)
        answer.fault, answer.rest_seconds = fault, rest_seconds
        return answer

    def _head(
        self, status: int, kind: str, fields: Mapping[str, str], key: Secret, *, is_own: bool
    ) -> Head:
        name, told = self.provider.call_header, self.provider.told_cost
        id = None if name is None else fields.get(name)
        return Head(status, kind, id, key.label, is_own, told, self._holds_key)


def _models_in(listing: Listing, raw: bytes, search: KeySearch) -> Mapping[str, Model] | None:
    """None where it holds a key: pages are shown what it lists. Of more than ``MOST_MODELS`` the
    first: each becomes a row of a list that everybody may ask for."""
    body = answers.loads(raw)
    models = (model for model in listing.read_models(body) if _MODEL_ID.fullmatch(model.id))
    if answers.holds_key(raw, search):
        return None
    return {model.id: model for model in itertools.islice(models, MOST_MODELS)}
