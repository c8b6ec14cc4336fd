"""Which costly features the operator allowed, and what each word opens. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from keyproxy.errors import Refusal
from keyproxy.settings.grammar.features import TOOL, is_closed_tool
from keyproxy.settings.lines import is_safe

_WEB_TOOL = re.compile(r"web_(?:search|fetch)(?:_preview)?(?:_\d[\d_]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Features:
    """``KEYPROXY_ALLOWED_FEATURES`` and ``KEYPROXY_EXTRA_FIELDS``."""

    words: frozenset[str] = frozenset()
    extra_fields: frozenset[str] = frozenset()

    @classmethod
    def of(cls, words: Iterable[str], extra_fields: Iterable[str] = ()) -> Self:
        return cls(frozenset(words), frozenset(extra_fields))

    def line(self, word: str) -> str | None:
        """The setting with ``word`` added, to paste; None where a caller's text is not safe to."""
        if not is_safe(word):
            return None
        return f"KEYPROXY_ALLOWED_FEATURES={','.join(sorted(self.words | {word}))}"

    def extra_line(self, name: str) -> str | None:
        """The setting with the field ``name`` added, to paste; None where it is not safe to."""
        if not is_safe(name):
            return None
        return f"KEYPROXY_EXTRA_FIELDS={','.join(sorted(self.extra_fields | {name}))}"

    def require(self, word: str, param: str, found: str, instead: str | None = None) -> None:
        """Raises ``field_not_allowed`` unless ``word`` is on.

        ``found`` continues "The field … "; ``instead`` is what may be sent.
        """
        if word not in self.words:
            raise not_allowed(param, found, instead, hint=self.line(word))

    def opens_tool(self, kind: str) -> bool:
        """Whether a server tool of this type may be used."""
        return not is_closed_tool(kind) and (
            TOOL + kind in self.words or word_for_tool(kind) in self.words
        )

    @property
    def has_server_tools(self) -> bool:
        return any(
            word in ("web", "images", "routers") or word.startswith(TOOL) for word in self.words
        )


NONE = Features()


def word_for_tool(kind: str) -> str:
    """The word that opens server tools of this type."""
    name = kind.removeprefix("openrouter:")
    if _WEB_TOOL.fullmatch(name):
        return "web"
    return "images" if name == "image_generation" else TOOL + kind


def not_allowed(
    param: str, found: str, instead: str | None = None, *, hint: str | None = None
) -> Refusal:
    """The refusal "The field ``param`` ``found``, which is not open here"."""
    advice = f"Allowed: {instead}." if instead else "Leave it out of the call."
    return Refusal(
        "field_not_allowed",
        f"The field {param} {found}, which is not open here. {advice}",
        param=param,
        hint=hint,
    )
