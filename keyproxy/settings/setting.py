"""What a row of the settings table is, and how its variable becomes a value or a fault."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from keyproxy.dataclass import Field, dataclass, field, replace
from keyproxy.errors import SettingsFault
from keyproxy.settings.grammar import NotInstalled, Unfit, mask, shown
from keyproxy.settings.grammar.plain import file_path
from keyproxy.settings.grammar.secrets import KEYS_PAGE, MAKING, misnamed

Mode = Literal["dev", "serve", "demo"]
_UNIT = re.compile("_(seconds|bytes|days)$")
# For a page that anybody may open. The secret is no text of ours: whoever pastes it makes it.
_SAFEST = {
    "KEYPROXY_CLIENT_AUTH": "session",
    "KEYPROXY_SESSION_SECRET": f"$({MAKING})",
    "KEYPROXY_TOTAL_BUDGET": "5/day",
}


SAY_IT = "it must be said"
"""In the place of a default: there is none, and the operator must say it."""


@dataclass(frozen=True, slots=True)
class Derived:
    """A default that follows from the value of another field, with the words that say so."""

    words: str
    source: str
    of: Callable[[Any], Any]


Unsaid = Callable[["Setting", Mapping[str, str]], SettingsFault]
Default = str | Derived | None


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: all that is to be known of a setting but its field's name and its type.

    ``dev`` and ``serve`` are defaults in the setting's own grammar; None is unset.
    """

    parse: Callable[[str], Any]
    metavar: str
    dev: Default
    serve: Default
    meaning: str
    example: str
    group: str = ""
    variable: str = ""
    separator: str = ""  # between the entries of a list; "" is no list
    has_names: bool = False  # name=value, by comma; a table in the TOML file
    needs_restart: bool = False  # a reload leaves it as it was
    is_secret: bool = False
    is_upstream: bool = False  # concerns the true upstream, which the demo does not have
    is_app: bool = False  # each app may say it for itself
    is_own: bool = False  # an app that does not say it has none, whatever the default app has
    instead: str | None = None  # another variable that answers the same question
    family: str | None = None  # settings that describe one thing together
    provider: str | None = None  # whose key it is: nobody's is asked for who is not used
    unsaid: Unsaid | None = None  # the fault where it must be said and is not
    content: Callable[[bytes], None] | None = None  # checks the file that the value names
    in_file: str | None = None  # the meaning of another variable, which names a file with the value

    def default(self, mode: Mode) -> Default:
        return self.serve if mode == "serve" else self.dev

    @property
    def file(self) -> Setting | None:
        """The row of the variable that names a file with the value."""
        if self.in_file is None:
            return None
        example = f"/run/secrets/{self.variable.lower()}"
        row = Setting(file_path, "FILE", None, None, self.in_file, example, self.group)
        return replace(
            row,
            variable=f"{self.variable}_FILE",
            needs_restart=self.needs_restart,
            is_upstream=self.is_upstream,
            is_app=self.is_app,
        )

    @property
    def variables(self) -> tuple[str, ...]:
        """The variable, and the one that names a file with its value."""
        return (self.variable,) if self.file is None else (self.variable, self.file.variable)

    @property
    def option(self) -> str:
        """``--max-body`` for ``KEYPROXY_MAX_BODY``."""
        return "--" + toml_key(self.variable).replace("_", "-")

    @property
    def paste(self) -> str | None:
        """A line with the example; None for a secret that has no form of its own to show."""
        return None if self.example == "…" else f"{self.variable}={self.example}"


def toml_key(variable: str) -> str:
    """``max_body`` for ``KEYPROXY_MAX_BODY``: the name of a setting in a TOML file."""
    return variable.removeprefix("KEYPROXY_").lower()


def spoken(default: Default) -> str:
    """A default as help and documentation say it."""
    if isinstance(default, Derived):
        return default.words
    return "not set" if default is None else default


def setting(
    parse: Callable[[str], Any],
    metavar: str,
    dev: Default,
    serve: Default = None,
    *,
    meaning: str,
    section: str = "",
    example: str | None = None,
    **more: Any,
) -> Any:
    """A field of the table. ``serve`` is as ``dev`` unless given, and the example is a default.

    ``section``: what this row and those that follow are about. ``more``: as in ``Setting``.
    """
    in_serve = dev if serve is None else serve
    if example is None:
        example = next(each for each in (dev, in_serve) if isinstance(each, str) and each != SAY_IT)
    row = Setting(parse, metavar, dev, in_serve, meaning, example, group=section, **more)
    return field(metadata={"row": row})


def finished(fields: Iterable[Field[Any]]) -> dict[str, Setting]:
    """The rows of a table's fields by their names, with those that name files.

    The variable is the field's name without its unit where the row gives no other.
    """
    rows: dict[str, Setting] = {}
    group = ""
    for each in fields:
        row: Setting = each.metadata["row"]
        group = row.group or group
        variable = row.variable or f"KEYPROXY_{_UNIT.sub('', each.name).upper()}"
        rows[each.name] = row = replace(row, group=group, variable=variable)
        if row.file is not None:
            rows[f"{each.name}_file"] = row.file
    return rows


def text_of(setting: Setting, environ: Mapping[str, str]) -> str:
    """What is said of a setting; "" is nothing. A secret's own blanks are kept to be found."""
    text = environ.get(setting.variable, "")
    return text if setting.is_secret and text.strip() else text.strip()


def fault_of(setting: Setting, unfit: Unfit, text: str) -> SettingsFault:
    """The fault that tells the operator what is wrong with ``text`` and what to write instead."""
    shown_text = "set (not shown)" if setting.is_secret else shown(text)
    paste = setting.paste if unfit.value is None else f"{setting.variable}={unfit.value}"
    paste = unfit.line or paste
    return SettingsFault(
        setting.variable,
        found=shown_text if unfit.found is None else unfit.found,
        expected=mask(unfit.expected),
        # A corrected line repeats what was found, which may be a key in the wrong place.
        paste=paste if isinstance(unfit, NotInstalled) or mask(paste or "") == paste else None,
    )


def unsaid(setting: Setting, environ: Mapping[str, str]) -> SettingsFault:
    """The fault of a setting that must be said and is not."""
    also = f" (or {setting.instead})" if setting.instead else ""
    return SettingsFault(setting.variable, expected=f"{setting.meaning}{also}", paste=setting.paste)


def which_key(setting: Setting, environ: Mapping[str, str]) -> SettingsFault:
    """The question for the key, which may stand under another name."""
    near = misnamed(environ)
    if near is None:
        fault = unsaid(setting, environ)
        fault.expected += f"; from {KEYS_PAGE}; keyproxy init asks for it, keyproxy demo needs none"
        return fault
    return SettingsFault(
        setting.variable,
        found=f"not set, but {near} is",
        expected=f"the same under this name: keyproxy does not read {near}",
        paste=setting.paste,
    )


def who_may_call(setting: Setting, environ: Mapping[str, str]) -> SettingsFault:
    """The question with its safest answer, and with what is asked once that is given."""
    lines = [
        f"{variable}={answer}"
        for variable, answer in _SAFEST.items()
        if not any(environ.get(v, "").strip() for v in (variable, f"{variable}_FILE"))
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
