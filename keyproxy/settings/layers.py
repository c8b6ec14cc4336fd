"""One layer of settings: the variables of one place, and which names are variables.

Texts in, variables and faults out. Reads no files and no environment; ``sources`` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from typing import Any

from keyproxy.dataclass import dataclass, field
from keyproxy.errors import SettingsFault
from keyproxy.settings import providers
from keyproxy.settings.grammar import mask, nearest
from keyproxy.settings.grammar.secrets import KEY
from keyproxy.settings.setting import Setting, toml_key
from keyproxy.settings.table import CONFIG, DEFAULT_APP, ROWS

PREFIX = "KEYPROXY_"

# What Kubernetes and Docker links set in each container for a service called keyproxy,
# keyproxy-web … (Kubernetes: Service, "environment variables").
_INJECTED = re.compile(
    r"KEYPROXY_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?==.*://)"
    r"|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)=.*",
    re.ASCII | re.DOTALL,
)
# Meant for us, and read by nobody: KEY_PROXY_LISTEN, keyproxy_listen, KEYPROX_LISTEN.
_MISSPELT = re.compile(r"key_?prox[yi]?_", re.IGNORECASE)

_VARIABLES = sorted(row.variable for row in ROWS.values())
_PAIRS = [(row.variable, row.file.variable) for row in ROWS.values() if row.file]
"""Each variable that may stand in a file, with the one that names the file."""
# A file cannot name another file instead of itself, and its providers are tables.
_IN_TOML = [row for row in ROWS.values() if row.variable not in (CONFIG.variable, providers.NAMES)]
_IN_DOCS = "one of the names in docs/settings.md"
_NO_NAME = re.compile(r"\W+", re.ASCII)
_KINDS = {
    "apps": (
        re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"),
        [row for row in ROWS.values() if row.is_app],
        ("an app", "letters, digits, - and _, such as [apps.mobile]"),
    ),
    "providers": (
        providers.ANY_NAME,
        list(providers.ROWS.values()),
        ("a provider", "small letters, digits and -, such as [providers.groq]"),
    ),
}
"""Tables that have names: which, what stands in them, and what is said of other names."""


@dataclass(frozen=True, slots=True)
class Layer:
    """``place`` is what faults say behind what was found: "in .env"; "" says nothing.

    ``apps`` and ``providers``: what the tables ``[apps.NAME]`` and ``[providers.NAME]`` say, each
    by variable. ``routes``: the tables ``[models.NAME]`` and ``[routes.NAME]`` as they are.
    ``faults`` are of what stands in the file.
    """

    place: str
    variables: Mapping[str, str]
    faults: Sequence[SettingsFault] = ()
    apps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    providers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    routes: Mapping[str, Any] = field(default_factory=dict)


def of_env_file(name: str, text: str) -> Layer:
    """The variables of a ``.env`` file, ``${}`` left as it is.

    A line that is no assignment is a fault only where it speaks of us: the file is shared
    with the web app and its tools.
    """
    variables: dict[str, str] = {}
    faults: list[SettingsFault] = []
    if not text:  # most servers have no such file, and their start need not load what reads it
        return Layer(f"in {name}", variables)
    from dotenv.parser import parse_stream

    for binding in parse_stream(StringIO(text)):
        original, key = binding.original.string, binding.key
        # Without what nobody sees, or what a shell would have written in front.
        plain = _NO_NAME.sub("", key or "")
        expected = "NAME=value, or NAME='value' where the value holds # or quotes"
        if key is None:
            if not (binding.error and _is_ours(original)):
                continue
            found = "no assignment"
        elif binding.value is None and key.startswith("sk-or-"):
            found, expected = "a key without a name", f"{KEY}= in front of it"
        elif key != plain and _is_ours(plain):
            found = "no name that keyproxy reads"
        else:
            variables[key] = binding.value or ""
            continue
        blank = original[: len(original) - len(original.lstrip())]
        at = binding.original.line + blank.count("\n")
        faults.append(SettingsFault(f"{name}, line {at}", found=found, expected=expected))
    return Layer(f"in {name}", variables, faults)


def _is_ours(text: str) -> bool:
    return PREFIX in text or KEY in text


def of_toml(name: str, text: str) -> Layer:
    """The variables of a TOML file: ``max_body`` is ``KEYPROXY_MAX_BODY``, lists are joined."""
    place = f"in {name}" if name.endswith(".toml") else f"in {name} (TOML)"
    if not text:  # as above
        return Layer(place, {})
    import tomllib

    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        where = mask(str(error))
        fault = SettingsFault(name, found=f"not TOML: {where}", expected="a TOML file")
        return Layer(place, {}, [fault])
    named = {kind: document.pop(kind, {}) for kind in _KINDS}
    routes = {kind: document.pop(kind, {}) for kind in ("models", "routes")}
    faults: list[SettingsFault] = []
    variables = _table(document, _IN_TOML, "", place, faults)
    apps, providers = (_tables(kind, tables, place, faults) for kind, tables in named.items())
    return Layer(place, variables, faults, apps, providers, routes)


def _tables(
    kind: str, tables: object, place: str, faults: list[SettingsFault]
) -> dict[str, dict[str, str]]:
    """What tables of a kind say, by name and variable; adds their ``faults``."""
    names, rows, what = _KINDS[kind]
    expected = f"tables [{kind}.NAME]"
    if not isinstance(tables, dict):
        faults.append(SettingsFault(kind, found="no table", expected=expected))
        return {}
    said = {}
    for name, table in tables.items():
        wanted = expected
        if kind == "apps" and name == DEFAULT_APP:
            found, wanted = "a table", "another name: what stands at the top is the default app"
        elif not isinstance(table, dict):
            found = "no table"
        elif not names.fullmatch(name):
            found, wanted = f"no name of {what[0]}", what[1]
        else:
            said[name] = _table(table, rows, f"{kind}.{name}.", place, faults)
            continue
        faults.append(SettingsFault(f"{kind}.{mask(name)}", found=found, expected=wanted))
    return said


def _table(
    table: Mapping[str, object],
    rows: Iterable[Setting],
    prefix: str,
    place: str,
    faults: list[SettingsFault],
) -> dict[str, str]:
    """What a TOML table says of ``rows``, by variable; adds its ``faults``."""
    known = {toml_key(row.variable): row for row in rows}
    said: dict[str, str] = {}
    for key, value in table.items():
        if (row := known.get(key)) is None:
            found, expected = _unknown(key, value, known, is_app=prefix.startswith("apps."))
        elif (text := _text(value, row.separator, has_names=row.has_names)) is None:
            found = f"of the type {type(value).__name__}"
            more = ", a number or a list of texts" if row.separator else " or a number"
            expected = f"a text{more}"
        else:
            if text.strip():
                said[row.variable] = text
            continue
        name = f"{prefix}{mask(key)} ({place})"
        faults.append(SettingsFault(name, found=found, expected=expected))
    return said


def _unknown(key: str, value: object, known: Iterable[str], is_app: bool) -> tuple[str, str]:
    """What is found in the place of a setting, and what is expected."""
    if is_app and key in map(toml_key, _VARIABLES):
        return "a setting of the whole process", "it at the top of the file, for all apps"
    entries = value if isinstance(value, list) else [value]
    if any(isinstance(entry, dict) for entry in entries):
        kinds = ("apps", "providers", "models", "routes")
        tables = ", ".join(f"[{kind}.NAME]" for kind in kinds)
        return "a table", f"top-level keys, and tables {tables}"
    return "not a setting", nearest(key.lower().removeprefix(PREFIX.lower()), known, _IN_DOCS)


def _text(value: object, separator: str = "", *, has_names: bool = False) -> str | None:
    if has_names and isinstance(value, dict):
        return ",".join(f"{name}={_text(number)}" for name, number in value.items())
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list) and separator:
        texts = [_text(entry) for entry in value]
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
    for layer in reversed(layers):
        said = {name: text for name, text in layer.variables.items() if text.strip()}
        for pair in _PAIRS:
            if not said.keys().isdisjoint(pair):
                for name in pair:
                    variables.pop(name, None)
        variables |= said
        places |= dict.fromkeys(said, layer.place)
    return variables, places


def name_faults(environ: Mapping[str, str]) -> Iterator[SettingsFault]:
    """A fault for each KEYPROXY_ variable that is no setting, and for near misses.

    What a container platform set, and no person, is none.
    """
    for name, text in sorted(environ.items()):
        value = text.strip()
        is_meant = _MISSPELT.match(name) and name not in _VARIABLES and value
        if not is_meant or _INJECTED.fullmatch(f"{name}={value}"):
            continue
        expected = nearest(name, _VARIABLES, _IN_DOCS)
        if not name.startswith(PREFIX):
            expected = nearest(name.upper(), _VARIABLES, "", cutoff=0.85)
        if expected:
            yield SettingsFault(name, found="not a setting", expected=expected)
