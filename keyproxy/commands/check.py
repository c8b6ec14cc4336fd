"""``keyproxy check``: are the settings right, and does the key work?

Asks the upstream's free ``GET /key``; never prints a key beyond its label.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from keyproxy.commands import line
from keyproxy.errors import SettingsFaults
from keyproxy.settings import Mode, summary
from keyproxy.settings.advice import odd
from keyproxy.settings.sources import Sources

SUMMARY = "report every fault of the settings, and ask the upstream whether the key works"


def main(arguments: Sequence[str]) -> int:
    parser = line.parser("check", f"{SUMMARY}. Exit code 0: fine, 1: key or upstream, 2: settings.")
    parser.add_argument(
        "--serve", action="store_true", help="check for keyproxy serve instead of keyproxy dev"
    )
    line.add_settings(parser, ["dev", "serve"])
    given = line.parse(parser, arguments)
    mode: Mode = "serve" if given.flags.serve else "dev"
    sources = Sources.of_process(mode, given.options, given.env_file)
    try:
        settings = sources.read()
    except SettingsFaults as faults:
        return line.report("check", faults)
    print(f"settings: fine for keyproxy {mode}")
    for app in settings.all_apps:
        print(f"app {app.name}")
        line.print_columns(summary.of_app(app).items(), indent=2)
    for warning in (
        *sources.warnings(),
        *odd(settings),
        *_seen_by_git(sources.secret_files()),
    ):
        print(f"warning: {warning}")
    from keyproxy.commands.key_report import report_keys  # the HTTP client; --help need not load it

    try:
        return report_keys(settings)
    except KeyboardInterrupt:
        return 1


def _seen_by_git(paths: Sequence[Path]) -> list[str]:
    """A warning for each of ``paths`` that a commit could take along."""
    git = shutil.which("git")
    if git is None:
        return []
    return [
        f"{path.name} is not ignored by git; add it to .gitignore before it is committed"
        for path in paths
        if _is_seen(git, path)
    ]


def _is_seen(git: str, path: Path) -> bool:
    command = [git, "check-ignore", "--quiet", "--", path.name]
    try:
        done = subprocess.run(command, cwd=path.parent, capture_output=True, timeout=5)  # noqa: S603  # our own words and a file's name
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 1  # 0: ignored, 128: no work tree
