"""One log event as people read it beside a dev server: a short line, and the line to paste.

A call is time, status, model, what was unusual, tokens, seconds and USD, in 80 columns where its
names let it and never in more than 100; a refusal's second line can be pasted. What is left out
stands in the JSON log and at the level ``debug``.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Mapping, MutableMapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from keyproxy.call import ROUTER, End

USUAL_COLUMNS = 80
MOST_COLUMNS = 100
_LEAST_NAME = 20
_MAX_SLUGS = 1000
_GAP = "  "
_INDENT = " " * 10  # below what follows the time
# As ``lines`` writes them; the table that a line belongs to stays with it, and words that quote
# somebody end in none.
_PASTED = re.compile(
    r"(?:(?P<words>[^'\"=]*?): )?"
    r"(?P<line>(?:in \[apps\.[^\]]+\] of the TOML file: )?(?:[A-Za-z]\w* ?= ?|--[a-z-]+ ).*)",
    re.ASCII,
)
_ODD = re.compile(r"[^ -~]")  # may take two columns, or none
_GREY, _RED, _GREEN, _YELLOW, _CYAN = 90, 31, 32, 33, 36
_LEVEL_COLOURS: Mapping[str, int] = {"warning": _YELLOW, "error": _RED, "critical": _RED}
_SHOWN_ELSEWHERE = ("timestamp", "level", "event", "exception")


class ShortLines:
    """A structlog renderer. ``columns``: where long lines are wrapped; None: nowhere."""

    def __init__(self, *, has_colour: bool = False, columns: int | None = None) -> None:
        self._has_colour = has_colour
        self._columns = columns
        self._authors: dict[str, str] = {}

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        known = {
            name: printable(value)
            for name, value in event.items()
            if name != "exception" and value is not None
        }
        is_call = "http_status" in known or "ended" in known or "fault" in known
        lines = self._of_call(known) if is_call else self._of_event(known)
        if exception := event.get("exception"):
            lines.append(str(exception))
        return "\n".join(lines)

    def _of_call(self, call: Mapping[str, str]) -> list[str]:
        hint = _PASTED.fullmatch(call.get("hint", ""))
        status, note = call.get("http_status", "---"), _note(call)
        what = self._model(call) or call.get("endpoint") or call.get("native_model", "")
        name = _ODD.sub("?", what)
        note = _ODD.sub("?", note)
        rest = [_tokens(call), _seconds(call.get("total_ms")), _usd(call)]
        taken = sum(len(part) + len(_GAP) for part in (_time(call), status, *rest) if part)
        room = USUAL_COLUMNS - taken - (len(note) + len(_GAP) if note else 0)
        why = call.get("cause") or (hint and hint["words"])
        if why and len(name) + len(f" ({why})") <= room:
            note += f" ({why})"
        name = elided(name, max(room, _LEAST_NAME))
        note = elided(note, MOST_COLUMNS - taken - len(name) - len(_GAP))
        shown = [
            self._painted(_GREY, _time(call)),
            self._painted(_of_status(call, status), status),
            name,
            self._painted(_of_status(call, status), note),
            *rest,
        ]
        line = _GAP.join(part for part in shown if part)
        pasted = hint["line"] if hint else call.get("hint")
        return [line, self._painted(_CYAN, pasted)] if pasted else [line]

    def _of_event(self, event: Mapping[str, str]) -> list[str]:
        level = event.get("level", "info")
        told = [f"{name}={value}" for name, value in event.items() if name not in _SHOWN_ELSEWHERE]
        marked = [] if level == "info" else [level]
        text = _GAP.join([_time(event), *marked, " ".join([event.get("event", ""), *told])])
        lines = wrapped(text, self._columns or sys.maxsize, "", _INDENT)
        colour = _LEVEL_COLOURS.get(level)
        return [self._painted(colour, line) if colour else line for line in lines]

    def _model(self, call: Mapping[str, str]) -> str:
        """The one asked for, or the first of several; without its author, unless another author's
        model of that name was shown before."""
        model, *others = list(filter(None, call.get("model", "").split(","))) or [""]
        author, _, slug = model.rpartition("/")
        is_name = any(each.isalpha() for each in slug)
        is_known = slug in self._authors or len(self._authors) < _MAX_SLUGS
        if is_name and is_known and self._authors.setdefault(slug, author) == author:
            model = slug
        return f"{model} +{len(others)}" if others else model

    def _painted(self, colour: int, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._has_colour and text else text


def wrapped(text: str, columns: int, first: str = "", rest: str = "") -> list[str]:
    """``text`` in lines that begin with ``first`` and ``rest``; no word of it is broken."""
    return textwrap.wrap(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def elided(text: str, most: int) -> str:
    """``text`` in at most ``most`` columns: its middle is left out where it is longer."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 3
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def _note(call: Mapping[str, str]) -> str:
    """What was unusual: a refusal, the end, an error that the answer told of, another model; and
    which provider it was, but for OpenRouter."""
    provider = call.get("provider", ROUTER)
    if fault := call.get("fault"):
        return f"{provider} failed: {fault}"
    if code := call.get("code"):
        again = f"{call['count']} more" if "count" in call else ""
        return f"{code} {call.get('param', again)}".rstrip()
    ended, served = call.get("ended", End.COMPLETE), call.get("served", "")
    if ended != End.COMPLETE:
        return f"{ended} {call.get('error', '')}".strip()
    where = "" if provider == ROUTER else f"at {provider}"
    if call.get("http_status", "") >= "400":
        return f"from {provider}" if where else "from the upstream"
    asked = [*call.get("model", served).split(","), *filter(None, [call.get("native_model")])]
    is_form = any(served.startswith(each.partition(":")[0]) for each in asked)
    return where if is_form else f"{where} served={served}".strip()


def _of_status(call: Mapping[str, str], status: str) -> int:
    if call.get("ended", End.COMPLETE) not in (End.COMPLETE, End.REFUSED, End.CLIENT_LEFT):
        return _RED
    return {"2": _GREEN, "3": _GREEN, "5": _RED}.get(status[0], _YELLOW)


def _time(event: Mapping[str, str]) -> str:
    """On this machine's clock, as the other programs in the terminal show it."""
    at = event.get("timestamp")
    return datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S") if at else ""


def _tokens(call: Mapping[str, str]) -> str:
    counts = [int(call[name]) for name in ("input_tokens", "output_tokens") if name in call]
    return f"{sum(counts)} tok" if counts else ""


def _seconds(milliseconds: str | None) -> str:
    return "" if milliseconds is None else f"{float(milliseconds) / 1000:.1f} s"


def _usd(call: Mapping[str, str]) -> str:
    """To the cent from a dollar on, below in three digits; with ``~`` where it is estimated."""
    if "cost" not in call:
        return ""
    cost = Decimal(call["cost"])
    digits = 2 if cost >= 1 else 2 - cost.adjusted() if cost else 0
    text = f"{cost:.{digits}f}"
    if "." in text and cost < 1:
        text = text.rstrip("0").rstrip(".")
    return f"{'~' if call.get('cost_source') == 'estimated' else ''}${text}"


def printable(value: Any) -> str:
    """One line of text that moves no cursor, whoever wrote it."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
