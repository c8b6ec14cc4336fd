"""Our ``dataclass`` makes what the library's makes, but that ``frozen`` is not looked at."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from keyproxy.dataclass import dataclass, field

Decorator = Callable[..., Any]
FLAGS = ("eq", "frozen", "repr", "slots", "unsafe_hash")


def facts(decorator: Decorator, flags: dict[str, bool]) -> Iterator[object]:
    """What such an object says of itself, and beside others."""

    class Class:
        amount: int
        label: str = field(default="…", repr=False)
        seen: int = field(default=0, compare=False)

    made: Any = decorator(**flags)(Class)
    one, same, another = made(1), made(1, seen=5), made(2)
    yield from (one == one, one == same, one == another, one == 1)
    yield made.__hash__ is None or (hash(one) == hash(one), hash(one) == hash(same))
    yield repr(same) if flags["repr"] else repr(same).startswith("<")
    yield dataclasses.replace(one, seen=5) == same
    yield hasattr(one, "__dict__")


CASES = [dict(zip(FLAGS, each, strict=True)) for each in product([True, False], repeat=len(FLAGS))]


@pytest.mark.parametrize("flags", [each for each in CASES if each["eq"] or not each["unsafe_hash"]])
def test_it_is_as_the_librarys(flags: dict[str, bool]) -> None:
    assert list(facts(dataclass, flags)) == list(facts(dataclasses.dataclass, flags))


def test_what_a_class_says_itself_stays() -> None:
    @dataclass(frozen=True, slots=True)
    class Own:
        amount: int

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

        def __repr__(self) -> str:
            return "own"

    assert (Own(1) == Own(2), hash(Own(1)), repr(Own(1))) == (True, 7, "own")


def test_what_refers_to_itself_is_shown() -> None:
    @dataclass
    class Ring:
        next: Any = None

    ring = Ring()
    ring.next = ring
    assert repr(ring).endswith("Ring(next=...)")


def test_every_module_of_ours_uses_it() -> None:
    package = Path(__file__).parents[1] / "keyproxy"
    others = [path for path in package.rglob("*.py") if path.name != "dataclass.py"]
    lines = (line for path in others for line in path.read_text().splitlines())
    from_library = [line for line in lines if line.startswith("from dataclasses import ")]
    assert from_library
    assert [line for line in from_library if re.search(r"\bdataclass\b", line)] == []
