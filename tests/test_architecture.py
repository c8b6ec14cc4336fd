"""docs/architecture.md is true: its modules exist, and imports only go down its floors."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

from keyproxy.call import CREDENTIAL_FIELDS, UNREAD
from keyproxy.clients.addresses import FORWARDING_HEADERS
from keyproxy.dialects import DIALECTS
from keyproxy.errors import CODES, Step

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keyproxy"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
# The first column of the picture: the rooms of a floor, the lowest floor last.
PICTURE = PAGE.partition("```text\n")[2].partition("```")[0].splitlines()
FLOORS = [re.split(r" {2,}", line)[0].split() for line in PICTURE if not line.startswith(" ")]
RANKS = {room: rank for rank, floor in enumerate(reversed(FLOORS)) for room in floor}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    return f"{module}.".split(".")[1]


def module_in(name: str) -> str:
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def own_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.startswith("keyproxy"))
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0
        if (node.module or "").split(".")[0] == "keyproxy":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imported(module: str) -> frozenset[str]:
    """The modules of ours that a module imports, wherever in it."""
    tree = ast.parse(MODULES[module].read_text())
    names = (name for node in ast.walk(tree) for name in own_names(node))
    return frozenset(map(module_in, names)) - {module}


def test_every_room_stands_on_a_floor() -> None:
    rooms = {room(module) for module in MODULES} - {""}
    assert rooms - set(RANKS) == set(), "say on which floor of docs/architecture.md they stand"
    assert set(RANKS) - rooms == set()
    assert sum(map(len, FLOORS)) == len(RANKS)


def test_no_import_runs_up_or_across() -> None:
    """The package itself holds the version only, which everybody may read."""
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        for other in imported(module)
        if room(other) not in ("", room(module)) and RANKS[room(other)] >= RANKS[room(module)]
    ]
    assert wrong == []


def test_no_import_makes_a_circle() -> None:
    TopologicalSorter({module: imported(module) for module in MODULES}).prepare()


def test_only_commands_and_the_server_import_what_is_ours_late() -> None:
    """An import inside a function hides an arrow; a command's waits because it is heavy, the
    server's until settings ask for it."""
    late = [
        module
        for module, path in MODULES.items()
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if any(own_names(node))
    ]
    assert {room(module) for module in late} <= {"commands", "server"}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+\.py)`", PAGE))))
def test_every_module_that_the_page_names_exists(name: str) -> None:
    assert (ROOT / name).is_file() or (PACKAGE / name).is_file()


def asked_of_heads(node: ast.AST) -> Iterator[ast.expr]:
    """The names that some ``headers`` are asked for, as they are written."""
    told: tuple[ast.expr, ast.expr] | None = None
    match node:
        case ast.Call(func=ast.Attribute(attr="get" | "getall", value=holder), args=[name, *_]):
            told = holder, name
        case ast.Compare(left=name, comparators=[holder]):
            told = holder, name
        case ast.Subscript(value=holder, slice=name, ctx=ast.Load()):
            told = holder, name
    if told is not None and ast.unparse(told[0]).endswith("headers"):
        yield told[1]


def test_nobody_asks_a_head_for_a_field_that_is_not_kept_of_it() -> None:
    asked = {name.lower() for name in (*CREDENTIAL_FIELDS, *FORWARDING_HEADERS)}
    asked |= {name for dialect in DIALECTS for name in dialect.forwarded}
    ask_by_a_list = set()
    for module, path in MODULES.items():
        for name in chain.from_iterable(map(asked_of_heads, ast.walk(ast.parse(path.read_text())))):
            match name:
                case ast.Constant(value=str(text)):
                    asked.add(text.lower())
                case ast.Name(id=constant) if constant.isupper():
                    asked.add(getattr(importlib.import_module(module), constant).lower())
                case _:
                    ask_by_a_list.add(module)
    assert {"host", "accept", "origin", "expect", "transfer-encoding", "cookie"} <= asked
    assert asked & UNREAD == set()
    of_answers = {"keyproxy.upstream.answers", "keyproxy.upstream.headers"}
    of_framing = {"keyproxy.transport.intake", "keyproxy.transport.requests"}
    of_callers = {"keyproxy.clients.addresses", "keyproxy.clients.credentials"}
    assert ask_by_a_list == of_answers | of_framing | of_callers


def test_no_module_but_the_table_of_settings_has_more_than_350_lines() -> None:
    long = {name for name, path in MODULES.items() if len(path.read_text().splitlines()) > 350}
    assert long <= {"keyproxy.settings.table"}


def test_the_way_of_a_call_has_every_status_that_a_step_refuses_with() -> None:
    steps = PAGE.partition("## The way of a call")[2].partition("\n\nAn error")[0]
    told = {int(status) for status in re.findall(r"\b[45]\d\d\b", steps)}
    assert told == {code.status for code in CODES.values() if code.step is not Step.SERVER}
