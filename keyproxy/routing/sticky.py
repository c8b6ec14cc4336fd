"""Where conversations stay: a provider's prompt cache is warm only where the last turn went. Pure.

A conversation is known by a hash, which stays in memory: it stands in no log, ledger or page. The
client is part of it, so that nobody steers another's calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from keyproxy.dataclass import dataclass, field
from keyproxy.routing.homes import Home
from keyproxy.routing.recent import Recent

WARM_SECONDS = 300.0
LONG_WARM_SECONDS = 3600.0
"""Of a cache entry for which the call asked for an hour."""
MOST = 10_000
_ENOUGH_CHARACTERS = 4096
_OPENERS = ("system", "developer"), ("user",)


def conversation(app: str, client: str, said: Mapping[str, Any]) -> bytes:
    """What turns of one conversation have in common: 16 bytes.

    By what the client calls it (OpenRouter's ``session_id``, OpenAI's ``prompt_cache_key``,
    Anthropic's ``metadata.user_id``), else by how it begins: OpenRouter's own order ("Provider
    sticky routing", November 2026). ``said``: the body of the call.
    """
    metadata = said.get("metadata")
    names = (
        said.get("session_id"),
        said.get("prompt_cache_key"),
        metadata.get("user_id") if isinstance(metadata, dict) else None,
    )
    name = next((name for name in names if isinstance(name, str) and name), None)
    parts = _opening(said) if name is None else iter(("named", name))
    digest = blake2b(digest_size=16)
    for part in (app, client, *parts):
        text = part.encode("utf-8", "surrogatepass")
        digest.update(len(text).to_bytes(8))
        digest.update(text)
    return digest.digest()


def _opening(said: Mapping[str, Any]) -> Iterator[str]:
    """The words of the first system and the first user part, as far as they tell them apart."""
    yield "begun"
    for name in ("instructions", "system"):
        yield _text(said.get(name))
    turns = said.get("messages") or said.get("input")
    if not isinstance(turns, list):
        yield _text(turns)
        return
    for roles in _OPENERS:
        first = (turn for turn in turns if isinstance(turn, dict) and turn.get("role") in roles)
        yield _text(next(first, {}).get("content"))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content[:_ENOUGH_CHARACTERS]
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(text[:_ENOUGH_CHARACTERS] for text in texts if isinstance(text, str))


class _Stay(NamedTuple):
    home: Home
    until: float


@dataclass(eq=False)
class Stays:
    """Which home served each conversation last; bounded."""

    clock: Callable[[], float] = time.monotonic
    _stays: Recent[bytes, _Stay] = field(default_factory=lambda: Recent(MOST), init=False)

    def warm(self, conversation: bytes) -> Home | None:
        """The home whose cache is warm for it."""
        stay = self._stays.used(conversation)
        return stay.home if stay is not None and self.clock() < stay.until else None

    def issuer(self, conversation: bytes) -> Home | None:
        """The home that served it last, however long ago: reasoning that it sealed is of use
        nowhere else."""
        stay = self._stays.used(conversation)
        return None if stay is None else stay.home

    def served(self, conversation: bytes, home: Home, *, for_long: bool = False) -> None:
        """``home`` answered a turn of it. ``for_long``: the call asked for an hour of cache."""
        seconds = LONG_WARM_SECONDS if for_long else WARM_SECONDS
        self._stays.put(conversation, _Stay(home, self.clock() + seconds))

    def failed(self, conversation: bytes, home: Home) -> None:
        """``home`` could not answer a turn of it: nothing draws it back there."""
        stay = self._stays.get(conversation)
        if stay is not None and stay.home == home:
            self._stays[conversation] = stay._replace(until=0.0)
