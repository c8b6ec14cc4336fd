"""Where settings come from: options, environment, ``.env.local``, ``.env``, TOML, defaults.

The only module that touches the environment and the files. Every ``read``
opens the files again by their paths, so that a replaced secret or a changed symlink is seen.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from keyproxy.dataclass import dataclass, field
from keyproxy.errors import SettingsFault, SettingsFaults
from keyproxy.settings import CONFIG, ROWS, Mode, Settings, lines, providers
from keyproxy.settings.grammar import Unfit, shown, text_in
from keyproxy.settings.grammar.secrets import KEY, misnamed
from keyproxy.settings.layers import Layer, merged, of_env_file, of_toml
from keyproxy.settings.setting import toml_key

ENV_FILES = (".env.local", ".env")
# No settings file is larger; reading a device such as /dev/zero would never end.
_LARGEST_FILE = 1 << 20
# Directories that development servers and bundlers hand out to browsers as they are.
_SERVED = frozenset({"public", "static", "dist", "www"})


@dataclass(frozen=True, slots=True)
class Found:
    """What stood in all places at one time: ``layers``, highest first, the TOML file's the last.

    ``toml`` is that file's name, "" where it is off; ``unread`` are faults of files that were to be
    read and cannot be; ``variables`` and their ``places`` are those of the layers together.
    """

    layers: Sequence[Layer]
    toml: str
    unread: Sequence[SettingsFault]
    variables: Mapping[str, str]
    places: Mapping[str, str]

    def said(self, variable: str) -> tuple[str, str]:
        """What is said of one variable, and where: "in .env"; "" is nothing."""
        return self.variables.get(variable, "").strip(), self.places.get(variable, "")


@dataclass(slots=True)
class Sources:
    """``options``: variable -> text from the command line; ``env_file`` replaces ``ENV_FILES``.

    Relative paths, those in the files included, are taken from ``directory``.
    """

    mode: Mode
    options: Mapping[str, str]
    environ: Mapping[str, str]
    directory: Path
    env_file: Path | None = None
    _opened: set[Path] = field(default_factory=set, init=False, repr=False)

    @classmethod
    def of_process(
        cls, mode: Mode, options: Mapping[str, str], env_file: Path | None = None
    ) -> Self:
        """Sources of this process: its environment and its working directory."""
        return cls(mode, options, os.environ, Path.cwd(), env_file)

    def read(self) -> Settings:
        """The settings as they are now. Raises ``SettingsFaults`` with every fault at once."""
        self._opened = set()
        found = self.look()
        faults = [fault for layer in found.layers for fault in layer.faults] + [*found.unread]
        try:
            settings = Settings.from_environ(
                self.mode,
                found.variables,
                found.layers[-1].apps,
                found.layers[-1].providers,
                found.layers[-1].routes,
                places=found.places,
                directory=self.directory,
                read_file=self._content,
            )
        except SettingsFaults as raised:
            # What is not set may be said in a file that could not be read.
            kept = [f for f in raised.faults if f.found is not None or not found.unread]
            faults += [lines.placed(fault, found.places) for fault in kept]
            raise SettingsFaults(faults) from None
        if faults:
            raise SettingsFaults(faults)
        return settings

    def fingerprint(self) -> Sequence[tuple[Path, bytes]]:
        """What changes when a file changes that ``read`` opened or looked for: digests."""
        if not self._opened:
            self.look()
        found = []
        for path in sorted(self._opened):
            try:
                content = read_file(path)
            except (OSError, ValueError) as error:
                content = type(error).__name__.encode()
            found.append((path, hashlib.blake2b(content).digest()))
        return found

    def why_no_key(self) -> str | None:
        """Where a key was looked for in vain, and where one stands that is not read; a line.

        None where the layers name the key, or a file that should hold it, of each provider that is
        used.
        """
        found = self.look()
        lacking = list(providers.lacking(found.variables, found.layers[-1].providers))
        if not lacking:
            return None
        places = ["environment", *self._env_names(), *filter(None, [found.toml])]
        are = "is" if len(lacking) == 1 else "are"
        looked = f"{', '.join(lacking)} {are} not set ({', '.join(places)})"
        if lacking != [KEY] or (name := misnamed(found.variables)) is None:
            return looked
        place = f" ({found.places[name]})" if found.places[name] else ""
        return f"{looked}; {name}{place} is not read: write {KEY}=… in its place"

    def secret_files(self) -> list[Path]:
        """The files that hold a secret or may: ``.env`` files, its own one, TOML with a secret."""
        names = [*self._env_names(), *(name for name, _ in self._secrets())]
        paths = dict.fromkeys(self.directory / name for name in names)
        return [path for path in paths if path.is_file()]

    def warnings(self) -> list[str]:
        """What should still be known of where secrets stand, a line each."""
        warnings = []
        for name, variable in self._secrets():
            if not variable.upper().endswith("_FILE"):
                what = "the key" if variable == KEY else variable
                warnings.append(
                    f"{what} itself stands in {name}, a file that gets copied and committed; name"
                    f" a file that holds it: {toml_key(variable)}_file"
                )
            elif not Path(name).is_absolute() and _SERVED & set(Path(name).parts[:-1]):
                warnings.append(f"{variable} lies where web servers hand files out; move it")
        return warnings

    def _secrets(self) -> list[tuple[str, str]]:
        """The files that hold a secret, each once, with the variable that stands in it (the TOML
        file) or names it."""
        found = self.look()
        apps = found.layers[-1].apps.values()
        held: dict[tuple[str, str], None] = {}
        for row in ROWS.values():
            if not row.is_secret or row.file is None:
                continue
            for table in (found.layers[-1].variables, *apps):
                text = table.get(row.variable, "")
                # An address holds one where it names a user.
                if text and ("://" not in text or "@" in text):
                    held[found.toml, row.variable] = None
            for table in (found.variables, *apps):
                if path := table.get(row.file.variable, "").strip():
                    held[path, row.file.variable] = None
        for provider, said in found.layers[-1].providers.items():
            if file := said.get("KEYPROXY_KEY_FILE"):
                held[file, f"providers.{provider}.key_file"] = None
        return list(held)

    def look(self) -> Found:
        """What all places say now."""
        unread: list[SettingsFault] = []
        layers = [Layer(lines.COMMAND_LINE, self.options), Layer("", self.environ)]
        for name in self._env_names():
            text = self._text(name, "--env-file" if self.env_file else None, unread)
            layers.append(of_env_file(name, text))
        # The layers so far may name the TOML file, or switch it off.
        named = merged(layers)[0].get(CONFIG.variable, "").strip()
        toml = "" if named == "off" else named or str(CONFIG.dev)
        text = self._text(toml, CONFIG.variable if named else None, unread) if toml else ""
        layers.append(of_toml(toml, text))
        return Found(layers, toml, unread, *merged(layers))

    def _env_names(self) -> tuple[str, ...]:
        return ENV_FILES if self.env_file is None else (str(self.env_file),)

    def _text(self, name: str, named_by: str | None, unread: list[SettingsFault]) -> str:
        """The text of a settings file; "" where it is faulty, or missing and not ``named_by``."""
        try:
            return text_in(self._content(self.directory / name))
        except (FileNotFoundError, NotADirectoryError):
            if named_by is None:
                return ""
            fault = SettingsFault(named_by, found=shown(name), expected="a file that exists")
        except (OSError, ValueError) as error:
            fault = fault_of_file(name, error)
        unread.append(fault)
        return ""

    def _content(self, path: Path) -> bytes:
        self._opened.add(path)
        return read_file(path)


def read_file(path: Path) -> bytes:
    """The content of a regular file. Raises ``Unfit`` with the cure, or ``OSError``."""
    name = shown(str(path))
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            expected = "a file (Docker makes an empty directory where a mounted file is missing)"
            raise Unfit(expected, found=f"{name}, a directory")
        if not stat.S_ISREG(mode):
            expected = "a regular file: it is read again whenever it changes"
            raise Unfit(expected, found=f"{name}, a pipe or a device")
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except PermissionError as error:
        raise _forbidden(path) from error
    if len(content) > _LARGEST_FILE:
        raise Unfit("a file of at most 1 MiB", found=f"{name}, a larger one")
    return content


def fault_of_file(name: str, error: Exception) -> SettingsFault:
    """The fault of a file of settings that cannot be read, which ``error`` says of it."""
    if isinstance(error, Unfit):
        name += error.where
        return SettingsFault(name, found=error.found, expected=error.expected, paste=error.line)
    reason = getattr(error, "strerror", None) or "no path"
    return SettingsFault(name, found=reason, expected="a readable file")


def _forbidden(path: Path) -> Unfit:
    """What the operator needs to know of a file that we may not read."""
    us = getattr(os, "geteuid", lambda: "unknown")()  # no uid on Windows
    try:
        about = path.stat()
    except OSError:
        return Unfit(
            f"a file that uid {us} can reach: chmod +x on the directories above it",
            found=f"{shown(str(path))} in a directory that uid {us} may not enter",
        )
    return Unfit(
        f"a file that uid {us} may read; in a container also: run it as uid {about.st_uid},"
        " or give the secret that uid or a mode",
        found=f"{shown(str(path))} with mode {stat.S_IMODE(about.st_mode):04o}, owner uid"
        f" {about.st_uid}, and we are uid {us}",
        line=f"chown {us} {path} && chmod 400 {path}",
    )
