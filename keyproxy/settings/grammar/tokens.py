"""Client tokens as settings hold them: a name and the SHA-256 of the token, never the token.

``keyproxy token`` makes both. In a file there is one pair a line, and lines with # are remarks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from keyproxy.settings.grammar.base import Unfit, shown

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_EXPECTED = "name:sha256-hex pairs, comma separated or one a line (`keyproxy token` makes one)"


@dataclass(frozen=True, slots=True)
class ClientToken:
    """Who shows a certain client token; ``digest`` is its SHA-256, 32 bytes."""

    name: str
    digest: bytes


def client_tokens(text: str) -> tuple[ClientToken, ...]:
    """Client tokens, each name and each token once; ``off`` is none."""
    if text.strip() == "off":
        return ()
    lines = [line.partition("#")[0] for line in text.splitlines()]
    pairs = [_pair(item.strip()) for item in ",".join(lines).split(",") if item.strip()]
    names = [token.name for token in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise Unfit("each name once", found=f"a list with {shown(twice[0])} twice")
    if len({token.digest for token in pairs}) < len(pairs):
        raise Unfit("each token under one name", found="a list with one token under two names")
    return tuple(pairs)


def _pair(text: str) -> ClientToken:
    name, mark, digest = text.partition(":")
    if mark and _NAME.fullmatch(name) and _DIGEST.fullmatch(digest):
        return ClientToken(name, bytes.fromhex(digest))
    trouble = "an entry of another form"
    if mark and _NAME.fullmatch(name):
        trouble = f"an entry {shown(name)} without a SHA-256 (64 hexadecimal digits) behind it"
    # Whatever else stands there may be a token itself.
    raise Unfit(_EXPECTED, found=trouble)
