"""What the providers of each model take: asked about ahead, and once a model is called.

The row of a model in the list has the price of one provider, and the upstream may take a dearer
one. A few questions at a time, and one for all who wait for the same answer. Knows no HTTP and
no list: which models there are to be asked about is the price book's matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from keyproxy.money import pricelist
from keyproxy.money.pricelist import Providers
from keyproxy.transport.fetch import Fetched
from keyproxy.upstream.provider import Listing

AT_ONCE = 8  # questions: what a front end may hold open towards us, too
PROVIDERS_SECONDS = 3600.0  # as the list; then they are asked about again, behind the calls
OLD_SECONDS = 6 * 3600.0  # from then on calls wait for the new answer
PROVIDERS_RETRY_SECONDS = 600.0
COLD_RETRY_SECONDS = 1.0  # where nothing is known: calls are told to come again as soon
PAUSE_SECONDS = 0.5  # of one in eight, after a question that was not answered
MAX_PROVIDERS = 1024  # models that are remembered: about twice as many as there are
_BUSY = frozenset({408, 425, 429})
_log = structlog.get_logger("keyproxy.money")


Ask = Callable[[str], Awaitable[Fetched | None]]
"""What the upstream says of a path; None where it says nothing."""


@dataclass(slots=True)
class _Question:
    """One that is open. ``since``: when somebody began to wait for it, or it was asked."""

    since: float
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class ProviderBook:
    """``run`` it in the background."""

    def __init__(
        self,
        ask: Ask,
        listing: Listing,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        changed: Callable[[], None],
        keep: Callable[[], Awaitable[None]],
    ) -> None:
        """``clock`` tells seconds since 1970. ``changed`` is called after each answer, ``keep``
        once there is nothing left to ask."""
        self._ask = ask
        self._listing = listing
        self._clock = clock
        self._sleep = sleep
        self._changed = changed
        self._keep = keep
        self._known: OrderedDict[str, Providers] = OrderedDict()
        self._failed_at: dict[str, float] = {}
        self._open: dict[str, _Question] = {}
        self._called: dict[str, None] = {}  # in line
        self._ahead: dict[str, None] = {}  # in line behind those
        self._has_work = asyncio.Event()
        self._is_unkept = False

    @property
    def known(self) -> Mapping[str, Providers]:
        """By model; those without endpoints are models of which the upstream tells none."""
        return self._known

    @property
    def wanted(self) -> tuple[str, ...]:
        """The models that will be asked about next, in this order."""
        return *self._called, *self._ahead

    def take_over(self, kept: Mapping[str, Providers], oldest: float) -> None:
        """Begin with what was kept, unless it was asked for before ``oldest`` (unix time)."""
        self._known.update((m, each) for m, each in kept.items() if each.asked_at >= oldest)

    def forget_others(self, models: Collection[str]) -> None:
        """Keep what is known of ``models`` only."""
        for kept in (self._known, self._failed_at):
            for model in [model for model in kept if model not in models]:
                del kept[model]

    def want(self, model: str, *, is_ahead: bool = False) -> None:
        """Have a model asked about, unless that was done lately; one that is called comes before
        those that are asked about ahead."""
        now, known = self._clock(), self._known.get(model)
        # What is asked about ahead comes round with the list, which is not to the minute.
        fresh_seconds = PROVIDERS_SECONDS / 2 if is_ahead else PROVIDERS_SECONDS
        if known is not None and now < known.asked_at + fresh_seconds:
            return
        failed_at = self._failed_at.get(model)
        retry_seconds = COLD_RETRY_SECONDS if known is None else PROVIDERS_RETRY_SECONDS
        if failed_at is not None and 0 <= now - failed_at < retry_seconds:
            return
        if model not in self._open:
            self._open[model] = _Question(time.monotonic())
            (self._ahead if is_ahead else self._called)[model] = None
            self._has_work.set()
        elif model in self._ahead and not is_ahead:
            del self._ahead[model]
            self._called[model] = None
            self._open[model].since = time.monotonic()

    async def learn(self, models: Iterable[str], patience_seconds: float) -> bool:
        """Whether the providers of all ``models`` are known; waits for it until each question is
        as old as ``patience_seconds``. What is old counts where nothing newer is to be had."""
        missing, models = [], set(models)
        for model in models:
            self.want(model)
            known, question = self._known.get(model), self._open.get(model)
            is_old = known is None or self._clock() >= known.asked_at + OLD_SECONDS
            if question is not None and is_old:
                missing.append(question)
        with contextlib.suppress(TimeoutError):
            for question in missing:
                left = question.since + patience_seconds - time.monotonic()
                async with asyncio.timeout(max(0.0, left)):
                    await question.ended.wait()
        return all(model in self._known for model in models)

    async def run(self) -> None:
        """Ask what is wanted, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._work())

    async def refresh(self, model: str) -> bool:
        """Ask about one model now; whether there was an answer, if only that none is known."""
        path = self._listing.providers_path(model)
        fetched = None if path is None else await self._ask(path)
        now, found = self._clock(), None
        if fetched is not None and fetched.status == 200:
            found = await asyncio.to_thread(
                pricelist.read_providers, self._listing, fetched.raw, now
            )
        elif fetched is not None and 400 <= fetched.status < 500 and fetched.status not in _BUSY:
            found = Providers(now)  # this upstream does not tell, and will not
        if found is None:
            self._failed_at[model] = now
            return False
        self._failed_at.pop(model, None)
        if not found.endpoints and (old := self._known.get(model)) is not None:
            found = old._replace(asked_at=now)
        self._known[model] = found
        self._known.move_to_end(model)
        while len(self._known) > MAX_PROVIDERS:
            self._known.popitem(last=False)
        self._is_unkept = True
        self._changed()
        return True

    async def _work(self) -> None:
        while True:
            await self._has_work.wait()
            line = self._called or self._ahead
            if not line:
                self._has_work.clear()
                continue
            model = next(iter(line))
            del line[model]
            question = self._open[model]
            if line is self._ahead:
                question.since = time.monotonic()
            is_answered = False
            try:
                is_answered = await self.refresh(model)
            except Exception:  # no memory or thread just now; there are others to ask about
                self._failed_at[model] = self._clock()
                _log.exception("a model's providers could not be read", model=model)
            finally:
                del self._open[model]
                question.ended.set()
            if self._is_unkept and not self._open:
                self._is_unkept = False
                await self._keep()
            if not is_answered:
                await self._sleep(PAUSE_SECONDS)
