"""The pages, read and written: ``python -m tests.golden.pages`` writes them anew, for a review."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from keyproxy import dialects
from keyproxy.dialects import Dialect
from keyproxy.policy.opened import Features
from keyproxy.routing.edits import Unfit, edits_for
from keyproxy.upstream.provider import Provider
from keyproxy.upstream.providers import PROVIDERS
from tests.test_said import said

HERE = Path(__file__).parent
PROVIDER_PAGES = sorted(path.stem for path in HERE.glob("*.txt") if path.stem != "clients")
OPEN = Features.of(["provider"])
NATIVE = "native-1"


def blocks(page: str) -> dict[str, str]:
    """What stands under each name."""
    text = (HERE / f"{page}.txt").read_text()
    found = (block.partition("\n") for block in text.strip("\n").split("\n\n"))
    return {head.removeprefix("# "): body for head, _, body in found}


CLIENTS = blocks("clients")


def dialect_of(case: str) -> Dialect:
    return next(each for each in dialects.DIALECTS if each.name == case.partition("/")[0])


def sent(case: str, provider: Provider) -> str:
    """What a case becomes for a provider, as its page has it."""
    dialect = dialect_of(case)
    call = said(CLIENTS[case].encode(), dialect, features=OPEN)
    native = NATIVE if provider.name != "openrouter" else "maker/model-1"
    try:
        edits = edits_for(call, dialect, provider.takes[dialect.name], native)
    except Unfit as unfit:
        return f"! {unfit.param}"
    told = f"> {', '.join(edits.dropped)}\n" if edits.dropped else ""
    return told + edits.body(call).decode()


def page_of(provider: Provider) -> Iterator[str]:
    for case in CLIENTS:
        if dialect_of(case).name in provider.takes:
            yield f"# {case}\n{sent(case, provider)}\n"


if __name__ == "__main__":
    for provider in PROVIDERS.values():
        (HERE / f"{provider.name}.txt").write_text("\n".join(page_of(provider)))
