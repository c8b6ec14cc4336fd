"""docs/security.md names tests and refusals that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from keyproxy.errors import CODES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and line.count("|") == 4]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def functions_of(path: str) -> frozenset[str]:
    """The test functions of a file, as pytest would find them outside classes."""
    body = ast.parse((ROOT / path).read_text()).body
    functions = (node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED.findall(PAGE))))
def test_every_named_test_exists(path: str, name: str) -> None:
    assert (ROOT / path).is_file()
    assert name in functions_of(path)


def test_no_test_is_named_in_another_way() -> None:
    assert len(NAMED.findall(PAGE)) == PAGE.count("::") > 100


def test_every_attempt_has_a_test() -> None:
    attempts = [row for row in ROWS if not row.startswith("| the attempt |")]
    assert len(attempts) > 70
    assert [row for row in attempts if not NAMED.search(row.split(" | ")[2])] == []


def test_every_refusal_has_its_status() -> None:
    told = re.findall(r"\b([45]\d\d) `(\w+)`", PAGE)
    assert len(told) > 40
    assert [(status, code) for status, code in told if CODES[code].status != int(status)] == []
