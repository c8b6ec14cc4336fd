"""Where limits are counted: in this process, or in a Redis or Valkey that many share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

from keyproxy.installation import line_for
from keyproxy.key_forms import Secret
from keyproxy.settings.grammar.base import NotInstalled, Unfit

_PORT = 6379
# Both speak one protocol; an s at the end means TLS.
_SCHEMES = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
# Not user:password@ behind the slashes: what stands there is masked.
_EXPECTED = (
    "memory://, or redis://host:port/database (rediss:// with TLS; user:password@ before the host)"
)


@dataclass(frozen=True, slots=True)
class StorageServer:
    """A Redis or Valkey that many processes count in. ``user`` without a password is none."""

    host: str
    port: int
    database: int
    user: str | None
    password: Secret | None
    has_tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.database}"


def storage(text: str) -> StorageServer | None:
    """A shared storage, or None for ``memory://``. Percent escapes count in user and password.

    Nothing of the text is repeated: it may hold a password.
    """
    text = text.strip()  # a file ends with a line end
    if text == "memory://":
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _unfit("no address") from error
    if parts.scheme not in _SCHEMES:
        raise _unfit("no address of a storage")
    if not re.fullmatch(r"[!-~]+", text) or not parts.hostname or port == 0:
        raise _unfit("an address without a usable host and port")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise _unfit("an address with ? or # in it (in a password: %3F, %23)")
    if not re.fullmatch(r"(?:/[0-9]{0,4})?", parts.path):
        raise _unfit("an address whose database is no number")
    if parts.username and not parts.password:
        raise _unfit("an address with a user and without a password (redis://user:password@host)")
    if find_spec("redis") is None:
        raise NotInstalled(
            f"keyproxy with its extra for shared storages, or {_EXPECTED.partition(',')[0]}",
            found="a shared storage, and its client is not installed",
            line=line_for("redis"),
            value="memory://",
        )
    return StorageServer(
        host=parts.hostname,
        port=_PORT if port is None else port,
        database=int(parts.path.strip("/") or 0),
        user=unquote(parts.username) if parts.username else None,
        password=Secret(unquote(parts.password)) if parts.password else None,
        has_tls=_SCHEMES[parts.scheme],
    )


def _unfit(found: str) -> Unfit:
    return Unfit(_EXPECTED, found=found)
