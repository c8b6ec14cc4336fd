"""Bodies that real clients send: each passes as it comes, or its line names what opens it.

``tests/corpus/<style>/<client>.jsonl``, one body a line: ``how`` is ``run`` where the client
itself sent it to scripts/corpus/recorder.py, ``read`` where its shape was read in the client's
source. A line without ``refused`` passes in ``dev`` by default; one with it is refused for that
field, and passes with the settings in ``opens``, if anything opens it.
"""

from __future__ import annotations

import json
import re
import runpy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Proxy, Start

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / "tests" / "corpus"
PAGE = (ROOT / "docs" / "features.md").read_text()
MAIN = {"chat": "chat/completions", "responses": "responses", "messages": "messages"}
PATHS = MAIN | {
    "completions": "completions",
    "embeddings": "embeddings",
    "images": "images",
    "rerank": "rerank",
    "speech": "audio/speech",
}
ENDPOINTS = ",".join(f"POST /api/v1/{path}" for path in PATHS.values())


@dataclass(frozen=True)
class Line:
    """One body of the corpus; ``opens`` is what the proxy must be told for it to pass."""

    style: str
    name: str
    how: str
    raw: bytes
    beta: str
    refused: str
    opens: tuple[tuple[str, str], ...]


def _lines() -> Iterator[Line]:
    for file in sorted(CORPUS.glob("*/*.jsonl")):
        for text in file.read_text().splitlines():
            entry = json.loads(text)
            yield Line(
                style=file.parent.name,
                name=f"{file.parent.name}/{entry['name']}",
                how=entry["how"],
                raw=json.dumps(entry["body"], ensure_ascii=False).encode(),
                beta=entry.get("beta", ""),
                refused=entry.get("refused", ""),
                opens=tuple(sorted(entry.get("opens", {}).items())),
            )


LINES = tuple(_lines())
OPENINGS = sorted({line.opens for line in LINES if line.opens})


async def _sent(proxy: Proxy, line: Line) -> str:
    """What went wrong with ``line``: "" if it passed unchanged, else what was said."""
    before = len(proxy.upstream.calls)
    headers = {"anthropic-beta": line.beta} if line.beta else {}
    answer = await proxy.post(line.raw, f"/api/v1/{PATHS[line.style]}", headers=headers)
    seen = [call.body for call in proxy.upstream.calls[before:]]
    if answer.status == 200:
        return "" if seen == [line.raw] or _is_bounded(line, seen) else f"sent {seen!r}"
    assert seen == []
    error = (await answer.json())["error"]
    code = answer.headers.get("X-Keyproxy-Code")
    return f"{answer.status} {code} {error.get('param')}: {error['message']}"


def _is_bounded(line: Line, seen: list[bytes]) -> bool:
    """Whether all that was changed is the bound that a call with server tools gets."""
    bounded = json.loads(line.raw) | {"max_tool_calls": 10}
    return bool(line.opens) and line.style == "responses" and [*map(json.loads, seen)] == [bounded]


def _is_refused_as_named(line: Line, said: str) -> bool:
    param = "None" if line.style == "messages" else re.escape(line.refused)
    return bool(re.match(f"403 field_not_allowed {param}: ", said)) and line.refused in said


async def test_each_body_passes_or_is_refused_for_the_field_its_line_names(start: Start) -> None:
    by_default = await start(RATE_LIMIT="off")
    more = await start(RATE_LIMIT="off", ALLOWED_ENDPOINTS=ENDPOINTS)
    wrong = {}
    for line in LINES:
        said = await _sent(by_default if line.style in MAIN else more, line)
        if said if not line.refused else not _is_refused_as_named(line, said):
            wrong[line.name] = said
    assert wrong == {}


@pytest.mark.parametrize("opens", OPENINGS, ids=lambda opens: ";".join(map("=".join, opens)))
async def test_what_a_line_names_opens_its_body(
    start: Start, opens: tuple[tuple[str, str], ...]
) -> None:
    proxy = await start(RATE_LIMIT="off", ALLOWED_ENDPOINTS=ENDPOINTS, **dict(opens))
    mine = [line for line in LINES if line.opens == opens]
    said = {line.name: await _sent(proxy, line) for line in mine}
    assert {name: wrong for name, wrong in said.items() if wrong} == {}


def test_the_page_names_what_opens_each_refused_body() -> None:
    for line in LINES:
        if line.refused:
            words = {word for _, value in line.opens for word in value.split(",")}
            named = words or {re.split(r"[.\[]", line.refused)[0]}
            for word in named:
                plain = word.partition(":")[2] if word.startswith("tools:") else word
                family = re.sub(r"_\d{8}$", "_", plain)
                assert re.search(f"`(tools:)?{family}", PAGE), (line.name, word)


def test_no_two_bodies_differ_in_texts_alone() -> None:
    shape = runpy.run_path(str(ROOT / "scripts" / "corpus" / "collect.py"))["shape"]
    shapes = Counter(json.dumps([line.style, shape(json.loads(line.raw))]) for line in LINES)
    assert [one for one, count in shapes.most_common(3) if count > 1] == []


def test_names_are_told_apart_and_the_corpus_stays_small() -> None:
    assert [name for name, n in Counter(line.name for line in LINES).items() if n > 1] == []
    assert sum(file.stat().st_size for file in CORPUS.glob("*/*.jsonl")) < 1 << 20


def test_the_page_says_how_many_pass() -> None:
    def row(lines: list[Line]) -> list[int]:
        refused = [line for line in lines if line.refused]
        opened = [line for line in refused if line.opens]
        count = len(lines)
        return [count, count - len(refused), len(opened), len(refused) - len(opened)]

    table: dict[str, Any] = {
        style: row([line for line in LINES if line.style == style]) for style in MAIN
    }
    table["others"] = row([line for line in LINES if line.style not in MAIN])
    table["all"] = row(list(LINES))
    said = {
        name: [int(number) for number in numbers.split(" | ")]
        for name, numbers in re.findall(r"^\| (\w+) \| (\d+ \| \d+ \| \d+ \| \d+) \|$", PAGE, re.M)
    }
    assert said == table
    assert table["all"][0] >= 300
