"""Settings as they hold: validated, the default app's and those of each other app.

Built from any mapping of variables; the environment and the files are read in ``sources`` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from keyproxy.errors import SettingsFault, SettingsFaults
from keyproxy.key_forms import Secret
from keyproxy.settings.consistency import bound_answers, faults
from keyproxy.settings.grammar import Unfit, shown, text_in
from keyproxy.settings.layers import name_faults
from keyproxy.settings.lines import of_app
from keyproxy.settings.setting import (
    SAY_IT,
    Derived,
    Mode,
    Setting,
    fault_of,
    parsed,
    text_of,
    unsaid,
)
from keyproxy.settings.table import DEFAULT_APP, Table, row_of, rows

NO_APPS: Mapping[str, Mapping[str, str]] = MappingProxyType({})
NOWHERE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Table):
    """Everything that can be set, validated. Made by ``from_environ``.

    What the environment sets is the app ``default``. ``apps`` are the other ones, each with the
    settings as they hold for it.
    """

    mode: Mode
    name: str = DEFAULT_APP
    apps: tuple[Settings, ...] = ()
    # By variable, in the words of ``layers``; what is missing was never said.
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_environ(
        cls,
        mode: Mode,
        environ: Mapping[str, str],
        apps: Mapping[str, Mapping[str, str]] = NO_APPS,
        *,
        places: Mapping[str, str] = NOWHERE,
        directory: Path = Path(),
        read_file: Callable[[Path], bytes] = Path.read_bytes,
    ) -> Self:
        """Settings from a mapping of variables; others than ours may be in it.

        ``apps``: for each app beside the default one, what it says itself, by variable.
        ``places``: where the variables of ``environ`` stand, in the words of ``layers``.
        Relative paths are taken from ``directory``. ``read_file`` gives a file's content or
        raises ``Unfit`` or ``OSError``. Raises ``SettingsFaults`` with every fault at once.
        """
        table = {each.name: rows()[each.name] for each in fields(Table)}
        reading = Reading(table, mode, environ, directory, read_file)
        values = reading.values()
        said = {name: reading.app_values(name, text, values) for name, text in apps.items()}
        bound_answers(values, environ)
        for name, theirs in said.items():
            bound_answers(theirs, {**environ, **apps[name]})
        reading.faults += faults(mode, environ, values, apps, said)
        if reading.faults:
            raise SettingsFaults(reading.faults)
        default = cls(mode=mode, places=dict(places), **values)
        named = [
            replace(default, name=name, places=_in_table(name, apps[name], places), **theirs)
            for name, theirs in said.items()
        ]
        return replace(default, apps=tuple(named))

    @property
    def all_apps(self) -> tuple[Settings, ...]:
        """The settings of each app, the default app's first."""
        return (self, *self.apps)

    @property
    def counts_money(self) -> bool:
        """Whether anything asks what a call of this app may cost: a budget, or the ledger."""
        return bool(self.budget or self.app_budget or self.total_budget or self.ledger)

    @property
    def all_keys(self) -> tuple[Secret, ...]:
        """The keys of all apps, each once."""
        return tuple(dict.fromkeys(key for app in self.all_apps for key in app.keys))

    def kept(self, **values: Any) -> Self:
        """These settings with ``values``, which hold for every app, in place of their own."""
        apps = tuple(replace(app, **values) for app in self.apps)
        return replace(self, apps=apps, **values)

    def reloaded(self, running: Self) -> tuple[Self, list[str]]:
        """These settings as a process takes them that is ``running`` with others, and the names
        of those that it would have to be restarted for."""
        stuck = {
            each.name: value
            for each in fields(Table)
            if rows()[each.name].needs_restart
            and (value := getattr(running, each.name)) != getattr(self, each.name)
        }
        return self.kept(**stuck), list(stuck)


def _in_table(name: str, said: Mapping[str, str], places: Mapping[str, str]) -> Mapping[str, str]:
    """Where the settings of an app stand; those that are its own can stand in its table only."""
    own = {variable for row in rows().values() if row.is_own for variable in row.variables}
    return {**places, **dict.fromkeys({*said, *own}, f"in [apps.{name}] of the TOML file")}


@dataclass(slots=True)
class Reading:
    """One pass over the table: variables in, values and all faults at once out.

    ``table``: rows by field name. ``read_file`` gives a file's content or raises ``Unfit`` or
    ``OSError``.
    """

    table: Mapping[str, Setting]
    mode: Mode
    environ: Mapping[str, str]
    directory: Path
    read_file: Callable[[Path], bytes]
    faults: list[SettingsFault] = field(default_factory=list)

    def values(self) -> dict[str, Any]:
        """Values by field name; those of faulty settings are missing."""
        if self.mode == "demo":
            # The demo has its own upstream: nothing said about the true one concerns it.
            ours = {
                name for row in self.table.values() if row.is_upstream for name in row.variables
            }
            self.environ = {k: v for k, v in self.environ.items() if k not in ours}
        values = self._read({})
        self.faults += name_faults(self.environ, [row.variable for row in rows().values()])
        return values

    def app_values(
        self, name: str, said: Mapping[str, str], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Values of the app ``name`` by field name: what it says, over what the default app has.

        ``said``: variable -> text; ``given``: the default app's values. Of the faults those are
        kept that the app itself can mend.
        """
        own = {field: row for field, row in self.table.items() if row.is_app}
        if self.mode == "demo":
            own = {field: row for field, row in own.items() if not row.is_upstream}
        environ = {**self._inherited(own.values(), said), **said}
        app = Reading(own, self.mode, environ, self.directory, self.read_file)
        values = app._read(given)
        for fault in app.faults:
            if fault.variable in said:
                self.faults.append(of_app(fault, name))
        return {field: values[field] for field in own if field in values}

    def _inherited(self, rows: Iterable[Setting], said: Mapping[str, str]) -> dict[str, str]:
        """What was said of the default app and holds for one that says ``said``."""
        rows = tuple(rows)
        answered = [row for row in rows if any(name in said for name in row.variables)]
        # Another issuer's tokens have another audience.
        families = {row.family for row in answered if row.family and row.instead}
        forgotten = [row for row in rows if row.is_own or row in answered or row.family in families]
        names = {name for row in rows if row not in forgotten for name in row.variables}
        return {name: text for name, text in self.environ.items() if name in names}

    def _read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        values = dict(given)
        for name, setting in self.table.items():
            values.pop(name, None)
            try:
                values[name] = self._value(setting, values)
            except SettingsFault as fault:
                self.faults.append(fault)
            except KeyError:
                continue  # follows from a faulty setting, which is reported already
        return values

    def _value(self, setting: Setting, values: Mapping[str, Any]) -> Any:
        if setting.file is not None and text_of(setting.file, self.environ):
            return self._in_file(setting, setting.file)
        text = text_of(setting, self.environ)
        if text:
            value = parsed(setting, text)
            return value if setting.content is None else self._checked(setting, value)
        default = setting.default(self.mode)
        if default is SAY_IT:
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

    def _in_file(self, setting: Setting, file: Setting) -> Any:
        """The value that the file named by ``file`` holds."""
        if text_of(setting, self.environ):
            raise SettingsFault(
                file.variable,
                found=f"set beside {setting.variable}",
                expected="one of the two",
            )
        path = text_of(file, self.environ)
        content = self._content(file, path)
        try:
            text = text_in(content)
        except Unfit as unfit:
            unfit.found = f"{shown(path)}{unfit.where}, which is {unfit.found}"
            raise fault_of(file, unfit, path) from None
        if setting.is_secret and not text.strip():
            trouble = Unfit(f"a file that holds {setting.meaning}", found="an empty file")
            raise fault_of(file, trouble, path)
        try:
            return setting.parse(text)
        except Unfit as unfit:
            unfit.found = f"a file with {unfit.found or 'something else'}"
            raise fault_of(file, unfit, path) from None

    def _checked(self, setting: Setting, path: Path | None) -> Path | None:
        """Where the file is that ``path`` names, which holds what it should."""
        if path is None or setting.content is None:
            return None
        content = self._content(setting, str(path))
        try:
            setting.content(content)
        except Unfit as unfit:
            raise fault_of(setting, unfit, str(path)) from None
        return self.directory / path

    def _content(self, row: Setting, path: str) -> bytes:
        try:
            return self.read_file(self.directory / path)
        except Unfit as unfit:
            raise fault_of(row, unfit, path) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no path"
            trouble = Unfit("a readable file", found=f"{shown(path)}: {reason}")
            raise fault_of(row, trouble, path) from None
