"""An issuer's key set: fetched, kept, renewed. Knows no claims and trusts no answer.

Calls wait for the issuer only when there is nothing to go by, and never for long; what callers
send decides about at most one fetch in ``RETRY_SECONDS``. Shared by every app with the same
address, and kept over a reload. Source: RFC 7517.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self

import aiohttp
import structlog

from keyproxy.clients.signatures import SignatureKey, public_key, require_extra
from keyproxy.strict_json.body import load
from keyproxy.transport.fetch import Refreshed, Whole, fetch

FETCH_SECONDS = 5.0
"""How long a call waits where there is no set at all."""
WAIT_SECONDS = 2.0
"""How long a call waits for a newer set while there is an older one."""
RETRY_SECONDS = 30.0
FIRST_RETRY_SECONDS = 10.0
"""While no set was ever had, nobody can call: asked more often."""
SHORTEST_FRESH_SECONDS = 300.0
USUAL_FRESH_SECONDS = 600.0  # what edges keep a set where nothing is said (Supabase)
LONGEST_FRESH_SECONDS = 86_400.0
STALE_SECONDS = 86_400.0
"""An old set is better than none while the issuer is away; a day is what keys overlap."""
MAX_BYTES = 256 * 1024
MAX_KEYS = 64
MAX_TRIED = 8
"""Keys tried for one JWT that names none: a signature costs up to 0.3 ms."""
_RENEWED_AT = 0.8  # of its lifetime, so that nobody waits for the next one
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=([0-9]{1,9})", re.IGNORECASE)
_log = structlog.get_logger("keyproxy.clients")


class _KeySet(NamedTuple):
    raw: bytes
    keys: tuple[SignatureKey, ...]
    fresh_seconds: float


@dataclass(eq=False)
class Jwks:
    """The keys of one issuer. ``name`` stands in the log. Raises ``SettingsFault`` without the
    extra."""

    fetch: Callable[[], Awaitable[Whole]]
    name: str
    clock: Callable[[], float] = time.monotonic
    fetch_seconds: float = FETCH_SECONDS
    wait_seconds: float = WAIT_SECONDS

    def __post_init__(self) -> None:
        require_extra()
        self._set = Refreshed(self._load, STALE_SECONDS, clock=self.clock)

    @classmethod
    def at(
        cls, url: str, session: aiohttp.ClientSession, *, fetch_seconds: float = FETCH_SECONDS
    ) -> Self:
        """The key set behind ``url``, fetched over ``session``."""
        get = partial(fetch, session, url, max_bytes=MAX_BYTES)
        return cls(get, url.partition("?")[0], fetch_seconds=fetch_seconds)

    async def find(
        self, key_id: str | None, algorithm: str, *, may_refresh: bool = True
    ) -> Sequence[SignatureKey] | None:
        """Keys that may have made a signature; none when there is no such, and None without a set.

        ``may_refresh``: whether a kid that is not in the set is a reason to ask for a newer one.
        """
        await self._renew()
        known = self._set.value
        if known is not None and may_refresh and not _is_known(known.keys, key_id):
            self._set.begin(RETRY_SECONDS)
            await self._set.wait(self.wait_seconds)
            known = self._set.value
        if known is None:
            return None
        fitting = [key for key in known.keys if algorithm in key.algorithms]
        if key_id is not None:
            named = [key for key in fitting if key.id == key_id]
            fitting = named or [key for key in fitting if key.id is None]
        return fitting[:MAX_TRIED]

    def start(self) -> None:
        """Begin to load the set, so that the first caller need not wait for it."""
        self._set.begin(FIRST_RETRY_SECONDS)

    async def close(self) -> None:
        """End what is under way."""
        await self._set.close()

    async def _renew(self) -> None:
        """Ask for a newer set when it is time; wait where this one is past its time or none."""
        known, age = self._set.value, self._set.age_seconds
        if known is None:
            self._set.begin(FIRST_RETRY_SECONDS)
            await self._set.wait(self.fetch_seconds)
            return
        if age >= known.fresh_seconds * _RENEWED_AT:
            self._set.begin(RETRY_SECONDS)
        if age >= known.fresh_seconds:
            await self._set.wait(self.wait_seconds)

    async def _load(self) -> _KeySet:
        known = self._set.value
        try:
            async with asyncio.timeout(self.fetch_seconds):
                answer = await self.fetch()
            if answer.status != 200:
                raise ValueError(f"the answer's status is {answer.status}")
            if answer.raw is None:
                raise ValueError("the answer is too large")
            if known is not None and answer.raw == known.raw:
                keys = known.keys
            else:
                # In a thread: a large set takes some milliseconds.
                keys, passed_over = await asyncio.to_thread(read_keys, answer.raw)
                _log.info("key set loaded", url=self.name, keys=len(keys), passed_over=passed_over)
        except Exception as error:  # whatever goes wrong there, what we have stays
            reason = str(error) if isinstance(error, ValueError) else type(error).__name__
            left = ": no JWT can be checked" if known is None else "; the last one stays in use"
            _log.warning(f"the key set could not be loaded{left}", url=self.name, reason=reason)
            raise
        return _KeySet(answer.raw, keys, _fresh_seconds(keys, answer.headers))


def read_keys(raw: bytes) -> tuple[tuple[SignatureKey, ...], dict[str, int]]:
    """The usable keys of a set, and why how many others were passed over.

    Raises ``ValueError`` for what is no key set or has no usable key.
    """
    try:
        members = load(raw)[0].get("keys")
    except ValueError as error:
        raise ValueError(f"the answer is no JSON object: {error}") from error
    if not isinstance(members, list):
        raise ValueError("the answer has no list of keys")
    keys, passed_over = [], Counter[str]()
    for member in members[:MAX_KEYS]:
        try:
            keys.append(public_key(member if isinstance(member, dict) else {}))
        except ValueError as error:
            passed_over[str(error)] += 1
    if len(members) > MAX_KEYS:
        passed_over[f"beyond the first {MAX_KEYS}"] = len(members) - MAX_KEYS
    if not keys:
        raise ValueError(f"no usable key among {len(members)}: {', '.join(passed_over)}")
    return tuple(keys), dict(passed_over)


def _is_known(keys: Sequence[SignatureKey], key_id: str | None) -> bool:
    """A newer set would help only a JWT that names a key when all keys here have names."""
    return key_id is None or any(key.id is None or key.id == key_id for key in keys)


def _fresh_seconds(keys: Sequence[SignatureKey], headers: Mapping[str, str]) -> float:
    if any(key.id is None for key in keys):
        return SHORTEST_FRESH_SECONDS  # without a kid nothing tells that a key was replaced
    max_age = _MAX_AGE.search(headers.get("Cache-Control", ""))
    seconds = float(max_age[1]) if max_age else USUAL_FRESH_SECONDS
    return min(max(seconds, SHORTEST_FRESH_SECONDS), LONGEST_FRESH_SECONDS)
