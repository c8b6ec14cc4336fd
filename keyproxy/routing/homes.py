"""Where a model can be called."""

from __future__ import annotations

from typing import NamedTuple


class Home(NamedTuple):
    """A provider that serves a model, and the model's id there."""

    provider: str
    native_id: str
