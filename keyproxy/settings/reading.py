"""One pass over the settings table: variables in, values and all faults at once out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keyproxy.errors import SettingsFault
from keyproxy.settings.grammar.base import Unfit, shown
from keyproxy.settings.grammar.keys import misnamed
from keyproxy.settings.grammar.network import certificates
from keyproxy.settings.grammar.sessions import MAKING
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
from keyproxy.settings.variables import name_faults

# For a page that anybody may open.
_SAFEST = {
    "KEYPROXY_CLIENT_AUTH": "session",
    "KEYPROXY_SESSION_SECRET": f"$({MAKING})",
    "KEYPROXY_TOTAL_BUDGET": "5/day",
}


@dataclass(slots=True)
class Reading:
    """``table``: rows by field name. ``known``: every variable there is.

    ``read_file`` gives a file's content or raises ``Unfit`` or ``OSError``.
    """

    table: Mapping[str, Setting]
    known: Collection[str]
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
        self.faults += name_faults(self.environ, self.known)
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
        app = Reading(own, self.known, self.mode, environ, self.directory, self.read_file)
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
                values[name] = self._value(name, setting, values)
            except SettingsFault as fault:
                if name == "client_auth" and self.mode == "serve" and fault.paste == setting.paste:
                    fault.paste = f"{setting.variable}={_SAFEST[setting.variable]}"
                self.faults.append(fault)
            except KeyError:
                continue  # follows from a faulty setting, which is reported already
        return values

    def _value(self, name: str, setting: Setting, values: Mapping[str, Any]) -> Any:
        if setting.file is not None and text_of(setting.file, self.environ):
            return self._in_file(setting, setting.file)
        text = text_of(setting, self.environ)
        if text:
            value = parsed(setting, text)
            return self._ca_file(setting, value) if name == "upstream_ca_file" else value
        default = setting.default(self.mode)
        if default is SAY_IT:
            return self._unsaid(name, setting)
        if isinstance(default, Derived):
            return default.of(values[default.source])
        return None if default is None else setting.parse(default)

    def _unsaid(self, name: str, setting: Setting) -> tuple[Any, ...]:
        if name == "keys" and self.mode == "demo":
            return ()
        other = self.environ.get(setting.instead or "", "").strip()
        if name == "trusted_proxies" and other not in {"", "0"}:
            return ()
        if name == "client_auth":
            raise self._who_may_call(setting)
        if name == "keys" and (near := misnamed(self.environ)):
            raise SettingsFault(
                setting.variable,
                found=f"not set, but {near} is",
                expected=f"the same under this name: keyproxy does not read {near}",
                paste=setting.paste,
            )
        raise unsaid(setting)

    def _who_may_call(self, setting: Setting) -> SettingsFault:
        """The question with its safest answer, and with what is asked once that is given."""
        lines = [
            f"{variable}={answer}"
            for variable, answer in _SAFEST.items()
            if not any(self.environ.get(v, "").strip() for v in (variable, f"{variable}_FILE"))
        ]
        is_made = any("$(" in text for text in lines)
        how = "; a shell runs what stands in $(…), a file wants what that prints" if is_made else ""
        return SettingsFault(
            setting.variable,
            expected="how a caller proves who it is: session (a public page), jwt (a log-in of"
            " yours: docs/jwt.md), token (known devices: keyproxy token makes one) or none (whoever"
            f" reaches it may call; say KEYPROXY_TOTAL_BUDGET too){how}",
            paste="\n".join(lines),
        )

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

    def _ca_file(self, setting: Setting, path: Path | None) -> Path | None:
        if path is None:
            return None
        content = self._content(setting, str(path))
        try:
            certificates(content)
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
