"""The prices of all models: asked for without the key, kept on disk, found under any name.

The upstream's list is asked for at the start and hourly. The row of a model in it has the price
of one provider, and the upstream may take a dearer one: so the providers of a model are asked
about, too, ahead or once it is called; a few questions at a time, and one for all who wait for
the same answer. Knows nothing of HTTP; what is fetched is never trusted blindly.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from keyproxy.dataclass import dataclass, field
from keyproxy.errors import Refusal
from keyproxy.money import pricelist
from keyproxy.money.pricelist import EMPTY, Providers
from keyproxy.price import Price
from keyproxy.upstream.openrouter import LISTING, PROVIDERS_PATH
from keyproxy.upstream.provider import Fetch, Fetched

REFRESH_SECONDS = 3600.0
RETRY_SECONDS = 30.0  # after the first failure; doubles up to REFRESH_SECONDS
RETRY_WITHOUT_SECONDS = 60.0  # at most, until it was had: calls may wait for prices and names
LIST_SECONDS = 60.0  # for an answer: a list is about a megabyte
ANSWER_SECONDS = 10.0  # for others, since one that hangs keeps others waiting
OLD_SECONDS = 7 * 86_400.0
AT_ONCE = 8  # questions about providers: what a front end may hold open towards us, too
PROVIDERS_SECONDS = 3600.0  # as the list; then they are asked about again, behind the calls
OLD_PROVIDERS_SECONDS = 6 * 3600.0  # from then on calls wait for the new answer
PROVIDERS_RETRY_SECONDS = 600.0
COLD_RETRY_SECONDS = 1.0  # where nothing is known: calls are told to come again as soon
PAUSE_SECONDS = 0.5  # of one in eight, after a question that was not answered
MAX_LOOKED_UP = 4096  # names whose price is remembered
# No segment begins with a dot: what the list says must not lead to another path.
_PATH = re.compile(r"~?[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?::[\w.-]+)?", re.ASCII)
_BUSY = frozenset({408, 425, 429})
_log = structlog.get_logger("keyproxy.money")


@dataclass(slots=True)
class _Question:
    """About a model's providers. ``is_ahead``: nobody calls it yet. ``since``: when somebody began
    to wait for the answer, or it was asked."""

    is_ahead: bool
    since: float
    is_asked: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class _Found(NamedTuple):
    """``asked_as``: the id by which the model's providers are asked about; None where they are
    not. ``fresh_until``: from then on they are to be asked about (again)."""

    price: Price | None
    asked_as: str | None
    fresh_until: float


class PriceBook:
    """``open`` it before the first call, then ``run`` it in the background.

    ``fetch`` gives resources of OpenRouter's. ``listed`` is what was listed last. ``path``: the
    file it is kept in, or None; what the upstream shows to nobody without a key is not kept.
    ``clock`` tells seconds since 1970.
    """

    def __init__(
        self,
        fetch: Fetch,
        path: Path | None = None,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._fetch = fetch
        self._path = path
        self._clock = clock
        self._sleep = sleep
        self.listed = EMPTY
        self._look_up = lru_cache(MAX_LOOKED_UP)(self._found)  # until something else is known
        self._is_loaded = asyncio.Event()
        self._asks_at = 0.0
        self._named: tuple[str, ...] = ()
        self._providers: dict[str, Providers] = {}  # by model, of those that are listed
        self._failed_at: dict[str, float] = {}  # by models whose providers were not told
        self._questions: dict[str, _Question] = {}  # by model, those that are open
        self._has_questions = asyncio.Event()
        self._is_unkept = False

    @property
    def age_seconds(self) -> float | None:
        """How old the prices are; None without any."""
        if not self.listed.prices:
            return None
        return max(0.0, self._clock() - self.listed.fetched_at)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The models whose providers will be asked about next: first those that are called."""
        waiting = [model for model, each in self._questions.items() if not each.is_asked]
        return tuple(sorted(waiting, key=lambda model: self._questions[model].is_ahead))

    @property
    def asks_in_seconds(self) -> float:
        """How long until the list is asked for again; 0 while it is."""
        return max(0.0, self._asks_at - self._clock())

    async def loaded(self, patience_seconds: float) -> None:
        """Wait until there are prices or a first try has failed, at most for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_seconds):
                await self._is_loaded.wait()

    def price_of(self, model: str) -> Price | None:
        """The most that ``model`` costs by what is known, or None.

        Its providers are asked about if they are not known yet, so that later answers may be
        dearer.
        """
        return self._noticed(model).price

    def at_hand(self, models: Iterable[str]) -> dict[str, Price | None] | None:
        """As ``price_of`` each of them, where nobody need be asked first; else None."""
        now, found = self._clock(), {}
        for model in models:
            found[model], _, fresh_until = self._look_up(model)
            if now >= fresh_until:
                return None
        return found if self.listed.priced else None

    def hosts_of(self, model: str) -> tuple[dict[str, Any], ...]:
        """The rows of those who serve ``model``, the same tuple until others are known; none where
        nothing is known. They are asked about as for ``price_of``."""
        known = self._providers.get(self._noticed(model).asked_as or "")
        return () if known is None else known.endpoints

    def _noticed(self, model: str) -> _Found:
        found = self._look_up(model)
        if self._clock() >= found.fresh_until:
            self.want(model)
        return found

    def want(self, model: str, *, is_ahead: bool = False) -> None:
        """Have the providers of ``model`` asked about, unless that was done lately."""
        if (name := self._look_up(model).asked_as) is None:
            return
        now, known = self._clock(), self._providers.get(name)
        # What is asked about ahead comes round with the list, which is not to the minute.
        fresh_seconds = PROVIDERS_SECONDS / 2 if is_ahead else PROVIDERS_SECONDS
        if known is not None and now < known.asked_at + fresh_seconds:
            return
        failed_at = self._failed_at.get(name)
        retry_seconds = COLD_RETRY_SECONDS if known is None else PROVIDERS_RETRY_SECONDS
        if failed_at is not None and 0 <= now - failed_at < retry_seconds:
            return
        question = self._questions.setdefault(name, _Question(is_ahead, time.monotonic()))
        if question.is_ahead and not question.is_asked and not is_ahead:
            question.is_ahead, question.since = False, time.monotonic()
            self._questions[name] = self._questions.pop(name)  # behind those that are called
        self._has_questions.set()

    def ask_ahead(self, models: Iterable[str]) -> None:
        """Have the providers of ``models`` known before they are called, from now on; these
        replace those of the last time."""
        self._named = tuple(models)
        for model in self._named:
            self.want(model, is_ahead=True)

    async def learn(self, models: Iterable[str], patience_seconds: float) -> bool:
        """Whether it is known what the providers of all ``models`` take; waits for it until each
        question is as old as ``patience_seconds``. What is old counts where nothing newer is to be
        had. True for a model that nobody can be asked about."""
        found, missing = map(self._look_up, models), []
        names = {each.asked_as for each in found if each.asked_as is not None}
        for name in names:
            self.want(name)
            known, question = self._providers.get(name), self._questions.get(name)
            is_old = known is None or self._clock() >= known.asked_at + OLD_PROVIDERS_SECONDS
            if question is not None and is_old:
                missing.append(question)
        with contextlib.suppress(TimeoutError):
            for question in missing:
                left = question.since + patience_seconds - time.monotonic()
                async with asyncio.timeout(max(0.0, left)):
                    await question.ended.wait()
        return names <= self._providers.keys()

    async def open(self) -> None:
        """Take over what is kept on disk; no network. A file that cannot be read is none."""
        if self._path is None:
            return
        kept = await asyncio.to_thread(pricelist.load, self._path)
        if kept is None:
            return
        self.listed, providers = kept
        oldest = self._clock() - OLD_SECONDS
        self._providers |= {m: each for m, each in providers.items() if each.asked_at >= oldest}
        self._look_up.cache_clear()
        self.ask_ahead(self._named)
        self._is_loaded.set()
        if self.listed.prices and self.listed.fetched_at < oldest:
            _log.warning("the kept prices are old", age_days=self._age_days())

    async def run(self) -> None:
        """Keep the prices fresh, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_list())
            for _ in range(AT_ONCE):
                group.create_task(self._ask_questions())

    async def refresh(self) -> bool:
        """Fetch the list; whether there is a good one. Otherwise the old one stays."""
        fetched = await self._ask(LISTING.path, LIST_SECONDS)
        if fetched is None or fetched.status != 200:
            return self._failed("the upstream's prices could not be fetched")
        now = self._clock() - fetched.age_seconds
        listed = await asyncio.to_thread(pricelist.read, fetched, now)
        if not listed.priced:
            return self._failed("the upstream's price list cannot be read or has no prices")
        if listed.priced * 2 < self.listed.priced:
            return self._failed(
                "the upstream's price list has lost most of its prices and was refused",
                now_priced=listed.priced,
                before=self.listed.priced,
            )
        self.listed = listed
        self._look_up.cache_clear()
        for known in (self._providers, self._failed_at):
            for model in [model for model in known if model not in listed.prices]:
                del known[model]
        self.ask_ahead(self._named)
        await self._keep()
        return True

    async def refresh_providers(self, model: str) -> Providers | None:
        """Fetch what each provider of the catalogue's ``model`` takes; what is known of them then,
        if only that the upstream tells nothing. None: it did not answer."""
        fetched = await self._ask(PROVIDERS_PATH.format(model))
        now, found = self._clock(), None
        if fetched is not None and fetched.status == 200:
            found = await asyncio.to_thread(pricelist.read_providers, fetched, now)
        elif fetched is not None and 400 <= fetched.status < 500 and fetched.status not in _BUSY:
            found = Providers(now)  # this upstream does not tell, and will not
        if found is None:
            self._failed_at[model] = now
            return None
        self._failed_at.pop(model, None)
        if not found.endpoints and (old := self._providers.get(model)) is not None:
            found = old._replace(asked_at=now)
        self._providers[model] = found
        self._is_unkept = True
        self._look_up.cache_clear()
        return found

    async def _ask_questions(self) -> None:
        """Ask about the providers that are wanted, one model after the other."""
        while True:
            await self._has_questions.wait()
            if not (wanted := self.wanted):
                self._has_questions.clear()
                continue
            model = wanted[0]
            question = self._questions[model]
            question.is_asked, found = True, None
            if question.is_ahead:
                question.since = time.monotonic()
            try:
                found = await self.refresh_providers(model)
            except Exception:  # no memory or thread just now; there are others to ask about
                self._failed_at[model] = self._clock()
                _log.exception("a model's providers could not be read", model=model)
            finally:
                del self._questions[model]
                question.ended.set()
            if self._is_unkept and not self._questions:
                self._is_unkept = False
                await self._keep()
            if found is None:
                await self._sleep(PAUSE_SECONDS)

    async def _keep_list(self) -> None:
        wait = RETRY_SECONDS
        while True:
            is_fresh = False
            try:
                is_fresh = await self.refresh()
            except Exception:  # no memory or thread just now; prices are wanted as long as we live
                _log.exception("the upstream's prices could not be read")
            self._is_loaded.set()
            pause = REFRESH_SECONDS if is_fresh else wait
            most = REFRESH_SECONDS if self.listed.is_fetched else RETRY_WITHOUT_SECONDS
            wait = RETRY_SECONDS if is_fresh else min(wait * 2, most)
            # Many replicas that start together must not ask together for ever.
            pause *= random.uniform(0.9, 1.1)  # noqa: S311
            self._asks_at = self._clock() + pause
            await self._sleep(pause)

    async def _ask(self, path: str, seconds: float = ANSWER_SECONDS) -> Fetched | None:
        try:
            async with asyncio.timeout(seconds):
                fetched = await self._fetch(path)
        except (TimeoutError, Refusal) as error:
            code = error.code if isinstance(error, Refusal) else "upstream_timeout"
            _log.debug("a price list was not to be had", path=path, code=code)
            return None
        return fetched if len(fetched.raw) <= pricelist.MAX_BYTES else None

    async def _keep(self) -> None:
        """A disk that is full or read-only costs the next start its prices, and nothing now."""
        # What one account is shown must not be another's prices after a restart.
        if self._path is None or not self.listed.prices or not self.listed.is_public:
            return
        try:
            await asyncio.to_thread(pricelist.save, self._path, self.listed, dict(self._providers))
        except (OSError, RuntimeError, MemoryError) as error:  # RuntimeError: no thread
            _log.warning("the prices could not be kept", path=str(self._path), error=str(error))

    def _failed(self, message: str, **details: int) -> bool:
        is_old = not self.listed.prices or self._clock() > self.listed.fetched_at + OLD_SECONDS
        _log.warning(message, age_days=self._age_days(), are_old=is_old, **details)
        return False

    def _age_days(self) -> float | None:
        age = self.age_seconds
        return None if age is None else round(age / 86_400, 1)

    def _found(self, model: str) -> _Found:
        """What is known of a model by any of its names."""
        price, name = self.listed.price_of(model, self._providers), self.listed.id_of(model)
        is_priced = self.listed.prices.get(name) is not None
        if not (is_priced and _PATH.fullmatch(name)):
            return _Found(price, None, math.inf)
        known = self._providers.get(name)
        return _Found(price, name, 0.0 if known is None else known.asked_at + PROVIDERS_SECONDS)
