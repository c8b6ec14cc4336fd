"""The line to paste: a variable and its new value in the notation of the place that says it.

Everybody writes ``NAME=value``; here it becomes an option, a line of a ``.env`` file or of a
TOML file. Knows places as ``layers`` words them, and which settings are lists.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace

from keyproxy.errors import SettingsFault
from keyproxy.settings.setting import toml_key
from keyproxy.settings.table import DEFAULT_APP, row_of

COMMAND_LINE = "on the command line"
# Words that quote somebody end in no line, whatever they quote.
_ASSIGNMENT = re.compile(
    r"(?P<words>[^'\"=]*: )?(?P<variable>[A-Z][A-Z_]+)=(?P<value>.*)", re.DOTALL
)
# What neither a shell nor a reader of .env files reads as anything but itself.
_BARE = re.compile(r"[A-Za-z0-9._:/@*+,=%{}-]*")
_QUOTABLE = re.compile(r"[ -&(-\[\]-~]*")  # printable; no single quote, no backslash
_TO_FILL_IN = re.compile(r"[$][(]|[<>…]")
_STRANGERS = re.compile(r"[A-Za-z0-9._~:/@*+-]{1,400}")


def is_safe(text: str) -> bool:
    """Whether a caller's text may stand in a line that an operator pastes."""
    return bool(_STRANGERS.fullmatch(text))


def taken_apart(text: str) -> tuple[str, str, str] | None:
    """The words, the variable and the value of ``words: NAME=value``; None where there is none."""
    match = _ASSIGNMENT.fullmatch(text)
    return match and (match["words"] or "", match["variable"], match["value"])


def line(variable: str, value: str, place: str = "") -> str | None:
    """The whole line that gives ``variable`` this value in ``place``.

    ``place`` is "" for the environment and where nothing is said yet. A line for the table of an
    app says so first, in words. None where the notation cannot hold it.
    """
    if not _QUOTABLE.fullmatch(value):
        return None
    is_table = place.startswith("in [apps.")
    if is_table or place.endswith((".toml", "(TOML)")):
        table = f"{place}: " if is_table else ""
        return f"{table}{toml_key(variable)} = {_in_toml(variable, value)}"
    if place == COMMAND_LINE:
        return f"--{toml_key(variable).replace('_', '-')} {shlex.quote(value)}"
    return f"{variable}={value}" if _BARE.fullmatch(value) else f"{variable}='{value}'"


def _in_toml(variable: str, value: str) -> str:
    if re.fullmatch(r"0|[1-9][0-9]{0,17}", value):
        return value
    row = row_of(variable)
    separator = row.separator if row else ""
    is_list = separator and separator in value and f"{separator} " not in value
    return json.dumps(value.split(separator) if is_list else value)


def placed(fault: SettingsFault, places: Mapping[str, str]) -> SettingsFault:
    """``fault`` with the place of its variable, and its lines in the notation of theirs."""
    place = places.get(fault.variable, "")
    found = f"{fault.found} ({place})" if place and fault.found is not None else fault.found
    return _told(fault, fault.variable, found, places)


def of_app(fault: SettingsFault, name: str) -> SettingsFault:
    """The same fault in the table ``[apps.name]`` of the TOML file; the default app has none."""
    return fault if name == DEFAULT_APP else in_table(fault, f"apps.{name}")


def in_table(fault: SettingsFault, name: str) -> SettingsFault:
    """The same fault in a table of the TOML file."""
    places = {fault.variable: f"in {name} (TOML)"}
    return _told(fault, f"{name}.{toml_key(fault.variable)}", fault.found, places)


def _told(
    fault: SettingsFault, variable: str, found: str | None, places: Mapping[str, str]
) -> SettingsFault:
    pasted = [_written(paste, places) for paste in (fault.paste or "").splitlines()]
    return replace(fault, variable=variable, found=found, paste="\n".join(pasted) or None)


def _written(paste: str, places: Mapping[str, str]) -> str:
    """A fault's line as its place wants it; commands, and what is to be filled in, stay."""
    parts = taken_apart(paste)
    if parts is None or _TO_FILL_IN.search(paste):
        return paste
    _, variable, value = parts
    return line(variable, value, places.get(variable, "")) or paste
