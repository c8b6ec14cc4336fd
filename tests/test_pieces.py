"""A body is read in pieces, with the result that reading it at once would have."""

from __future__ import annotations

import gc
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyproxy.strict_json import body
from keyproxy.strict_json.pieces import MAX_DEPTH, PIECE, NotRead, Reader, has_half_pair, is_flat
from keyproxy.strict_json.turns import SWITCH_SECONDS, Turns
from tests.examples import examples

WORDS = st.text(alphabet='ab"\\\n{}[],:é🙂\x00 u', max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(WORDS, inner, max_size=6),
    max_leaves=30,
)
SPACING = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")])
SCRAPS = st.sampled_from(
    [*'{}[]",:\\ 0-e', "\\ud83d", "\\ude42", "\\u00", '"a"', '"a":1', "null", "NaN", "1.50", ",,"]
)
DECODER = body._DECODER
SIZES = st.sampled_from([0, 1, 7, 40])


def outcome(text: str, piece: int | None = None) -> Any:
    """What is read, as JSON with its numbers as they were; False where nothing is."""
    try:
        read = DECODER.decode(text) if piece is None else Reader(text, DECODER, piece).whole()
    except ValueError:
        return False
    return None if has_half_pair(text) else b"".join(body._written(read))


@given(VALUES, st.booleans(), SPACING, SIZES)
@examples(120)
def test_in_pieces_of_any_size_the_same_is_read(
    value: Any, ascii_only: bool, spacing: tuple[str, str], piece: int
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, separators=spacing)
    assert outcome(text, piece) == outcome(text)


def depth(value: Any) -> int:
    if not isinstance(value, (dict, list)):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


@given(VALUES, st.booleans(), SPACING, st.integers(55, 66), st.booleans())
@examples(120)
def test_how_deep_a_text_nests_is_known_before_it_is_read(
    value: Any, ascii_only: bool, spacing: tuple[str, str], around: int, in_lists: bool
) -> None:
    for _ in range(around):
        value = [0, value, "]"] if in_lists else {"a": {}, '"\\': value}
    raw = json.dumps(value, ensure_ascii=ascii_only, separators=spacing).encode()
    assert is_flat(raw) == (depth(value) <= MAX_DEPTH)


@pytest.mark.parametrize(
    "text", [r'"\""', r'"\\"', r'"\\\"]"', r'"[\\\\\"["', r'"\\u005b["', '"{[", "}"']
)
@pytest.mark.parametrize("more", [0, 1])
def test_brackets_in_texts_are_none_whatever_stands_before_a_quote(text: str, more: int) -> None:
    levels = MAX_DEPTH + more
    assert is_flat(f"{'[' * levels}{text}{']' * levels}".encode()) == (more == 0)


@pytest.mark.parametrize(
    "raw",
    [b"[" * 65 + b"}" * 65, b"[" * 65, b"[[]", b"]" * 9 + b"[" * 9, b'[""' + b',""' * 4_000 + b"]"],
)
def test_what_may_be_too_deep_for_all_we_know_is_not_said_to_be_flat(raw: bytes) -> None:
    assert not is_flat(raw)


@given(VALUES, st.lists(st.tuples(st.integers(0, 300), SCRAPS), min_size=1, max_size=4), SIZES)
@examples(200)
def test_what_is_no_json_is_none_in_pieces(
    value: Any, scraps: list[tuple[int, str]], piece: int
) -> None:
    text = json.dumps(value)
    for at, scrap in scraps:
        text = text[:at] + scrap + text[at + 1 :]
    assert outcome(text, piece) == outcome(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" + "1,2," * 500 + "3]",
        "[" + '1, "x" ,' * 500 + "[]]",
        "[" + "1," * 500 + "]",
        "[" + "1,,2," * 500 + "3]",
        "{" + ",".join(f'"{number}":{number}' for number in range(900)) + "}",
        "{" + ",".join(f'"{number}" : "x"' for number in range(900)) + ', "x":[]}',
        "{" + ",".join(f'"{number}":1' for number in range(900)) + ',"5":1}',
        "{" + ",".join(f'"{number}":1' for number in range(900)) + ',"5":[]}',
        "{" + ",".join(f'"{number}":1' for number in range(900)) + ",}",
        '["' + "x\\n" * 30_000 + '"]',
        '["' + "\\ud83d\\ude42" * 30_000 + '"]',
        '["x' + "\\ud83d\\ude42" * 30_000 + '\\ud83d"]',
        '["' + "\\\\" * 90_000 + '"]',
        '["' + "\\\\" * 90_000 + '\\"]',
        '["' + 'x\\"' * 90_000,
        '["' + "x\\u12" * 90_000 + '"]',
        '["' + "\\n" * 90_000 + "\n" + '"]',
        " " * 90_000 + "[1]" + "\n" * 90_000,
        "[1]" + " " * 90_000 + "1",
        "[" * 64 + '"' + "x" * 90_000 + '"' + "]" * 64,
        "",
        " ",
    ],
)
@pytest.mark.timeout(5)
def test_long_texts_lists_and_objects_are_read_the_same(text: str) -> None:
    for piece in (0, 100, PIECE):
        assert outcome(text, piece) == outcome(text)


def test_a_name_that_stands_twice_is_found_across_pieces() -> None:
    names = ",".join(f'"{number}":1' for number in range(900))
    for text in (f'{{{names},"5":1,"x":1}}', f'{{{names},"5":[]}}', f'{{"5":[],{names}}}'):
        with pytest.raises(NotRead, match="twice"):
            Reader(text, DECODER, 100).whole()


@pytest.mark.parametrize("shift", range(-8, 3))
def test_half_a_pair_is_found_wherever_it_stands(shift: int) -> None:
    before = '"\\n' + "x" * (PIECE + shift)
    for half in ("\\ud83d", "\\uDe42", "\\udabc\\u0041"):
        assert has_half_pair(f'{before}{half}"')
    for whole in ("\\ud83d\\uDE42", "\\uabcd", "\\\\ud83d", "ud83d"):
        assert not has_half_pair(f'{before}{whole}"')


class Recording(json.JSONDecoder):
    """A decoder that says how much it was given to read at once."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        value, end = super().raw_decode(s, idx)
        self.longest = max(self.longest, end - idx)
        return value, end


@pytest.mark.parametrize(
    "value",
    [
        [{"role": "user", "content": [{"type": "text", "text": "x" * 50}]}] * 10_000,
        ["x"] * 250_000,
        list(range(250_000)),
        {str(number): None for number in range(200_000)},
        [[[[["x" * 90] * 100] * 100]]],
        'He said: "x"\n' * 200_000,
    ],
)
def test_nothing_long_is_read_at_once(value: Any) -> None:
    """The interpreter lock is held for as long as the C scanner reads."""
    decoder = Recording()
    text = json.dumps({"a": value})
    assert Reader(text, decoder).whole() == {"a": value}
    assert decoder.longest <= 2 * PIECE


def test_what_is_let_go_is_empty() -> None:
    inner: list[Any] = [{"b": 1}]
    value = {"a": inner, "c": {"d": {}}}
    body.let_go(value)
    assert (value, inner) == ({}, [])


@pytest.mark.timeout(10)
def test_many_numbers_are_written_anew_in_one_pass() -> None:
    raw = b'{"x":[' + b"1.50," * 50_000 + b'1.50],"y":"' + b"z" * 1_000_000 + b'"}'
    parsed = body.read(raw)[0]
    assert json.loads(body.rewritten(raw, *body.read(raw), parsed)) == parsed
    assert body.rewritten(raw, *body.read(raw), {"x": parsed["x"]}).count(b"1.50") == 50_001


async def test_the_loop_has_not_to_wait_long_for_a_working_thread() -> None:
    usual = sys.getswitchinterval()
    turns = Turns()
    seen = await turns.do("a", "1", lambda: (sys.getswitchinterval(), gc.isenabled()))
    assert (round(seen[0], 6), seen[1]) == (SWITCH_SECONDS, False)
    assert (sys.getswitchinterval(), gc.isenabled()) == (usual, True)
