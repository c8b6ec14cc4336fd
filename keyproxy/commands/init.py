"""``keyproxy init``: the files that a project begins with; nothing that is there is overwritten.

Asks who calls, or takes options; what to write is ``beginning``'s.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from keyproxy.commands import git, line
from keyproxy.commands.beginning import AUDIENCES, ENV, SERVE_ENV, Beginning, hosts_of
from keyproxy.commands.file_changes import Change
from keyproxy.commands.frameworks import framework_in
from keyproxy.console import printable
from keyproxy.errors import SettingsFault, SettingsFaults
from keyproxy.folders import project_name, user_folder
from keyproxy.settings import ROWS, lines
from keyproxy.settings.grammar import Unfit, secrets
from keyproxy.settings.setting import Mode, Setting, fault_of, text_of, unsaid
from keyproxy.settings.sources import Sources

_YES = ("", "y", "yes")
_BASE = "http://localhost:8484/api/v1"
_QUESTIONS = {
    "allowed_origins": "The origin of the live page, such as https://app.example.com",
    "allowed_hosts": "The name keyproxy is reached by, such as api.example.com",
    "allowed_models": "The models that may be called; * stands for anything",
    "jwt_jwks_url": "The address of your log-in's key set (docs/jwt.md has those of vendors)",
    "jwt_issuer": "The issuer (iss) of its JWTs, letter by letter",
    "jwt_audiences": "The audience (aud) of its JWTs",
}
"""By the fields of settings that ``init`` has options for."""


def main(arguments: Sequence[str]) -> int:
    parser = line.parser(
        "init",
        "Writes .env for keyproxy dev and, for others than you, .env.serve for keyproxy serve; the"
        " key goes into a file of your config folder. Nothing is overwritten. Exit code 0: done,"
        " 1: nothing was written, 2: settings.",
    )
    parser.usage = f"{parser.prog} [OPTIONS]"
    who = "; ".join(f"{name}: {each.words}" for name, each in AUDIENCES.items())
    parser.add_argument("--for", dest="audience", choices=AUDIENCES, help=f"who calls: {who}")
    parser.flag("--yes", "ask nothing; the key is left to paste")
    in_env = "write the key into .env itself, where bundlers and copies of the folder find it"
    parser.flag("--key-in-env", in_env)
    group = parser.add_argument_group("What the files say")
    for field in _QUESTIONS:
        line.add_setting(group, ROWS[field], ["serve"])
    given = line.parse(parser, arguments)
    try:
        return _init(given, Path.cwd())
    except SettingsFaults as faults:
        return line.report("init", faults)
    except (EOFError, KeyboardInterrupt):
        why = "nothing was written"
    except OSError as error:
        why = f"{printable(error.filename)} cannot be written: {error.strerror}"
    print(file=sys.stderr)  # behind a question
    return line.fail("init", why)


def _init(given: line.Given, directory: Path) -> int:
    if tracked := [name for name in (ENV, SERVE_ENV) if git.is_tracked(directory / name)]:
        return line.fail("init", _tracked(tracked[0]))
    is_asking = not given.flags.yes
    if is_asking and not sys.stdin.isatty():
        return line.fail("init", "no terminal to ask on; give options and --yes")
    config = user_folder("config")
    if config is None:
        return line.fail("init", "no home for a config folder; set HOME")
    audience = given.flags.audience or (_which_audience() if is_asking else "me")
    answers = _answers(audience, given.options, is_asking)
    folder = config / project_name(directory)
    beginning = Beginning(directory, folder, audience, answers, given.flags.key_in_env)
    has_key = beginning.has_key()
    key = _asked_key(beginning.key_place) if is_asking and not has_key else ""
    from keyproxy.clients import credentials  # --help need not load it

    token, stored = credentials.make_token("app")
    found = beginning.changes(key, stored.pair)
    changes = [each for each in found if each.is_new or each.added or each.kept]
    if link := next((each.path for each in changes if each.path.is_symlink()), None):
        what = f"{link.name} is a link to {printable(os.readlink(link))}, and stays as it is"
        return line.fail("init", f"{what}; nothing was written")
    _show(changes, directory)
    if is_asking and changes and input("\nWrite this? [Y/n] ").strip().lower() not in _YES:
        raise EOFError
    for change in changes:
        change.make()
    if any(stored.pair in change.added for change in changes):
        print(f"\nThe client token of the app, shown this once:\n\n  {token}")
    awaited = None if key or has_key else beginning.key_place
    return _report_faults(beginning, awaited) or _say_what_next(beginning, awaited)


def _tracked(name: str) -> str:
    return (
        f"{name} is tracked by git, so what stands in it is in every clone, and its"
        " history keeps it. Nothing was written. Take it out, and make each secret in it anew:\n\n"
        f"    git rm --cached {name} && git commit -m 'Take {name} out'\n"
        f"    {secrets.KEYS_PAGE}"
    )


def _which_audience() -> str:
    print("Who calls?")
    for name, audience in AUDIENCES.items():
        print(f"  {name:<6} {audience.words}")
    while (answer := input("[me] ").strip() or "me") not in AUDIENCES:
        print(f"  one of {', '.join(AUDIENCES)}")
    return answer


def _answers(audience: str, options: Mapping[str, str], is_asking: bool) -> dict[str, str]:
    """The text of each setting that an option gave or a question asks for, by field name.

    Raises ``SettingsFaults`` for what an option says wrong, or no option says.
    """
    answers: dict[str, str] = {}
    faults = []
    for field, question in _QUESTIONS.items():
        row, default = ROWS[field], AUDIENCES[audience].asks.get(field)
        text = text_of(row, options)
        origins = answers.get("allowed_origins")
        if field == "allowed_hosts" and audience != "me" and origins:
            default = None if hosts_of(origins) else ""
        if not text and default is None:
            continue
        try:
            if text or not is_asking:
                answers[field] = _fitting(row, text or default or "", options)
            else:
                answers[field] = _asked(row, question, default or "")
        except SettingsFault as fault:
            faults.append(lines.placed(fault, {row.variable: lines.COMMAND_LINE}))
    if faults:
        raise SettingsFaults(faults)
    return answers


def _fitting(row: Setting, text: str, options: Mapping[str, str]) -> str:
    if not text:
        raise unsaid(row, options)
    try:
        row.parse(text)
    except Unfit as unfit:
        raise fault_of(row, unfit, text) from None
    return text


def _asked(row: Setting, question: str, default: str) -> str:
    """The answer to a question, asked until it fits."""
    while True:
        answer = input(f"{question}\n[{default}] " if default else f"{question}\n> ").strip()
        try:
            return _fitting(row, answer or default, {})
        except SettingsFault as fault:
            print(f"  {fault}")


def _asked_key(place: Path) -> str:
    """The key as it was typed or pasted, which no screen shows; "" where it was left to later."""
    print(f"The key, from {secrets.KEYS_PAGE}; give it a credit limit there. It goes into\n{place}")
    while key := getpass.getpass("(not shown; empty: later) ").strip():
        try:
            secrets.keys(key)
        except Unfit as unfit:
            print(f"  {unfit.found}; expected: {unfit.expected}")
        else:
            return key
    return ""


def _show(changes: Sequence[Change], directory: Path) -> None:
    for change in changes:
        path = change.path
        name = path.name if path.parent == directory else path
        print(f"\n{name}{' (new)' if change.is_new else ''}")
        for text in change.shown:
            print(f"  {text}")
        if change.kept:
            print("  is otherwise already, and stays so; change it yourself where you want:")
        for text in change.kept:
            print(f"  {text}")
    if not changes:
        print("All is there already; nothing to write.")


def _report_faults(beginning: Beginning, awaited: Path | None) -> int:
    """Report what ``keyproxy dev`` and ``serve`` will find wrong, but for a key that is ``awaited``
    in a file; the exit code."""
    for name in beginning.env_names:
        mode: Mode = "serve" if name == SERVE_ENV else "dev"
        sources = Sources.of_process(mode, {}, Path(name) if mode == "serve" else None)
        try:
            sources.read()
        except SettingsFaults as found:
            known = () if awaited is None else (secrets.KEY, secrets.KEY_FILE)
            if faults := [fault for fault in found.faults if fault.variable not in known]:
                print()
                return line.report(mode, SettingsFaults(faults))
    return 0


def _say_what_next(beginning: Beginning, awaited: Path | None) -> int:
    steps = [
        ("keyproxy check", "whether all is well"),
        ("keyproxy dev", f"run it here; pages call {_BASE}"),
    ]
    print("\nNext")
    if awaited is not None:
        print(f"  paste the key into {awaited}")
        steps.append(("keyproxy demo", "the same without a key, with made-up answers"))
    if SERVE_ENV in beginning.env_names:
        file = f"--env-file {SERVE_ENV}"
        steps.append((f"keyproxy check --serve {file}", "whether all is well for others"))
        steps.append((f"keyproxy serve {file}", "run it for others"))
    found = Sources.of_process("dev", {}).look()
    for name in (secrets.KEY, secrets.KEY_FILE):
        text, place = found.said(name)
        if text and place != f"in {ENV}":
            print(
                f"  {name} {place or 'of the environment'} counts before {ENV}: take it out there"
            )
    line.print_columns(steps, indent=2)
    if framework := framework_in(beginning.directory):
        address, client = framework.lines(_BASE)
        print(f"\n{framework.name}, with the SDK of `npm install openai`\n  {address}\n  {client}")
        if live := framework.live:
            print(
                f"  {live}: the same variable for a build, with the address where keyproxy is live"
            )
    return 0
