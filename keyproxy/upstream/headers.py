"""Headers up and down, each built new from a list; the key is unwrapped here and only here.

Hop-by-hop fields end here (RFC 9110 7.6.1), and so do cookies, forwarding headers and
whatever a client adds. No I/O.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from multidict import CIMultiDict, CIMultiDictProxy

from keyproxy import __version__
from keyproxy.call import Call
from keyproxy.dialects import Dialect
from keyproxy.key_forms import NO_KEY
from keyproxy.settings import Secret
from keyproxy.transport.messages import Lines, lines
from keyproxy.transport.reply import Fields
from keyproxy.upstream.provider import Provider

USER_AGENT = f"keyproxy/{__version__}"

TYPES = frozenset({"application/json", "text/event-stream", "text/plain"})
_PLAIN = re.compile(r"[ -~]{0,1024}")
_PLAIN_BYTES = re.compile(rb"[ -~]{0,1024}")
_MEDIA = re.compile(r"(?:audio|image)/(?!svg)[a-z0-9.+-]{1,40}")
_HELD_CHARACTERS = 32


def forwarded(dialect: Dialect, headers: CIMultiDictProxy[str]) -> tuple[tuple[str, str], ...]:
    """What of a client's head may go up; repeated and odd values are left out."""
    found = []
    for name in dialect.forwarded:
        values = headers.getall(name, [])
        if len(values) == 1 and _PLAIN.fullmatch(values[0]):
            found.append((name, values[0]))
    return tuple(found)


def outgoing(
    provider: Provider,
    key: Secret,
    ranking: Mapping[str, str],
    passed: Iterable[tuple[str, str]] = (),
    *,
    is_bearer: bool = False,
) -> CIMultiDict[str]:
    """The head of a call, with our key as the only credential; ``is_bearer``: in OpenAI's form,
    whatever the provider's own."""
    head: CIMultiDict[str] = CIMultiDict(passed)
    head["Content-Type"] = "application/json"
    head.update(ranking)
    own = asking(provider, NO_KEY if is_bearer else key)
    for name, _ in provider.head:
        if name in head:  # the client's own word
            del own[name]
    head.update(own)
    if is_bearer and key.reveal():
        head["Authorization"] = f"Bearer {key.reveal()}"
    return head


class Heads:
    """Those of calls with one key, as they are sent: what clients add to them, and ``outgoing``,
    which is written once for each dialect and set of names that they may add."""

    def __init__(self, provider: Provider, key: Secret, ranking: Mapping[str, str]) -> None:
        self._makings = provider, key, ranking
        self._rests: dict[tuple[Dialect, tuple[str, ...]], Lines] = {}

    def of(self, call: Call) -> Lines:
        """What it belongs to is told the provider in a form that only this key makes, if it wants
        to know. Raises ``endpoint_not_allowed``."""
        passed, dialect = call.headers, call.endpoint.dialect
        names = tuple([name for name, _ in passed]) if passed else ()
        provider, key, _ = self._makings
        head = self._rests.get((dialect, names))
        if head is None:
            whole = outgoing(*self._makings, passed, is_bearer=provider.taking(call).is_bearer)
            head = self._rests[dialect, names] = lines([*whole.items()][len(names) :])
        if call.conversation and provider.conversation_header is not None:
            mark = hmac.digest(key.reveal().encode(), call.conversation, hashlib.sha256)
            head = Lines(head + lines([(provider.conversation_header, mark[:16].hex())]))
        return Lines(lines(passed) + head) if passed else head


def asking(provider: Provider, key: Secret | None) -> dict[str, str]:
    """The head of a question of our own, with the key as the one credential, or without any.

    Compression is not asked for: bytes pass unchanged and are searched for the key.
    """
    head = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
    head.update(provider.head)
    if key is not None and (text := key.reveal()):
        head[provider.key_header] = provider.key_form.format(text)
    return head


def findable(names: Iterable[str]) -> dict[bytes, str]:
    """``names`` by the form in which heads have them."""
    return {name.lower().encode(): name for name in names}


def incoming(names: Mapping[bytes, str], fields: Fields, search: KeySearch) -> dict[str, str]:
    """What of an answer's head goes down to the client: the ``findable`` of these ``names``, and
    its type, which is put in apart. Of repeated values the first, if that may pass."""
    head = {}
    for low in filter(fields.__contains__, names):
        value = fields[low][0]
        if _PLAIN_BYTES.fullmatch(value) and not search.is_in(value):
            head[names[low]] = value.decode()
    return head


def told(fields: Fields) -> dict[str, str]:
    """An answer's head, for us alone, by names in small letters; of repeated values the first."""
    return {name.decode(): values[0].decode(errors="replace") for name, values in fields.items()}


def media_type(fields: Fields, dialect: Dialect) -> str | None:
    """The answer's type, written anew; None when it is none that may pass."""
    values = fields.get(b"content-type", ())
    return _media_type(values[0], dialect.answers_with_media) if len(values) == 1 else None


@lru_cache(64)
def _media_type(value: bytes, may_be_media: bool) -> str | None:
    kind, _, rest = value.decode("utf-8", "surrogateescape").lower().partition(";")
    kind = kind.strip()
    if may_be_media and _MEDIA.fullmatch(kind):
        return kind
    if kind not in TYPES:
        return None
    return f"{kind}; charset=utf-8" if "utf-8" in rest else kind


class KeySearch:
    """Looks for keys in passing bytes. One for each answer: it remembers the last bytes.

    Once the last bytes equal a key's first 32 or more characters, they are held back until
    the next chunk, so honest streams pass without delay.
    """

    __slots__ = ("_held", "_keys", "_needles", "_seen", "_window")

    def __init__(self, keys: Sequence[Secret]) -> None:
        self._keys = tuple(key.reveal().encode() for key in keys)
        self._needles = tuple(
            (key, key[: min(_HELD_CHARACTERS, (len(key) + 1) // 2)]) for key in self._keys
        )
        self._window = max((len(needle) - 1 for needle, _ in self._needles), default=0) or 1
        self._seen = b""
        self._held = 0

    def anew(self) -> KeySearch:
        """For the same keys in another answer."""
        search = KeySearch.__new__(KeySearch)
        search._keys, search._needles, search._window = self._keys, self._needles, self._window
        search._seen, search._held = b"", 0
        return search

    def is_in(self, data: bytes) -> bool:
        for key in self._keys:  # noqa: SIM110 - ``any`` takes three times as long
            if data.find(key) >= 0:  # ``in`` takes longer: it tries it as a number first
                return True
        return False

    def is_in_text(self, text: str) -> bool:
        return self.is_in(text.encode(errors="replace"))

    def feed(self, chunk: bytes) -> bytes | None:
        """The bytes that may go out now; None when a key was found."""
        seen, held = self._seen, 0
        data = seen + chunk
        self._seen = data[-self._window :]
        for needle, beginning in self._needles:
            if data.find(beginning) >= 0:
                if needle in data:
                    return None
                held = max(held, _tail(data, needle, beginning))
        if not held and not self._held:
            return chunk
        start = len(seen) - self._held
        # What already went out cannot be held any more.
        self._held = min(held, len(data) - start)
        return data[start : len(data) - self._held]

    def rest(self) -> bytes:
        """What was still held back when the answer ended."""
        held, self._held = self._held, 0
        return self._seen[len(self._seen) - held :]


def _tail(data: bytes, needle: bytes, beginning: bytes) -> int:
    """How many of the last bytes are the beginning of ``needle``."""
    start = data.find(beginning, max(0, len(data) - len(needle) + 1))
    while start >= 0:
        if needle.startswith(data[start:]):
            return len(data) - start
        start = data.find(beginning, start + 1)
    return 0
