"""Which model an answer says it is from, read off its first bytes as they pass. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from keyproxy.policy.models import Models, shortened
from keyproxy.record import Record

_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,200})"')
_ENOUGH_BYTES = 16 * 1024  # the first event or the first fields name it, in all three styles


class Served:
    """One for each answer, told in ``record``.

    Text of the answer cannot pose as the field: its quotes are escaped.
    """

    def __init__(self, record: Record, ids: Sequence[str], allowed: Models) -> None:
        """``ids``: the models that may answer."""
        self._record = record
        self._ids = ids
        self._allowed = allowed
        self._seen: bytes | None = b""

    def watch(self, chunk: bytes) -> None:
        """Look at bytes that pass; costs next to nothing once the model is known."""
        if self._seen is None:
            return
        self._seen += chunk
        if match := _MODEL.search(self._seen):
            model = shortened(match[1].decode(errors="replace"), 200)
            self._record.served = model
            if self._is_other(model):
                self._record.is_other_model = True
        if match or len(self._seen) > _ENOUGH_BYTES:
            self._seen = None

    def _is_other(self, model: str) -> bool:
        """Whether it is neither allowed nor a dated form of one that was asked for."""
        if self._allowed.allows(model):
            return False
        plain = (id.partition(":")[0] for id in self._ids)
        return not any(model == name or model.startswith(f"{name}-") for name in plain)
