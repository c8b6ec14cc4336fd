"""How many examples a property is tried with: ``TIMES=20 make test ARGS=…`` tries twenty times as
many, for whoever changes what the property is of."""

from __future__ import annotations

import os

from hypothesis import settings

TIMES = int(os.environ.get("TIMES", "1"))


def examples(count: int, *, are_new: bool = False) -> settings:
    """So many examples, in whatever time they take: the same in each run, or new ones."""
    return settings(max_examples=count * TIMES, derandomize=not are_new, deadline=None)
