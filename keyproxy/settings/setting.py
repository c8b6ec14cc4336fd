"""What a row of the settings table is, and how its variable becomes a value or a fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from keyproxy.errors import SettingsFault
from keyproxy.settings.grammar.base import NotInstalled, Unfit, mask, shown
from keyproxy.settings.grammar.network import file_path

Mode = Literal["dev", "serve", "demo"]


class _SayIt(Enum):
    SAY_IT = "say it"


SAY_IT = _SayIt.SAY_IT


@dataclass(frozen=True, slots=True)
class Derived:
    """A default that follows from the value of another field, with the words that say so."""

    words: str
    source: str
    of: Callable[[Any], Any]


Default = str | Literal[_SayIt.SAY_IT] | Derived | None


@dataclass(frozen=True, slots=True)
class Setting:
    """One row. ``dev`` and ``serve`` are defaults in the setting's own grammar; None is unset."""

    group: str
    variable: str
    parse: Callable[[str], Any]
    meaning: str
    example: str
    dev: Default
    serve: Default
    is_secret: bool = False
    is_upstream: bool = False  # concerns the true upstream, which the demo does not have
    instead: str | None = None  # another variable that answers the same question
    file: Setting | None = None  # names a file that holds the value
    is_app: bool = False  # each app may say it for itself
    is_own: bool = False  # an app that does not say it has none, whatever the default app has
    family: str | None = None  # settings that describe one thing together

    def default(self, mode: Mode) -> Default:
        return self.serve if mode == "serve" else self.dev

    @property
    def variables(self) -> tuple[str, ...]:
        """The variable, and the one that names a file with its value."""
        return (self.variable,) if self.file is None else (self.variable, self.file.variable)

    @property
    def paste(self) -> str | None:
        """A line with the example; None for a secret that has no form of its own to show."""
        return None if self.example == "…" else f"{self.variable}={self.example}"


def spoken(default: Default) -> str:
    """A default as help and documentation say it."""
    if default is SAY_IT:
        return "say it"
    if isinstance(default, Derived):
        return default.words
    return "not set" if default is None else default


class _Same(Enum):
    SAME = "same"


def row(
    group: str,
    variable: str,
    parse: Callable[[str], Any],
    meaning: str,
    example: str,
    dev: Default,
    serve: Default | Literal[_Same.SAME] = _Same.SAME,
    *,
    in_file: str | None = None,
    **more: Any,
) -> dict[str, Setting]:
    """The metadata of one field; ``serve`` is as ``dev`` unless given.

    ``in_file`` is the meaning of a second variable, ``…_FILE``, which names a file with the value.
    """
    column = dev if serve is _Same.SAME else serve
    file = None
    if in_file is not None:
        file = Setting(
            group,
            f"{variable}_FILE",
            file_path,
            in_file,
            f"/run/secrets/{variable.lower()}",
            None,
            None,
            is_upstream=more.get("is_upstream", False),
            is_app=more.get("is_app", False),
        )
    setting = Setting(group, variable, parse, meaning, example, dev, column, file=file, **more)
    return {"row": setting}


def text_of(setting: Setting, environ: Mapping[str, str]) -> str:
    """What is said of a setting; "" is nothing. A secret's own blanks are kept to be found."""
    text = environ.get(setting.variable, "")
    return text if setting.is_secret and text.strip() else text.strip()


def parsed(setting: Setting, text: str) -> Any:
    """The value of ``text``. Raises ``SettingsFault``."""
    try:
        return setting.parse(text)
    except Unfit as unfit:
        raise fault_of(setting, unfit, text) from None


def fault_of(setting: Setting, unfit: Unfit, text: str) -> SettingsFault:
    """The fault that tells the operator what is wrong with ``text`` and what to write instead."""
    found = unfit.found
    if found is None:
        found = "set (not shown)" if setting.is_secret else shown(text)
    paste = setting.paste if unfit.value is None else f"{setting.variable}={unfit.value}"
    paste = unfit.line or paste
    return SettingsFault(
        setting.variable,
        found=found,
        expected=mask(unfit.expected),
        # A corrected line repeats what was found, which may be a key in the wrong place.
        paste=paste if isinstance(unfit, NotInstalled) or mask(paste or "") == paste else None,
    )


def unsaid(setting: Setting) -> SettingsFault:
    """The fault of a setting that must be said and is not."""
    also = f" (or {setting.instead})" if setting.instead else ""
    return SettingsFault(setting.variable, expected=f"{setting.meaning}{also}", paste=setting.paste)
