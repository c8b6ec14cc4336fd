"""``keyproxy calls``: single calls, found in the ledger by id, client, time, status, cost."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from functools import partial

from keyproxy.call import End
from keyproxy.commands import line, reading
from keyproxy.key_forms import owner
from keyproxy.ledger.lookup import ORDERS, Wanted, find

_TOP = 20
_STATUS = re.compile(r"[1-5](?:\d\d|xx)", re.ASCII)
_ENDS = ", ".join(End)


def main(arguments: Sequence[str]) -> int:
    parser = _parser()
    given = line.parse(parser, arguments)
    flags = given.flags
    usual = {"usual": "all"} if flags.id else {}
    between = reading.times(parser, flags.since, flags.until, **usual)
    if flags.id is not None and owner(flags.id) is not None:
        parser.error("ID: expected a request id or a provider's id of a call; a key is neither")
    if flags.status is not None and not (_STATUS.fullmatch(flags.status) or flags.status in {*End}):
        parser.error(f"--status: expected one such as 429 or 5xx, or how it ended: {_ENDS}")
    wanted = Wanted(
        id=flags.id,
        client=flags.client,
        app=flags.app,
        status=flags.status,
        model=flags.model,
        usd=flags.min_cost,
        seconds=flags.min_seconds,
        since=between.begin,
        until=between.end,
    )
    question = partial(find, wanted=wanted, order=flags.by, top=flags.top)
    from keyproxy.commands import calls_text  # rich, which --help need not load

    table = partial(calls_text.print_calls, is_one=flags.id is not None)
    write = calls_text.print_json if flags.json else table
    return reading.answer("calls", given, question, write)


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise ArgumentTypeError("expected USD such as 0.05")
    return amount


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(?:\.\d{1,6})?s?", text, re.ASCII):
        raise ArgumentTypeError("expected seconds such as 10 or 2.5")
    return float(text.rstrip("s"))


def _parser() -> line.Parser:
    parser = line.parser(
        "calls",
        f"A call that was refused before anything went up stands in the log only."
        f" {reading.EXIT_CODES}",
    )
    id = "a request id (X-Request-Id) or the provider's id (gen-…): shows all of that call"
    parser.option("id", "ID", id, nargs="?")
    whose = "of this client: a name, an address, or a network such as the log shows"
    parser.option("--client", "NAME", whose)
    parser.option("--app", "NAME", "of this app")
    parser.option("--model", "GLOB", "asked for or served: openai/*")
    status = f"the upstream's status, such as 429 or 5xx; or how it ended: {_ENDS}"
    parser.option("--status", "STATUS", status)
    parser.option("--min-cost", "USD", "calls that cost at least so much", type=_amount)
    parser.option("--min-seconds", "SECONDS", "calls that took so long", type=_seconds)
    reading.add_times(parser, "ID")
    order = "the newest, dearest or slowest first; default: time"
    parser.add_argument("--by", choices=ORDERS, default=ORDERS[0], help=order)
    reading.add_top(parser, _TOP, f"the first N; default: {_TOP}")
    parser.flag("--json", "an object with all that is known of each, money exact")
    reading.add_place(parser)
    return parser
