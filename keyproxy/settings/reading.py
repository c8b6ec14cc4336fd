"""One pass over the settings table: variables in, values and all faults at once out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keyproxy.errors import SettingsFault
from keyproxy.settings.grammar.base import Unfit, shown
from keyproxy.settings.grammar.texts import NoText, text_in
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
from keyproxy.settings.table import row_of, rows
from keyproxy.settings.variables import name_faults


@dataclass(slots=True)
class Reading:
    """``table``: rows by field name. ``read_file`` gives a file's content or raises ``Unfit`` or
    ``OSError``."""

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
        except NoText as unfit:
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
