"""``keyproxy check``: are the settings right, does the key work, is the machine fit for it?

Asks the upstream's free ``GET /key``; never prints a key beyond its label. With ``--scan`` or
``--through`` it looks at that alone, which needs no settings.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from keyproxy.commands import findings, line
from keyproxy.commands.findings import Finding
from keyproxy.errors import SettingsFaults
from keyproxy.settings import ROWS, Settings, summary
from keyproxy.settings.advice import odd
from keyproxy.settings.setting import unsaid
from keyproxy.settings.sources import Sources


def main(arguments: Sequence[str]) -> int:
    parser = line.parser("check", "Exit code 0: fine, 1: key, upstream or machine, 2: settings.")
    parser.flag("--serve", "check for keyproxy serve instead of keyproxy dev")
    scan = "only: whether the files of a build, such as dist/, hold a provider's key"
    parser.option("--scan", "FOLDER", scan, type=Path)
    through = "only: whether a server in front of keyproxy demo hands streams on as they come"
    parser.option("--through", "URL", through)
    alert = "also send an alert named test to KEYPROXY_ALERT_URL, and say whether it was taken"
    parser.flag("--send-test-alert", alert)
    parser.flag("--json", "all findings as one JSON object")
    given = line.parse(parser, arguments, ["dev", "serve"])
    flags = given.flags
    if flags.through and not flags.through.startswith(("http://", "https://")):
        parser.error("--through: expected http:// or https:// and a host")
    sources = given.sources("serve" if flags.serve else "dev")
    try:
        if flags.scan or flags.through:
            return _tell(list(_asked_for(flags.scan, flags.through, sources)), is_json=flags.json)
        return _check(sources, flags)
    except KeyboardInterrupt:
        return 1


def _asked_for(folder: Path | None, url: str | None, sources: Sources) -> Iterator[Finding]:
    """What ``--scan`` and ``--through`` find."""
    if folder is not None:
        from keyproxy.commands.build_scan import scan

        try:
            own = sources.read().all_keys
        except SettingsFaults:
            own = ()  # keys in a known form are found all the same
        yield from scan(folder, own)
    if url is not None:
        import asyncio  # --help need not load it

        from keyproxy.commands.front_trial import through

        yield from asyncio.run(through(url))


def _check(sources: Sources, flags: Namespace) -> int:
    try:
        settings = sources.read()
        if flags.send_test_alert and settings.alert_url is None:
            raise SettingsFaults([unsaid(ROWS["alert_url"], {})])
    except SettingsFaults as faults:
        if not flags.json:
            return line.report("check", faults)
        print(findings.as_json(2, [Finding.of_fault(fault) for fault in faults.faults]))
        return 2
    apps = {app.name: summary.of_app(app) for app in settings.all_apps}
    if not flags.json:
        print(f"settings: fine for keyproxy {sources.mode}")
        for name, told in apps.items():
            print(f"app {name}")
            line.print_columns(told.items(), indent=2)
    import asyncio  # as above

    found = asyncio.run(_found(sources, settings, sends_alert=flags.send_test_alert))
    return _tell(found, is_json=flags.json, mode=sources.mode, apps=apps)


async def _found(sources: Sources, settings: Settings, *, sends_alert: bool) -> list[Finding]:
    # The HTTP client; --help need not load it.
    from keyproxy.commands import doctor, key_report

    warnings = (*sources.warnings(), *odd(settings))
    return [
        *(Finding.of_line("settings", f"warning: {warning}") for warning in warnings),
        Finding("alerts", "fine", summary.alerts(settings)),
        *doctor.of_git(sources.secret_files()),
        *await doctor.of_machine(settings),
        *await key_report.of_keys(settings),
        *([await doctor.of_test_alert(settings)] if sends_alert else ()),
    ]


def _tell(found: Sequence[Finding], *, is_json: bool, **more: object) -> int:
    """Print what was found, what belongs together below what it is about; the exit code."""
    code = findings.exit_code(found)
    if is_json:
        print(findings.as_json(code, found, **more))
        return code
    for about, group in groupby(found, key=lambda finding: finding.about):
        is_of_key = "key" in about.split()  # a provider's name may stand in front
        if is_of_key:
            print(about)
        for finding in group:
            if is_of_key:
                print(f"  {finding}")
            elif finding.grade == "fine":
                print(f"{about}: {finding}")
            else:
                print(finding)
    return code
