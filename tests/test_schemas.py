"""Every field that SDKs publish has been judged, by a dated copy of their lists."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from keyproxy.dialects import DIALECTS
from keyproxy.features import CLOSED_FIELDS, NAMED_FIELDS, OPENED_BY
from keyproxy.policy.fields import FIELDS

NAMED = {dialect.name: dialect for dialect in DIALECTS}
ROOT = Path(__file__).resolve().parents[1]
COPY = json.loads((ROOT / "tests" / "schemas.json").read_text())
PUBLISHED = [
    (style, package, set(names))
    for style, packages in COPY["styles"].items()
    for package, names in packages.items()
]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = SourceFileLoader("schema_fields", str(ROOT / "scripts" / "schema-fields"))
    spec = importlib.util.spec_from_loader("schema_fields", loader)
    assert spec is not None
    module = sys.modules["schema_fields"] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(("style", "package", "names"), PUBLISHED)
def test_every_published_field_has_a_verdict(style: str, package: str, names: set[str]) -> None:
    assert names - FIELDS[NAMED[style]].keys() - CLOSED_FIELDS.keys() - NAMED_FIELDS == set()


def test_the_copy_holds_whole_schemas_of_all_three_styles() -> None:
    sources = {(style, package.rpartition(" ")[0]) for style, package, _ in PUBLISHED}
    assert sources >= {
        *((style, sdk) for style in ("chat", "responses") for sdk in ("openai", "openrouter")),
        *(("messages", sdk) for sdk in ("anthropic", "openrouter")),
        *((style, "@openrouter/sdk") for style in ("chat", "responses", "messages")),
    }
    for style, package, names in PUBLISHED:
        assert "model" in names, (style, package)
        assert len(names) > 15 or style not in ("chat", "responses", "messages")


def test_no_field_has_two_verdicts() -> None:
    tabled = {name for table in FIELDS.values() for name in table}
    assert NAMED_FIELDS.isdisjoint(tabled | CLOSED_FIELDS.keys())
    assert OPENED_BY.keys().isdisjoint(CLOSED_FIELDS)


def test_the_script_reads_both_languages(script: ModuleType) -> None:
    source = (
        b"class ABase(TypedDict):\n    x: int\nclass AStreaming(ABase):\n    y: str\nclass B: z: 1"
    )
    assert list(script.typed(source, "A")) == ["x", "y"]
    types = "export type A$Outbound = {\n    a_b?: {\n        c: d;\n    } | null;\n    e: f;\n};\n"
    assert list(script.outbound(types, "A")) == ["a_b", "e"]
    with pytest.raises(ValueError, match="no B"):
        script.outbound(types, "B")


def test_the_script_tells_what_is_new_and_what_becomes_of_it(script: ModuleType) -> None:
    before = {"chat": {"openai 1.0": ["model", "old"]}}
    now = {"chat": {"openai 1.1": ["model", "preset", "trace", "web_search_options", "x"]}}
    said = [line.split(None, 4)[3:] for line in script.changes(before, now)]
    assert said == [
        ["gone", "old: unknown"],
        ["new", "preset: never"],
        ["new", "trace: by name"],
        ["new", "web_search_options: web"],
        ["new", "x: unknown"],
    ]
