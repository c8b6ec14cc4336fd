"""The prices of all models, fetched without the key, kept on disk, looked up by any name.

Asks for the upstream's list at start and hourly; what the providers of a model take beyond it
is ``providers``' matter. Knows nothing of HTTP; what is fetched is never trusted blindly.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import structlog

from keyproxy.errors import Refusal
from keyproxy.money import pricelist
from keyproxy.money.pricelist import EMPTY
from keyproxy.money.providers import ProviderBook
from keyproxy.price import Price
from keyproxy.transport.fetch import Fetch, Fetched
from keyproxy.upstream.provider import Listing

REFRESH_SECONDS = 3600.0
RETRY_SECONDS = 30.0  # after the first failure; doubles up to REFRESH_SECONDS
RETRY_WITHOUT_SECONDS = 60.0  # at most, until it was had: calls may wait for prices and names
LIST_SECONDS = 60.0  # for an answer: a list is about a megabyte
ANSWER_SECONDS = 10.0  # for others, since one that hangs keeps others waiting
OLD_SECONDS = 7 * 86_400.0
# No segment begins with a dot: what the list says must not lead to another path.
_PATH = re.compile(r"~?[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?::[\w.-]+)?", re.ASCII)
_AT_BASE = frozenset({"floor", "online"})
_AT_PROVIDERS = frozenset({"nitro", "exacto"})
_log = structlog.get_logger("keyproxy.money")


class PriceBook:
    """``open`` it before the first call, then ``run`` it in the background.

    ``fetch`` gives resources of the upstream; ``listing`` says which, and reads them.
    ``path``: the file it is kept in, by ``upstream``, or None; what the upstream shows to nobody
    without a key is not kept. ``clock`` tells seconds since 1970.
    """

    def __init__(
        self,
        fetch: Fetch,
        path: Path | None = None,
        *,
        listing: Listing,
        upstream: str = pricelist.OLD_UPSTREAM,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._fetch = fetch
        self._path = path
        self._listing = listing
        self._is_public = True
        self._upstream = upstream
        self._clock = clock
        self._sleep = sleep
        self._list = EMPTY
        self._found: dict[str, Price | None] = {}
        self._providers = ProviderBook(
            self._ask, listing, clock=clock, sleep=sleep, changed=self._found.clear, keep=self._keep
        )
        self._named: tuple[str, ...] = ()
        self._is_loaded = asyncio.Event()
        self._asks_at = 0.0

    @property
    def names(self) -> Mapping[str, str]:
        """Every other name of a model, dated or "latest", and the id it stands for."""
        return self._list.names

    @property
    def age_seconds(self) -> float | None:
        """How old the prices are; None without any."""
        if not self._list.prices:
            return None
        return max(0.0, self._clock() - self._list.fetched_at)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The models whose providers will be asked about next."""
        return self._providers.wanted

    @property
    def priced(self) -> int:
        """How many models have a price."""
        return self._list.priced

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
        dearer. ``:floor`` and ``:online`` cost what the model does (a search is no matter of the
        model), ``:nitro`` and ``:exacto`` what the dearest provider does, if that is known; other
        variants need a row of their own.
        """
        if model not in self._found:
            if len(self._found) >= 4096:
                self._found.clear()
            self._found[model] = self._look_up(model)
        self.want(model)
        return self._found[model]

    def want(self, model: str, *, is_ahead: bool = False) -> None:
        """Have the providers of ``model`` asked about, unless they are known and fresh."""
        if (name := self._asked_as(model)) is not None:
            self._providers.want(name, is_ahead=is_ahead)

    def ask_ahead(self, models: Iterable[str]) -> None:
        """Have the providers of ``models`` known before they are called, from now on; these
        replace those of the last time."""
        self._named = tuple(models)
        for model in self._named:
            self.want(model, is_ahead=True)

    async def learn(self, models: Iterable[str], patience_seconds: float) -> bool:
        """Whether it is known what the providers of all ``models`` take; waits for it at most
        for so long. True for a model that nobody can be asked about."""
        names = filter(None, map(self._asked_as, models))
        return await self._providers.learn(names, patience_seconds)

    async def open(self) -> None:
        """Take over what is kept on disk; no network. A file that cannot be read is none."""
        if self._path is None:
            return
        kept = await asyncio.to_thread(pricelist.load, self._listing, self._path, self._upstream)
        if kept is None:
            return
        self._list, providers = kept
        self._providers.take_over(providers, self._clock() - OLD_SECONDS)
        self._is_loaded.set()
        if (self.age_seconds or 0.0) > OLD_SECONDS:
            _log.warning("the kept prices are old", age_days=self._age_days())

    async def run(self) -> None:
        """Keep the prices fresh, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_list())
            group.create_task(self._providers.run())

    async def refresh(self) -> bool:
        """Fetch the list; whether there is a good one. Otherwise the old one stays."""
        fetched = await self._ask(self._listing.path, LIST_SECONDS)
        if fetched is None or fetched.status != 200:
            return self._failed("the upstream's prices could not be fetched")
        now = self._clock() - fetched.age_seconds
        listed = await asyncio.to_thread(
            pricelist.read, self._listing, fetched.raw, now, self._list
        )
        if listed is None or not listed.priced:
            return self._failed("the upstream's price list cannot be read or has no prices")
        if listed.priced * 2 < self._list.priced:
            return self._failed(
                "the upstream's price list has lost most of its prices and was refused",
                now_priced=listed.priced,
                before=self._list.priced,
            )
        self._list = listed
        self._found.clear()
        self._providers.forget_others(listed.prices)
        self.ask_ahead(self._named)
        await self._keep()
        return True

    async def refresh_providers(self, model: str) -> bool:
        """Fetch what each provider of the catalogue's ``model`` takes; whether that is known."""
        await self._providers.refresh(model)
        known = self._providers.known.get(model)
        return known is not None and bool(known.endpoints)

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
            most = REFRESH_SECONDS if self._list.digest else RETRY_WITHOUT_SECONDS
            wait = RETRY_SECONDS if is_fresh else min(wait * 2, most)
            # Many replicas that start together must not ask together for ever.
            pause *= random.uniform(0.9, 1.1)  # noqa: S311
            self._asks_at = self._clock() + pause
            await self._sleep(pause)

    async def _ask(self, path: str, seconds: float = ANSWER_SECONDS) -> Fetched | None:
        try:
            async with asyncio.timeout(seconds):
                fetched = await self._fetch(path)
        except TimeoutError:
            code = "upstream_timeout"
        except Refusal as refusal:
            code = refusal.code
        else:
            # What one account is shown must not be another's prices after a restart.
            self._is_public = self._is_public and fetched.is_public
            return fetched if len(fetched.raw) <= pricelist.MAX_BYTES else None
        _log.debug("a price list was not to be had", path=path, code=code)
        return None

    async def _keep(self) -> None:
        """A disk that is full or read-only costs the next start its prices, and nothing now."""
        if self._path is None or not self._list.prices or not self._is_public:
            return
        try:
            await asyncio.to_thread(
                pricelist.save,
                self._path,
                self._list,
                dict(self._providers.known),
                self._upstream,
            )
        except (OSError, RuntimeError, MemoryError) as error:  # RuntimeError: no thread
            _log.warning("the prices could not be kept", path=str(self._path), error=str(error))

    def _failed(self, message: str, **details: int) -> bool:
        age = self.age_seconds
        is_old = age is None or age > OLD_SECONDS
        _log.warning(message, age_days=self._age_days(), are_old=is_old, **details)
        return False

    def _age_days(self) -> float | None:
        age = self.age_seconds
        return None if age is None else round(age / 86_400, 1)

    def _look_up(self, model: str) -> Price | None:
        name, variants = self._without_variants(model)
        if not variants <= _AT_BASE | _AT_PROVIDERS:
            return None
        price = self._list.prices.get(name)
        target = self._list.names.get(name)
        if target is not None and target in self._list.prices:
            other = self._list.prices[target]
            price = price.dearer(other) if price is not None and other is not None else other
        providers = self._providers.known.get(target or name)
        if price is None or providers is None or not providers.endpoints:
            return None if variants & _AT_PROVIDERS else price
        dearest = providers.with_tiers if "nitro" in variants else providers.usual
        return None if dearest is None else price.dearer(dearest)

    def _asked_as(self, model: str) -> str | None:
        """The id by which the providers of ``model`` are asked about; None where they are not."""
        name, _ = self._without_variants(model)
        name = self._list.names.get(name, name)
        is_priced = self._list.prices.get(name) is not None
        is_told = self._listing.providers_path(name) is not None
        return name if is_priced and is_told and _PATH.fullmatch(name) else None

    def _without_variants(self, model: str) -> tuple[str, frozenset[str]]:
        """The longest beginning of ``model`` that the list knows, and the suffixes after it."""
        variants: set[str] = set()
        name = model
        while name not in self._list.prices and name not in self._list.names and ":" in name:
            name, _, variant = name.rpartition(":")
            variants.add(variant)
        return name, frozenset(variants)
