"""Which model an answer says it is from, read off its first bytes as they pass. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from keyproxy.policy.models import Models, shortened

_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,200})"')
_ENOUGH_BYTES = 16 * 1024  # the first event or the first fields name it, in all three styles


class Served:
    """One for each answer. Text of the answer cannot pose as the field: its quotes are escaped."""

    def __init__(self) -> None:
        self.model: str | None = None
        self._seen: bytes | None = b""

    def is_other(self, asked: Iterable[str], allowed: Models) -> bool:
        """Whether a model answered that is neither allowed nor a dated form of one asked for."""
        if self.model is None or allowed.allows(self.model):
            return False
        plain = (model.partition(":")[0] for model in asked)
        return not any(self.model == name or self.model.startswith(f"{name}-") for name in plain)

    def watch(self, chunk: bytes) -> None:
        """Look at bytes that pass; costs next to nothing once the model is known."""
        if self._seen is None:
            return
        self._seen += chunk
        if match := _MODEL.search(self._seen):
            self.model = shortened(match[1].decode(errors="replace"), 200)
        if match or len(self._seen) > _ENOUGH_BYTES:
            self._seen = None
