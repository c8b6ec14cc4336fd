"""Whether a folder that browsers are given holds a provider's key: ``check --scan dist/``."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from keyproxy.commands.findings import Finding
from keyproxy.key_forms import SHARED_BEGINNING, WHOLE, Secret, owner
from keyproxy.settings.grammar import shown

# The letters of a key are ASCII, so that any bytes can be looked through as this.
_ENCODING = "latin-1"
_LARGEST_BYTES = 64 << 20  # a bundle with its source map has a tenth of it
_MOST_LINES = 20
"""Of a file, that are told of."""


def scan(folder: Path, own: Collection[Secret]) -> Iterator[Finding]:
    """What the files below ``folder`` hold of keys in any known form, and of ``own`` ones.

    Links are not followed, and what is no file is not opened. Nothing of a key is told but whose
    it is.
    """
    if not folder.is_dir():
        yield Finding("build", "error", f"{shown(str(folder))} is no folder")
        return
    failed: list[OSError] = []
    paths = list(_files(folder, failed.append))
    found = list(_found(folder, paths, own))
    found += [
        Finding("build", "error", f"{shown(str(fault.filename))}: {fault.strerror}")
        for fault in failed
    ]
    yield from found
    what = "were looked at" if found else "hold no provider's key"
    yield Finding("build", "fine", f"{len(paths)} files of {shown(str(folder))} {what}")


def _found(folder: Path, paths: Iterable[Path], own: Collection[Secret]) -> Iterator[Finding]:
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            about = path.lstat()
            if not stat.S_ISREG(about.st_mode):
                yield Finding("build", "warning", f"{shown(name)} is a pipe or a device")
                continue
            if about.st_size > _LARGEST_BYTES:
                yield Finding("build", "warning", f"{shown(name)} is too large to be looked at")
                continue
            text = path.read_text(_ENCODING)
        except OSError as error:
            yield Finding("build", "error", f"{shown(name)}: {error.strerror}")
            continue
        yield from _in_text(name, text, own)


def _files(folder: Path, failed: Callable[[OSError], None]) -> Iterator[Path]:
    """``failed`` is told of folders that cannot be looked into."""
    for parent, folders, names in os.walk(folder, onerror=failed):
        folders.sort()
        paths = (Path(parent, name) for name in sorted(names))
        yield from (path for path in paths if not path.is_symlink())


def _in_text(name: str, text: str, own: Collection[Secret]) -> Iterator[Finding]:
    cure = "make a new one, and give that to keyproxy only: what a browser gets, everybody has"
    told: set[tuple[str, int]] = set()
    line, counted_to = 1, 0
    for match in re.finditer(WHOLE, text, re.ASCII):
        key = match.group()
        line += text.count("\n", counted_to, match.start())
        counted_to = match.start()
        whose = owner(key) or "a provider"
        if (whose, line) in told:
            continue
        if len(told) == _MOST_LINES:
            yield Finding("build", "error", f"{shown(name)}: more keys behind these", cure)
            return
        told.add((whose, line))
        text_of = f"{shown(name)}, line {line}: a key of {whose}'s"
        if key.startswith(SHARED_BEGINNING) and Secret(key) not in own:
            hint = "fine if it is Firebase's or Maps' and restricted there; Gemini's must not be"
            yield Finding("build", "warning", text_of, hint)
        else:
            yield Finding("build", "error", text_of, cure)
    if not told and any(key.is_in(text) for key in own):
        yield Finding("build", "error", f"{shown(name)}: the key that keyproxy holds", cure)
