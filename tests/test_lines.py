"""The line to paste: one value, written for each place that can say it, and read back there."""

from __future__ import annotations

import shlex
import subprocess
import tomllib
from io import StringIO

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from keyproxy.settings.lines import COMMAND_LINE, is_safe, line

NAME = "KEYPROXY_ALLOWED_MODELS"
VALUES = (
    "openai/gpt-4o-mini",
    "openai/*,!openai/o1-pro",
    "20/minute;300/day",
    "POST /api/v1/chat/completions,GET /api/v1/model/{author}/{slug}",
    "a #b",
    "#a",
    "$HOME ${HOME} `id` $(id)",
    'say "so"',
    " spaced ",
    "~root",
    "%41",
)


def as_list(value: object) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


@pytest.mark.parametrize("value", VALUES)
def test_a_value_survives_every_place(value: str) -> None:
    assigned = line(NAME, value)
    assert assigned is not None
    assert dotenv_values(stream=StringIO(assigned), interpolate=False) == {NAME: value}
    script = f'export {assigned}\nprintf %s "${NAME}"'
    shown = subprocess.run(["sh", "-c", script], capture_output=True, check=True, text=True)
    assert shown.stdout == value
    typed = line(NAME, value, COMMAND_LINE)
    assert shlex.split(typed or "") == ["--allowed-models", value]
    said = line(NAME, value, "in keyproxy.toml")
    assert as_list(tomllib.loads(said or "")["allowed_models"]) == value


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="'\\")))
def test_any_printable_value_survives_a_file(value: str) -> None:
    assert dotenv_values(stream=StringIO(line(NAME, value)), interpolate=False) == {NAME: value}
    said = line(NAME, value, "in settings (TOML)")
    assert as_list(tomllib.loads(said or "")["allowed_models"]) == value


@pytest.mark.parametrize(
    "value", ["it's", "back\\slash", "two\nlines", "\x1b[2J", "\u00e4", "\x7f"]
)
def test_what_a_notation_might_not_hold_gets_no_line(value: str) -> None:
    assert line(NAME, value) is None


def test_lists_and_numbers_are_so_in_toml() -> None:
    toml = "in keyproxy.toml"
    assert line(NAME, "openai/*,!openai/o1", toml) == 'allowed_models = ["openai/*", "!openai/o1"]'
    assert line("KEYPROXY_MAX_BODY", "40", toml) == "max_body = 40"
    assert line("KEYPROXY_RATE_LIMIT", "1/hour", toml) == 'rate_limit = "1/hour"'


def test_a_line_for_the_table_of_an_app_says_so() -> None:
    place = "in [apps.mobile] of the TOML file"
    assert line(NAME, "a/b,c/d", place) == f'{place}: allowed_models = ["a/b", "c/d"]'


@pytest.mark.parametrize(
    ("text", "may_be_pasted"),
    [
        ("https://app.example:8443", True),
        ("author/model:free", True),
        ("~author/x_y", True),
        ("", False),
        ("a b", False),
        ("a,b", False),
        ("a;b", False),
        ("a'b", False),
        ("$(id)", False),
        ("a=b", False),
        ("a#b", False),
        ("a\nb", False),
        ("\u00e4", False),
        ("a" * 401, False),
    ],
)
def test_only_plain_texts_of_callers_may_be_pasted(text: str, may_be_pasted: bool) -> None:
    assert is_safe(text) is may_be_pasted
