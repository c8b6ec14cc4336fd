"""Whose keys are used, in which order, and what is said of each: ``KEYPROXY_PROVIDERS`` and the
tables ``[providers.NAME]`` of the TOML file. Nobody is used because its key lies about. No I/O.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal

from keyproxy.dataclass import dataclass, fields
from keyproxy.errors import SettingsFault
from keyproxy.key_forms import KNOWN, Secret
from keyproxy.settings.grammar import each, matching, network, or_off, plain, secrets, shown
from keyproxy.settings.setting import Setting, finished, setting, toml_key

NAMES = "KEYPROXY_PROVIDERS"
SHORTEST_KEY = 20
"""Characters: a shorter text may stand in an answer without being the key."""
ANY_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_FIELD = matching("[a-z][a-z0-9_]{0,63}", "names of body fields such as temperature")
_ONLY_FOR_OTHERS = frozenset({"KEYPROXY_KIND", "KEYPROXY_DIALECTS", "KEYPROXY_ALLOW_HTTP"})
Kind = Literal["openai-compatible", "anthropic-compatible"]


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Table:
    """What a table ``[providers.NAME]`` may say; a row's variable stands for its key there."""

    # fmt: off
    kind: Kind | None = setting(plain.word("openai-compatible", "anthropic-compatible"), "VALUE",
        None, example="openai-compatible",
        meaning="how any other host is spoken to: `openai-compatible` or `anthropic-compatible`")
    base: str | None = setting(network.base_address, "URL", None,
        example="https://llm.example.net/v1",
        meaning="where it answers; the path of each endpoint is put behind it")
    messages_base: str | None = setting(network.base_address, "URL", None,
        example="https://llm.example.net/anthropic/v1",
        meaning="where it answers `/messages`, if not there")
    keys: tuple[Secret, ...] = setting(secrets.keys_or_none, "VALUE", "none",
        separator=",", is_secret=True, variable="KEYPROXY_KEY",
        meaning="`none`, for another host that asks for no key",
        in_file="a file that holds its key")
    dialects: tuple[str, ...] | None = setting(
        each(plain.word("chat", "responses", "messages", "embeddings")), "NAMES", None,
        example="chat,embeddings", separator=",",
        meaning="what another host speaks: `chat` (or `messages`, if it is Anthropic-compatible)"
        " unless it says so")
    models: tuple[str, ...] = setting(plain.models, "GLOBS", "*", example="openai/gpt-oss-*",
        separator=",", meaning="what it is used for, as in KEYPROXY_ALLOWED_MODELS")
    fields: tuple[str, ...] | None = setting(each(_FIELD), "NAMES", None,
        example="temperature,top_p", separator=",",
        meaning="fields that its models take, whatever is known here of them")
    max_in_flight: int | None = setting(or_off(plain.count(1, 1_000_000)), "VALUE", None,
        example="40", meaning="calls in flight there; then the next provider is asked")
    on_hangup: Literal["cut", "drain"] | None = setting(plain.word("cut", "drain"), "VALUE", None,
        example="drain",
        meaning="when the client leaves: `cut` the answer, or `drain` it to learn what it costs")
    first_output_timeout_seconds: float | None = setting(or_off(plain.timeout), "TIME", None,
        example="30s", meaning="so long it may take to its first output while there is another")
    allow_http: bool = setting(plain.switch, "VALUE", "off",
        meaning="whether another host may be spoken to without TLS beyond this computer")
    # fmt: on


ROWS: Mapping[str, Setting] = finished(fields(Table))
ROW_FIELDS = {each.name: ROWS[each.name] for each in fields(Table)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Used(Table):
    """A provider that calls may go to, with its keys. What is None is as the provider has it."""

    name: str

    @property
    def is_other(self) -> bool:
        """Whether it is none that is known by name."""
        return self.kind is not None


def is_short(key: Secret) -> bool:
    return len(key.reveal()) < SHORTEST_KEY


def names(text: str) -> tuple[str, ...]:
    """Names of providers, in the order in which they are asked."""
    expected = f"names of {', '.join(KNOWN)}, or of tables [providers.NAME]"
    return each(matching(ANY_NAME.pattern, expected))(text)


def key_variables(name: str) -> tuple[str, str]:
    """The variable that holds the key of a provider, and the one that names a file with it."""
    variable = f"{name.upper()}_API_KEY"
    return variable, f"{variable}_FILE"


Tables = Mapping[str, Mapping[str, str]]
"""What the tables say, each by its rows' variables."""


def named(environ: Mapping[str, str], tables: Tables) -> tuple[str, ...]:
    """Who is used, as far as that can be told before anything is judged."""
    text = environ.get(NAMES, "").strip() or ",".join(tables) or "openrouter"
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def with_tables(environ: Mapping[str, str], tables: Tables) -> dict[str, str]:
    """``environ`` with what the tables say in the place of variables: whose keys are used, and
    which files hold them."""
    given = dict(environ)
    for variable, where in key_files(environ, tables).items():
        given[variable] = tables[where.split(".")[1]]["KEYPROXY_KEY_FILE"]
    if tables and not environ.get(NAMES, "").strip():
        given[NAMES] = ",".join(tables)
    return given


def unused(environ: Mapping[str, str], used: Collection[str]) -> tuple[str, ...]:
    """The variables that hold a key, or name its file, of a provider that is not used."""
    names = [variable for name in KNOWN if name not in used for variable in key_variables(name)]
    return tuple(variable for variable in names if environ.get(variable, "").strip())


def key_files(environ: Mapping[str, str], tables: Tables) -> dict[str, str]:
    """The variables that tables of providers stand for, with what these are called there: such a
    table names the file, and the environment does not say otherwise."""
    used = named(environ, tables)
    return {
        key_variables(name)[1]: f"providers.{name}.key_file"
        for name, said in tables.items()
        if name in KNOWN and name in used and said.get("KEYPROXY_KEY_FILE")
        if not any(environ.get(variable, "").strip() for variable in key_variables(name))
    }


def field_of(name: str) -> str:
    """The setting that holds the keys of a provider that is known by its name."""
    return "keys" if name == "openrouter" else f"{name}_keys"


def lacking(environ: Mapping[str, str], tables: Tables) -> Iterator[str]:
    """The variable of each key that is used and not said."""
    for name in named(environ, tables):
        said = tables.get(name, {})
        is_said = any(environ.get(variable, "").strip() for variable in key_variables(name))
        if not (is_said or said.get("KEYPROXY_KEY_FILE") or said.get("KEYPROXY_KEY")):
            yield key_variables(name)[0] if name in KNOWN else f"providers.{name}.key_file"


def table_faults(said: Mapping[str, str], name: str) -> Iterator[SettingsFault]:
    """What in a table does not go together; ``name`` is the provider's."""
    if name not in KNOWN:
        if "KEYPROXY_KIND" not in said:
            close = difflib.get_close_matches(name, KNOWN, n=1)
            hint = f"; or {close[0]} perhaps?" if close else ""
            yield _fault(
                name,
                "KEYPROXY_KIND",
                None,
                f"openai-compatible or anthropic-compatible, since {name} is none of"
                f" {', '.join(KNOWN)}{hint}",
            )
        if "KEYPROXY_BASE" not in said:
            yield _fault(name, "KEYPROXY_BASE", None, "where it answers", "https://…/v1")
        if not {"KEYPROXY_KEY", "KEYPROXY_KEY_FILE"} & said.keys():
            expected = 'a file that holds its key, or key = "none" where it asks for none'
            yield _fault(name, "KEYPROXY_KEY_FILE", None, expected, f"/run/secrets/{name}")
    for variable in said.keys() & (_ONLY_FOR_OTHERS if name in KNOWN else frozenset()):
        yield _fault(name, variable, "set", f"nothing: {name} is known by its name")
    if (key := said.get("KEYPROXY_KEY")) is not None and (name in KNOWN or key != "none"):
        file = f"/run/secrets/{name}"
        expected = "key_file, which names a file that holds it"
        yield _fault(name, "KEYPROXY_KEY", "set (not shown)", expected, file, "KEYPROXY_KEY_FILE")


def address_faults(used: Used) -> Iterator[SettingsFault]:
    """What of its addresses would send a key in clear."""
    for field, base in (("base", used.base), ("messages_base", used.messages_base)):
        if base and not (used.allow_http or base.startswith("https:") or network.is_local(base)):
            yield SettingsFault(
                f"providers.{used.name}.{field}",
                found=shown(base),
                expected="an https:// address: http:// would send keys and texts in clear (for"
                " another host in a network of your own: allow_http = true)",
                paste=f'{field} = "https{base.removeprefix("http")}"',
            )


def key_faults(used: Used, keys: Collection[Secret], upstream: str) -> Iterator[SettingsFault]:
    """What is wrong with the keys of a provider, by its address. ``upstream``: OpenRouter's."""
    name = used.name
    base = used.base or (upstream if name == "openrouter" else "https:")
    variable = key_variables(name)[0] if name in KNOWN else f"providers.{name}.key_file"
    if not (used.allow_http or network.is_local(base)) and any(map(is_short, keys)):
        expected = f"a key of {SHORTEST_KEY} characters or more: answers are searched for it"
        yield SettingsFault(variable, found="a shorter key", expected=expected)
    is_own = network.is_openrouter(base) if name == "openrouter" else used.base is None
    if not is_own or name not in KNOWN:
        return
    whose, owners = KNOWN[name].owner, [key.owner for key in keys]
    owner = next((each for each in owners if each not in (None, whose)), None)
    if owner is None:
        return
    number = f"a list whose number {owners.index(owner) + 1} is " if len(owners) > 1 else ""
    whose = whose or name
    page = f", from {secrets.KEYS_PAGE}" if name == "openrouter" else ""
    yield SettingsFault(
        variable,
        found=f"{number}a key of {owner}'s, and calls go to {whose}",
        expected=f"a key of {whose}'s{page}",
        paste=f"{variable}=sk-or-v1-…" if name == "openrouter" else None,
    )


def unknown(name: str, used: Iterable[str], tables: Collection[str]) -> SettingsFault:
    """The fault of a name in ``KEYPROXY_PROVIDERS`` that nobody has; ``used``: all it names."""
    known = [*KNOWN, *tables]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"{close[0]} perhaps?" if close else f"one of {', '.join(known)}"
    kept = [close[0] if each == name and close else each for each in used]
    cured = dict.fromkeys(each for each in kept if each in known)
    paste = f"{NAMES}={','.join(cured) or 'openrouter'}"
    return SettingsFault(
        NAMES, found=shown(name), expected=f"{hint} (docs/providers.md)", paste=paste
    )


def _fault(
    name: str,
    variable: str,
    found: str | None,
    expected: str,
    value: str = "",
    instead: str | None = None,
) -> SettingsFault:
    key = toml_key(instead or variable)
    where = f"providers.{name}.{toml_key(variable)}"
    paste = f'in [providers.{name}] of the TOML file: {key} = "{value}"' if value else None
    return SettingsFault(where, found=found, expected=expected, paste=paste)
