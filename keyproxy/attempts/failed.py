"""Attempts that failed: whose fault each was, and what the client is told where all did. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from keyproxy.errors import Refusal
from keyproxy.routing.breaker import Rests
from keyproxy.routing.router import Option
from keyproxy.transport.refusals import PATIENCE_SECONDS
from keyproxy.upstream.faults import Fault
from keyproxy.upstream.send import Answer

OF_CALLER = frozenset({Fault.CALLER, Fault.CONTEXT})
_LONGEST = 1000  # characters of a header that names what was removed


class Failed(NamedTuple):
    """An attempt that brought nothing for the client. ``word``: its status, or what became of it;
    ``answer``: an error that may be passed on, ``refusal``: ours where there was none; ``held``: an
    answer of a good status that brought no output, which may be passed on as it goes on."""

    option: Option
    fault: Fault
    word: str
    answer: Answer | None = None
    refusal: Refusal | None = None
    held: Answer | None = None

    @property
    def status(self) -> int | None:
        if self.refusal is not None:
            return self.refusal.status
        return None if self.answer is None else self.answer.head.status


def of_refusal(refusal: Refusal) -> tuple[Fault, str]:
    """Whose fault it is that there is no answer, and the word for it."""
    if refusal.code == "upstream_key_rejected":
        return Fault.ACCOUNT, "failed"
    word = "timeout" if refusal.code == "upstream_timeout" else "cut"
    return (Fault.NOT_SENT, "unreachable") if refusal.is_free else (Fault.UNCERTAIN, word)


def last_word(failed: Sequence[Failed], rests: Rests) -> tuple[Answer | Refusal, Option]:
    """What the client is told, and which attempt that is from: the fault of the caller, if it is
    one, else what all of them say, else that nobody can answer. It says truly when to come again.
    """
    of_caller = [each for each in failed if each.fault in OF_CALLER]
    if all(each.fault is Fault.FIELD for each in failed):
        of_caller = [*failed]
    last = (of_caller or failed)[-1]
    wait = max(1.0, min(rests.seconds(each.option.place.home) for each in failed))
    is_common = len({each.status for each in failed}) == 1
    if last.answer is not None and (of_caller or is_common):
        if not of_caller:
            last.answer.headers["Retry-After"] = str(math.ceil(wait))
            if wait > PATIENCE_SECONDS:
                last.answer.headers["x-should-retry"] = "false"
        return last.answer, last.option
    if last.refusal is not None and is_common:
        return replace(last.refusal, retry_after_seconds=wait), last.option
    words = (f"{each.option.place.home.provider}={each.word}" for each in failed)
    refusal = Refusal(
        "upstream_unavailable",
        "None of the providers of this model can answer at the moment.",
        retry_after_seconds=wait,
        hint=", ".join(words),
    )
    return refusal, last.option


def route_headers(failed: Sequence[Failed], option: Option, word: str = "") -> dict[str, str]:
    """Which way an answer came, for its head: from ``option``, whose status is ``word`` if it is
    none of those that ``failed``."""
    provider = option.place.home.provider
    fields = {"X-Keyproxy-Provider": provider}
    if option.edits.dropped:
        fields["X-Keyproxy-Removed"] = ", ".join(option.edits.dropped)[:_LONGEST]
    tried = [f"{each.option.place.home.provider}={each.word}" for each in failed]
    tried += [f"{provider}={word}"] if word else []
    if len(tried) > 1:
        fields["X-Keyproxy-Attempts"] = ", ".join(tried)
    return fields
