"""Settings as they hold: validated, the default app's and those of each other app.

Built from any mapping of variables; the environment and the files are read in ``sources`` only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from keyproxy.errors import SettingsFaults
from keyproxy.key_forms import Secret
from keyproxy.settings.consistency import bound_answers, faults
from keyproxy.settings.reading import Reading
from keyproxy.settings.setting import Mode
from keyproxy.settings.table import Table, rows

DEFAULT_APP = "default"
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
