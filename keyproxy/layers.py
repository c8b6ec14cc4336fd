"""One layer of settings: the variables of one place. Texts in, variables and faults out.

Reads no files and no environment; ``sources`` does.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO

from dotenv.parser import parse_stream

from keyproxy.errors import SettingsFault
from keyproxy.grammar.base import mask
from keyproxy.grammar.vocabulary import NOT_IN_THIS_VERSION, PREFIX, nearest
from keyproxy.settings import CONFIG, KEY_FILE, rows

KEY = "OPENROUTER_API_KEY"
_RATES = ("rate_limit", "address_rate_limit")


@dataclass(frozen=True, slots=True)
class Layer:
    """``place`` is what faults say behind what was found: "in .env"; "" says nothing."""

    place: str
    variables: Mapping[str, str]

    def says(self, variable: str) -> bool:
        return bool(self.variables.get(variable, "").strip())


def of_env_file(name: str, text: str) -> tuple[Layer, list[SettingsFault]]:
    """The variables of a ``.env`` file, ``${}`` left as it is.

    A line that is no assignment is a fault only where it speaks of us: the file is shared
    with the web app and its tools.
    """
    variables: dict[str, str] = {}
    faults = []
    for binding in parse_stream(StringIO(text)):
        original = binding.original.string
        if binding.key is not None:
            variables[binding.key] = binding.value or ""
        elif binding.error and (PREFIX in original or KEY in original):
            blank = original[: len(original) - len(original.lstrip())]
            faults.append(
                SettingsFault(
                    f"{name}, line {binding.original.line + blank.count(chr(10))}",
                    found="no assignment",
                    expected="NAME=value, or NAME='value' where the value holds # or quotes",
                )
            )
    return Layer(f"in {name}", variables), faults


def of_toml(name: str, text: str) -> tuple[Layer, list[SettingsFault]]:
    """The variables of a TOML file: ``max_body`` is ``KEYPROXY_MAX_BODY``, lists are joined."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        where = mask(str(error))
        fault = SettingsFault(name, found=f"not TOML: {where}", expected="a TOML file")
        return Layer(f"in {name}", {}), [fault]
    known = _toml_names()
    variables: dict[str, str] = {}
    faults = []
    for key, value in document.items():
        variable = f"{mask(key)} (in {name})"
        separator = ";" if key in _RATES else ","
        if key not in known:
            is_table = isinstance(value, dict) or (
                isinstance(value, list) and any(isinstance(entry, dict) for entry in value)
            )
            found = "a table, and this version has none" if is_table else "not a setting"
            expected = "top-level keys only" if is_table else nearest(key, known)
            faults.append(SettingsFault(variable, found=found, expected=expected))
        elif (found_text := _text(value, separator)) is None:
            faults.append(
                SettingsFault(
                    variable,
                    found=f"of the type {type(value).__name__}",
                    expected="a text, a number or a list of texts",
                )
            )
        else:
            variables[known[key]] = found_text
    return Layer(f"in {name}", variables), faults


def _toml_names() -> dict[str, str]:
    """TOML key -> variable. A file cannot name another file instead of itself."""
    variables = {row.variable for row in rows().values()} | set(NOT_IN_THIS_VERSION)
    return {_toml_name(each): each for each in variables if each != CONFIG.variable}


def _toml_name(variable: str) -> str:
    return variable.removeprefix(PREFIX).lower()


def _text(value: object, separator: str) -> str | None:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        texts = [_text(entry, separator) for entry in value if not isinstance(entry, list)]
        whole = [text for text in texts if text is not None]
        return separator.join(whole) if len(whole) == len(value) else None
    return str(value) if isinstance(value, str | int | float) else None


def merged(layers: Sequence[Layer]) -> tuple[dict[str, str], dict[str, str]]:
    """Variables of all layers, the first layer winning, and the place of each.

    An empty text is as good as none. The key and its file answer one question: a layer that
    says either silences both in the layers below.
    """
    variables: dict[str, str] = {}
    places: dict[str, str] = {}
    for layer in reversed(layers):
        said = [name for name in layer.variables if layer.says(name)]
        if KEY in said or KEY_FILE.variable in said:
            for name in (KEY, KEY_FILE.variable):
                variables.pop(name, None)
        for name in said:
            variables[name] = layer.variables[name]
            places[name] = layer.place
    if KEY in variables:
        variables.pop(KEY_FILE.variable, None)  # both in one layer: reported by doubled()
    return variables, places


def doubled(layers: Sequence[Layer]) -> list[SettingsFault]:
    """A fault for each layer that says the key and names a file for it."""
    return [
        SettingsFault(
            KEY_FILE.variable,
            found=f"set beside {KEY} {layer.place}".rstrip(),
            expected="one of the two",
        )
        for layer in layers
        if layer.says(KEY) and layer.says(KEY_FILE.variable)
    ]


def placed(fault: SettingsFault, places: Mapping[str, str]) -> SettingsFault:
    """``fault`` with the place of its variable, and its line in that place's own notation."""
    place = places.get(fault.variable, "")
    if not place or fault.found is None:
        return fault
    paste = fault.paste
    start = f"{fault.variable}="
    if place.endswith(".toml") and paste is not None and paste.startswith(start):
        value = json.dumps(paste.removeprefix(start), ensure_ascii=False)
        paste = f"{_toml_name(fault.variable)} = {value}"
    found = f"{fault.found} ({place})"
    return SettingsFault(fault.variable, found=found, expected=fault.expected, paste=paste)
