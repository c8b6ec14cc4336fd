"""Programs from outside that tests drive: found, or the test is skipped; never in CI."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def needed(*names: str) -> str:
    """The path of the first of ``names`` that is installed."""
    found = next(filter(None, map(shutil.which, names)), None)
    return found or missing(" or ".join(names))


def missing(what: str) -> NoReturn:
    """``what`` is not installed: the test is skipped, in CI it fails."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed, and CI is to run everything")
    pytest.skip(f"{what} is not installed")
