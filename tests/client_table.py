"""The table of docs/clients.md, made of the tests that drive real clients: a "yes" is a test.

``python -m tests.client_table`` writes it anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from tests import test_sdk, test_sdk_browser, test_sdk_node

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- made by tests/client_table.py -->\n", "<!-- until here -->"
# What a client can do, and the one test that shows it, whichever client it is.
FEATURES = {
    "chat": "test_an_answer_is_read",
    "stream": "test_a_stream_arrives_piece_by_piece",
    "tools": "test_a_function_call_makes_the_round",
    "tools, streamed": "test_a_function_call_is_streamed",
    "structured output": "test_structured_output_is_read",
    "images": "test_a_picture_goes_up",
    "embeddings, opted in": "test_embeddings_are_read_where_they_are_opted_in",
    "list of models": "test_models_are_listed",
    "error classes": "test_a_refused_model_is_a_typed_error_asked_once",
    "waits as told, and retries": "test_a_short_wait_is_waited_by_the_sdk",
    "leaves a long wait to you": "test_a_long_wait_is_left_to_the_application",
    "abort reaches the provider": "test_leaving_a_stream_reaches_the_upstream",
    "in a page": "test_an_sdk_in_a_page_calls_with_a_session",
}
# How the tests call a client, what it is called, and where its version stands.
OF_NPM = {
    "openai": "openai",
    "anthropic": "@anthropic-ai/sdk",
    "openrouter": "@openrouter/sdk",
    "ai": "@openrouter/ai-sdk-provider",
    "ai-compatible": "@ai-sdk/openai-compatible",
    "ai-openai": "@ai-sdk/openai",
    "ai-groq": "@ai-sdk/groq",
    "ai-anthropic": "@ai-sdk/anthropic",
}
OF_PYTHON = {"openai": test_sdk.TestOpenAI, "anthropic": test_sdk.TestAnthropic}


def table() -> str:
    """The table, a column for each client."""
    clients = list(_clients())
    lines = [["", *(f"{name} {version}" for name, version, _ in clients)]]
    lines.append(["---"] * len(lines[0]))
    for feature, test in FEATURES.items():
        lines.append([feature, *("yes" if test in shown else "" for *_, shown in clients)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _clients() -> Iterator[tuple[str, str, Collection[str]]]:
    versions = json.loads((ROOT / "tests" / "sdk" / "package.json").read_text())["dependencies"]
    for sdk, package in OF_NPM.items():
        yield f"`{package}` (npm)", versions[package], _driving(sdk)
    locked = dict(re.findall(r"^(\S+)==(\S+)", (ROOT / "requirements/dev.txt").read_text(), re.M))
    for package, tests in OF_PYTHON.items():
        yield f"`{package}` (Python)", locked[package], dir(tests)


def _driving(sdk: str) -> Collection[str]:
    """The tests that are run for this client of npm's."""
    found = {
        name: test
        for page in (test_sdk_node, test_sdk_browser)
        for name, test in vars(page).items()
    }
    return {name for name, test in found.items() if sdk in _parameters(test)}


def _parameters(test: object) -> Collection[str]:
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize" and mark.args[0] in ("sdk", "case"):
            values: Collection[str] = mark.args[1]
            return values
    return ()


def parts(text: str) -> Mapping[str, str]:
    """A page before, in and behind the table."""
    before, _, rest = text.partition(BEGIN)
    inside, _, behind = rest.partition(END)
    return {"before": before, "table": inside, "behind": behind}


if __name__ == "__main__":
    page = parts(PAGE.read_text())
    PAGE.write_text(f"{page['before']}{BEGIN}\n{table()}\n{END}{page['behind']}")
