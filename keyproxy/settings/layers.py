"""One layer of settings: the variables of one place, and which names are variables.

Texts in, variables and faults out. Reads no files and no environment; ``sources`` does.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO

from dotenv.parser import parse_stream

from keyproxy.errors import SettingsFault
from keyproxy.settings.grammar import mask
from keyproxy.settings.grammar.secrets import KEY
from keyproxy.settings.setting import toml_key
from keyproxy.settings.table import CONFIG, DEFAULT_APP, pairs, row_of, rows

PREFIX = "KEYPROXY_"

# Names reserved for features that this version does not have, with the values that ask for
# nothing, so that one configuration serves this version and a later one.
NOT_IN_THIS_VERSION: Mapping[str, tuple[str, ...]] = {
    "KEYPROXY_ADMIN": ("off",),
    "KEYPROXY_ADMIN_TOKEN_FILE": ("off",),
    "KEYPROXY_ADMIN_HOSTS": ("off",),
}

# What Kubernetes and Docker links set in each container for a service called keyproxy,
# keyproxy-web … (Kubernetes: Service, "environment variables").
_INJECTED = re.compile(
    r"KEYPROXY_(?:\w+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)",
    re.ASCII,
)
# Meant for us, and read by nobody: KEY_PROXY_LISTEN, keyproxy_listen, KEYPROX_LISTEN.
_MISSPELT = re.compile(r"key_?prox[yi]?_", re.IGNORECASE)
_INJECTED_ADDRESS = re.compile(r"KEYPROXY_(?:\w+_)?PORT", re.ASCII)
_NO_NAME = re.compile(r"\W+", re.ASCII)
_APP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Layer:
    """``place`` is what faults say behind what was found: "in .env"; "" says nothing.

    ``apps``: what the tables ``[apps.NAME]`` say, each by variable.
    """

    place: str
    variables: Mapping[str, str]
    apps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

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
        original, key = binding.original.string, binding.key
        # Without what nobody sees, or what a shell would have written in front.
        plain = _NO_NAME.sub("", key or "")
        is_faulty = _is_ours(original) if key is None else key != plain and _is_ours(plain)
        found, expected = "", "NAME=value, or NAME='value' where the value holds # or quotes"
        if key is not None and binding.value is None and key.startswith("sk-or-"):
            found, expected = "a key without a name", f"{KEY}= in front of it"
        elif key is not None and not is_faulty:
            variables[key] = binding.value or ""
        elif is_faulty and (key is not None or binding.error):
            found = "no assignment" if key is None else "no name that keyproxy reads"
        if found:
            blank = original[: len(original) - len(original.lstrip())]
            at = binding.original.line + blank.count("\n")
            faults.append(SettingsFault(f"{name}, line {at}", found=found, expected=expected))
    return Layer(f"in {name}", variables), faults


def _is_ours(text: str) -> bool:
    return PREFIX in text or KEY in text


def of_toml(name: str, text: str) -> tuple[Layer, list[SettingsFault]]:
    """The variables of a TOML file: ``max_body`` is ``KEYPROXY_MAX_BODY``, lists are joined."""
    place = f"in {name}" if name.endswith(".toml") else f"in {name} (TOML)"
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        where = mask(str(error))
        fault = SettingsFault(name, found=f"not TOML: {where}", expected="a TOML file")
        return Layer(place, {}), [fault]
    tables = document.pop("apps", {})
    # A file cannot name another file instead of itself.
    every = {row.variable for row in rows().values() if row is not CONFIG}
    variables, faults = _table(document, every | set(NOT_IN_THIS_VERSION), "", place)
    apps = {}
    if not isinstance(tables, dict):
        faults.append(SettingsFault("apps", found="no table", expected="tables [apps.NAME]"))
        tables = {}
    for app, table in tables.items():
        if not _APP.fullmatch(app) or app == DEFAULT_APP or not isinstance(table, dict):
            faults.append(_no_app(app, table))
            continue
        apps[app], more = _table(table, _of_apps(), f"apps.{app}.", place)
        faults += more
    return Layer(place, variables, apps), faults


def _table(
    table: Mapping[str, object], variables: Iterable[str], prefix: str, place: str
) -> tuple[dict[str, str], list[SettingsFault]]:
    """What a TOML table says of ``variables``, by variable, and its faults."""
    known = {toml_key(each): each for each in variables}
    said: dict[str, str] = {}
    faults = []
    for key, value in table.items():
        shown_key = f"{prefix}{mask(key)} ({place})"
        if key not in known:
            faults.append(SettingsFault(shown_key, **_unknown(key, value, known, bool(prefix))))
            continue
        row = row_of(known[key])
        separator = row.separator if row else ","
        if (text := _text(value, separator)) is None:
            more = ", a number or a list of texts" if separator else " or a number"
            found = f"of the type {type(value).__name__}"
            faults.append(SettingsFault(shown_key, found=found, expected=f"a text{more}"))
        elif text.strip():
            said[known[key]] = text
    return said, faults


def _of_apps() -> set[str]:
    return {name for row in rows().values() if row.is_app for name in row.variables}


def _unknown(key: str, value: object, known: Iterable[str], is_app: bool) -> dict[str, str]:
    every = {toml_key(row.variable) for row in rows().values()}
    if is_app and key in every:
        return {
            "found": "a setting of the whole process",
            "expected": "it at the top of the file, for all apps",
        }
    is_table = isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(entry, dict) for entry in value)
    )
    if is_table:
        return {"found": "a table", "expected": "top-level keys, and tables [apps.NAME]"}
    name = key.lower().removeprefix(PREFIX.lower())
    return {"found": "not a setting", "expected": nearest(name, known)}


def _no_app(name: str, table: object) -> SettingsFault:
    if name == DEFAULT_APP:
        found, expected = "a table", "another name: what stands at the top is the default app"
    elif isinstance(table, dict):
        found, expected = "no name of an app", "letters, digits, - and _, such as [apps.mobile]"
    else:
        found, expected = "no table", "tables [apps.NAME]"
    return SettingsFault(f"apps.{mask(name)}", found=found, expected=expected)


def _text(value: object, separator: str) -> str | None:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list) and separator:
        texts = [_text(entry, separator) for entry in value if not isinstance(entry, list)]
        whole = [text for text in texts if text is not None]
        return separator.join(whole) if len(whole) == len(value) else None
    return str(value) if isinstance(value, str | int | float) else None


def merged(layers: Sequence[Layer]) -> tuple[dict[str, str], dict[str, str]]:
    """Variables of all layers, the first layer winning, and the place of each.

    An empty text is as good as none. A value and a file that holds it answer one question: a
    layer that says either silences both in the layers below.
    """
    variables: dict[str, str] = {}
    places: dict[str, str] = {}
    both = pairs()
    for layer in reversed(layers):
        said = [name for name in layer.variables if layer.says(name)]
        for pair in both:
            if any(name in said for name in pair):
                for name in pair:
                    variables.pop(name, None)
        for name in said:
            variables[name] = layer.variables[name]
            places[name] = layer.place
    for value, file in both:
        if value in variables:
            variables.pop(file, None)  # both in one layer: reported by doubled()
    return variables, places


def doubled(layers: Sequence[Layer]) -> list[SettingsFault]:
    """A fault for each layer that says a value and names a file for it."""
    return [
        SettingsFault(
            file, found=f"set beside {value} {layer.place}".rstrip(), expected="one of the two"
        )
        for layer in layers
        for value, file in pairs()
        if layer.says(value) and layer.says(file)
    ]


def is_injected(name: str, value: str) -> bool:
    """Whether a container platform set this, not a person."""
    if _INJECTED.fullmatch(name):
        return True
    return bool(_INJECTED_ADDRESS.fullmatch(name)) and "://" in value


def name_faults(environ: Mapping[str, str], known: Iterable[str]) -> list[SettingsFault]:
    """A fault for each KEYPROXY_ variable that this version cannot obey, and for near misses."""
    names = set(known)
    return [
        fault
        for name, value in sorted(environ.items())
        if _MISSPELT.match(name) and name not in names and value.strip()
        if (fault := _name_fault(name, value.strip(), names)) is not None
    ]


def _name_fault(name: str, value: str, known: set[str]) -> SettingsFault | None:
    nothing = NOT_IN_THIS_VERSION.get(name)
    if nothing is not None:
        if value in nothing:
            return None
        return SettingsFault(
            name,
            found="set, and this version does not have it",
            expected=f"unset or {' or '.join(nothing)}",
        )
    if is_injected(name, value):
        return None
    if not name.startswith(PREFIX):
        close = difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.85)
        if not close:
            return None
        return SettingsFault(name, found="not a setting", expected=f"{close[0]} perhaps?")
    return SettingsFault(name, found="not a setting", expected=nearest(name, known))


def nearest(name: str, known: Iterable[str]) -> str:
    """What to expect in place of an unknown name."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"{close[0]} perhaps?" if close else "one of the names in docs/settings.md"
