"""``keyproxy check``: are the settings right, and does the key work?

Asks the upstream's free ``GET /key``; never prints a key beyond its label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from keyproxy.commands import git, line
from keyproxy.errors import SettingsFaults
from keyproxy.settings import summary
from keyproxy.settings.advice import odd


def main(arguments: Sequence[str]) -> int:
    parser = line.parser("check", "Exit code 0: fine, 1: key or upstream, 2: settings.")
    parser.add_argument(
        "--serve", action="store_true", help="check for keyproxy serve instead of keyproxy dev"
    )
    parser.add_argument(
        "--send-test-alert",
        action="store_true",
        help="also send an alert named test to KEYPROXY_ALERT_URL, and say whether it was taken",
    )
    given = line.parse(parser, arguments, ["dev", "serve"])
    sources = given.sources("serve" if given.flags.serve else "dev")
    try:
        settings = sources.read()
    except SettingsFaults as faults:
        return line.report("check", faults)
    print(f"settings: fine for keyproxy {sources.mode}")
    for app in settings.all_apps:
        print(f"app {app.name}")
        line.print_columns(summary.of_app(app).items(), indent=2)
    seen = _seen_by_git(sources.secret_files())
    for warning in (*sources.warnings(), *odd(settings), *seen):
        print(f"warning: {warning}")
    # The HTTP client; --help need not load it.
    from keyproxy.commands.alert_test import send_test_alert
    from keyproxy.commands.key_report import report_keys

    try:
        found = report_keys(settings)
        return max(found, send_test_alert(settings)) if given.flags.send_test_alert else found
    except KeyboardInterrupt:
        return 1


def _seen_by_git(paths: Sequence[Path]) -> Iterator[str]:
    """A warning for each of ``paths`` that a commit could take along."""
    for path in paths:
        if git.is_ignored(path) is False:
            cure = "add it to .gitignore before it is committed"
            yield f"{path.name} is not ignored by git; {cure}"
