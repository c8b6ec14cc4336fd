"""Settings as they hold: validated, the default app's and those of each other app.

Built from any mapping of variables; the environment and the files are read in ``sources`` only.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from keyproxy.dataclass import dataclass, field, fields, replace
from keyproxy.errors import SettingsFault, SettingsFaults
from keyproxy.key_forms import KNOWN, Secret
from keyproxy.settings import providers
from keyproxy.settings.consistency import AppValues, bound_answers, faults
from keyproxy.settings.grammar import Unfit, shown, text_in
from keyproxy.settings.layers import name_faults
from keyproxy.settings.lines import in_table, of_app
from keyproxy.settings.providers import Tables, Used, field_of
from keyproxy.settings.routes import Route, RouteReading, alias_faults
from keyproxy.settings.setting import SAY_IT, Derived, Mode, Setting, fault_of, text_of, unsaid
from keyproxy.settings.table import DEFAULT_APP, ROWS, Table, row_of

NONE: Mapping[str, Any] = MappingProxyType({})
_FIELDS = {each.name: ROWS[each.name] for each in fields(Table)}
_OF_APPS = {field: row for field, row in _FIELDS.items() if row.is_app}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Table):
    """Everything that can be set, validated. Made by ``from_environ``.

    What the environment sets is the app ``default``. ``apps`` are the other ones, each with the
    settings as they hold for it.
    """

    mode: Mode
    name: str = DEFAULT_APP
    apps: tuple[Settings, ...] = ()
    tables: tuple[Used, ...] = ()
    """What is said of each provider that is used; ``providers`` has their keys, too."""
    routes: tuple[Route, ...] = ()
    """What is said of models, and of names for several of them."""
    # Variables of keys that are set and not used.
    seen: tuple[str, ...] = field(default=(), compare=False)
    # By variable, in the words of ``layers``; what is missing was never said.
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_environ(
        cls,
        mode: Mode,
        environ: Mapping[str, str],
        apps: Mapping[str, Mapping[str, str]] = NONE,
        tables: Tables = NONE,
        routes: Mapping[str, Any] = NONE,
        *,
        places: Mapping[str, str] = NONE,
        directory: Path = Path(),
        read_file: Callable[[Path], bytes] = Path.read_bytes,
    ) -> Self:
        """Settings from a mapping of variables; others than ours may be in it.

        ``apps``: for each app beside the default one, what it says itself, by variable.
        ``tables``: what the TOML file says of providers, by name and variable; ``routes``: what
        stands in it under ``models`` and ``routes``.
        ``places``: where the variables of ``environ`` stand, in the words of ``layers``.
        Relative paths are taken from ``directory``. ``read_file`` gives a file's content or
        raises ``Unfit`` or ``OSError``. Raises ``SettingsFaults`` with every fault at once.
        """
        if mode == "demo":
            # The demo has its own upstream: nothing said about the true one concerns it.
            environ = _without_upstream(environ)
            apps = {name: _without_upstream(said) for name, said in apps.items()}
            tables, routes = {}, {}
        used = providers.named(environ, tables)
        given = providers.with_tables(environ, tables)
        reading = Reading(mode, given, directory, read_file, used=used)
        default, *others = everyone = reading.apps(apps, tables)
        ways = RouteReading(used)
        ways.read(routes)
        reading.faults += [*name_faults(environ), *ways.faults]
        reading.faults += alias_faults(default.get("model_aliases", ()), ways.routes)
        reading.faults += faults(mode, everyone, reading.entries)
        if reading.faults:
            moved = providers.key_files(environ, tables)
            for fault in reading.faults:
                fault.variable = moved.get(fault.variable, fault.variable)
            raise SettingsFaults(reading.faults)
        settings = cls(
            mode=mode,
            places=dict(places),
            tables=tuple(reading.entries),
            routes=tuple(ways.routes),
            seen=providers.unused(environ, used),
            **default.values,
        )
        return replace(settings, apps=tuple(settings._of_app(app) for app in others))

    def _of_app(self, app: AppValues) -> Self:
        """These settings, the default app's, as they hold for another. What is its own can stand in
        its table only."""
        own = {variable for row in ROWS.values() if row.is_own for variable in row.variables}
        table = dict.fromkeys({*app.said, *own}, f"in [apps.{app.name}] of the TOML file")
        return replace(self, name=app.name, places={**self.places, **table}, **app.values)

    @property
    def all_apps(self) -> tuple[Settings, ...]:
        """The settings of each app, the default app's first."""
        return (self, *self.apps)

    @property
    def counts_money(self) -> bool:
        """Whether anything asks what a call of this app may cost: a budget, or the ledger."""
        return bool(self.budget or self.app_budget or self.total_budget or self.ledger)

    @property
    def asks_prices(self) -> bool:
        """Whether anything asks what models cost: money that is counted, a highest price, a choice
        by cost."""
        choices = {self.choose, *(route.choose for route in self.routes)}
        limits = (self.max_price, *(route.max_price for route in self.routes))
        return self.counts_money or "cheapest" in choices or any(limits)

    @property
    def providers(self) -> tuple[Used, ...]:
        """Whom this app's calls may go to, in the order in which they are asked, with their
        keys."""
        tables = {entry.name: entry for entry in self.tables}
        entries = (tables[name] for name in self.provider_names)
        return tuple(
            each if each.is_other else replace(each, keys=getattr(self, field_of(each.name)))
            for each in entries
        )

    @property
    def all_keys(self) -> tuple[Secret, ...]:
        """The keys of all apps at all providers, each once."""
        used = (each for app in self.all_apps for each in app.providers)
        return tuple(dict.fromkeys(key for each in used for key in each.keys))

    @property
    def hidden_keys(self) -> tuple[Secret, ...]:
        """Those of ``all_keys`` that no answer may hold."""
        return tuple(key for key in self.all_keys if not providers.is_short(key))

    def kept(self, **values: Any) -> Self:
        """These settings with ``values``, which hold for every app, in place of their own."""
        apps = tuple(replace(app, **values) for app in self.apps)
        return replace(self, apps=apps, **values)

    def reloaded(self, running: Self) -> tuple[Self, list[str]]:
        """These settings as a process takes them that is ``running`` with others, and the names
        of those that it would have to be restarted for."""
        stuck = {
            name: value
            for name, row in _FIELDS.items()
            if row.needs_restart and (value := getattr(running, name)) != getattr(self, name)
        }
        if "openrouter" not in self.provider_names:
            stuck.pop("upstream", None)  # nobody asks there
        return self.kept(**stuck), list(stuck)


def _without_upstream(texts: Mapping[str, str]) -> dict[str, str]:
    theirs = {name for row in ROWS.values() if row.is_upstream for name in row.variables}
    return {name: text for name, text in texts.items() if name not in theirs}


@dataclass(slots=True)
class Reading:
    """One pass over the table: variables in, values and all faults at once out.

    ``entries``: what is said of the providers that are used. ``read_file`` gives a file's
    content or raises ``Unfit`` or ``OSError``. Values are by field name; those of faulty settings
    are missing.
    """

    mode: Mode
    environ: Mapping[str, str]
    directory: Path
    read_file: Callable[[Path], bytes]
    faults: list[SettingsFault] = field(default_factory=list)
    used: Collection[str] = ()
    entries: list[Used] = field(default_factory=list)

    def apps(self, apps: Mapping[str, Mapping[str, str]], tables: Tables) -> list[AppValues]:
        """What each app says and what holds for it, the default one first; reads ``entries``."""
        default = AppValues(DEFAULT_APP, self.environ, self.values(_FIELDS, {}))
        for name in self.used:
            if (entry := self._provider(name, tables)) is not None:
                self.entries.append(entry)
                if entry.name == "openrouter" and entry.base:
                    default.values["upstream"] = entry.base
        others = [
            AppValues(name, said, self._app_values(name, said, default.values))
            for name, said in apps.items()
        ]
        for app in (default, *others):
            bound_answers(app.values, {**self.environ, **app.said})
        return [default, *others]

    def _app_values(
        self, name: str, said: Mapping[str, str], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the app ``name`` says, over what the default app has, where an app may differ.

        ``said``: variable -> text; ``given``: the default app's values. Of the faults those are
        kept that the app itself can mend.
        """
        environ = {**self._inherited(said), **said}
        app = Reading(self.mode, environ, self.directory, self.read_file, used=self.used)
        values = app.values(_OF_APPS, given)
        self.faults += [of_app(fault, name) for fault in app.faults if fault.variable in said]
        return {field: values[field] for field in _OF_APPS if field in values}

    def _provider(self, name: str, tables: Tables) -> Used | None:
        """What is said of a provider that is used; None where that is faulty."""
        said = dict(tables.get(name, {}))
        if name not in KNOWN and name not in tables:
            self.faults.append(providers.unknown(name, self.used, tables))
            return None
        found = list(providers.table_faults(said, name))
        if name in KNOWN:
            said.pop("KEYPROXY_KEY_FILE", None)  # it is read where the variable would be
        table = Reading(self.mode, said, self.directory, self.read_file)
        values = {} if found else table.values(providers.ROW_FIELDS, {})
        found += (in_table(fault, f"providers.{name}") for fault in table.faults)
        self.faults += found
        return None if found else Used(name=name, **values)

    def _inherited(self, said: Mapping[str, str]) -> dict[str, str]:
        """What was said of the default app and holds for one that says ``said``."""
        rows = _OF_APPS.values()
        answered = [row for row in rows if any(name in said for name in row.variables)]
        # Another issuer's tokens have another audience.
        families = {row.family for row in answered if row.family and row.instead}
        kept = [
            row for row in rows if not (row.is_own or row in answered or row.family in families)
        ]
        names = {name for row in kept for name in row.variables}
        return {name: text for name, text in self.environ.items() if name in names}

    def values(self, table: Mapping[str, Setting], given: Mapping[str, Any]) -> dict[str, Any]:
        """The values of the settings in ``table``, which others may follow from: those, and what is
        ``given`` of other ones."""
        values = dict(given)
        for name, setting in table.items():
            values.pop(name, None)
            try:
                values[name] = self._value(setting, values)
            except SettingsFault as fault:
                self.faults.append(fault)
            except KeyError:
                continue  # follows from a faulty setting, which is reported already
        return values

    def _value(self, setting: Setting, values: Mapping[str, Any]) -> Any:
        if setting.provider is not None and setting.provider not in self.used:
            return ()  # what lies about for other programs is none of our business
        text = text_of(setting, self.environ)
        file = setting.file
        path = text_of(file, self.environ) if file else ""
        if file and path and text:
            raise SettingsFault(
                file.variable, found=f"set beside {setting.variable}", expected="one of the two"
            )
        try:
            if path:
                return self._in_file(setting, path)
            if text:
                return self._said(setting, text)
        except Unfit as unfit:
            raise fault_of(file if file and path else setting, unfit, path or text) from None
        default = setting.default(self.mode)
        if default == SAY_IT:
            return self._unsaid(setting)
        if isinstance(default, Derived):
            return default.of(values[default.source])
        return None if default is None else setting.parse(default)

    def _unsaid(self, setting: Setting) -> tuple[Any, ...]:
        other = row_of(setting.instead or "")
        answer = "" if other is None else self.environ.get(other.variable, "").strip()
        if self.mode == "demo" or (other is not None and answer not in ("", other.dev)):
            return ()
        raise (setting.unsaid or unsaid)(setting, self.environ)

    def _said(self, setting: Setting, text: str) -> Any:
        value = setting.parse(text)
        if setting.content is None or value is None:
            return value
        setting.content(self._content(text))
        return self.directory / value

    def _in_file(self, setting: Setting, path: str) -> Any:
        """The value that a file holds."""
        content = self._content(path)
        try:
            text = text_in(content)
        except Unfit as unfit:
            unfit.found = f"{shown(path)}{unfit.where}, which is {unfit.found}"
            raise
        if setting.is_secret and not text.strip():
            raise Unfit(
                f"in it, {setting.meaning}; this takes what is pasted, up to Ctrl-D",
                found=f"{shown(path)}, an empty file",
                line=f"cat > {shlex.quote(path)}",
            )
        try:
            return setting.parse(text)
        except Unfit as unfit:
            unfit.found = f"a file with {unfit.found or 'something else'}"
            raise

    def _content(self, path: str) -> bytes:
        try:
            return self.read_file(self.directory / path)
        except Unfit:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no path"
            raise Unfit("a readable file", found=f"{shown(path)}: {reason}") from None
