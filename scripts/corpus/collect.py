"""The recorded bodies, each shape once, as lines of tests/corpus: ``collect.py FOLDER``.

Two bodies have one shape if they differ in texts, numbers and ids alone. Lines that were written
after a client's sources (``"how": "read"``) stay, and what a line says of its refusal goes to the
new line of the same shape. ``FOLDER/versions.json`` names versions by client.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).resolve().parents[2] / "tests" / "corpus"
WORDS = {"type", "role", "effort", "format", "ttl", "mode", "detail", "tool_choice", "verbosity"}
WORDS |= {"service_tier", "summary", "truncation", "include", "id", "status", "media_type"}
LONG = 80


def shape(value: Any, name: str = "") -> Any:
    """What is left of a value without texts: names, kinds, and words that mean something."""
    if isinstance(value, dict):
        return {
            key: "any" if key in ("arguments", "properties") else shape(value[key], key)
            for key in sorted(value)
        }
    if isinstance(value, list):
        return [shape(item, name) for item in value]
    if isinstance(value, str):
        word = value if name in WORDS and re.fullmatch(r"[a-z_0-9-]{1,40}", value) else "text"
        return word.partition(":")[0] if name != "id" else "id"
    return value if value is None or isinstance(value, bool) else "number"


def shortened(value: Any) -> Any:
    """Long texts cut: a client's own prompt is not ours to copy."""
    if isinstance(value, dict):
        return {key: shortened(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shortened(item) for item in value]
    if isinstance(value, str) and len(value) > LONG and " " in value and value[:1] not in "{[":
        return value[:40] + " …"
    return value


def version(client: str, agent: str, told: dict[str, str]) -> str:
    return told.get(client) or agent.partition(" (")[0][:60]


def known() -> tuple[dict[str, dict[str, Any]], dict[Path, list[str]]]:
    """What the corpus says of each shape's refusal, and its lines that no client sent here."""
    marks, kept = {}, {}
    for file in sorted(CORPUS.glob("*/*.jsonl")):
        for text in file.read_text().splitlines():
            line = json.loads(text)
            mark = json.dumps([file.parent.name, shape(line["body"])])
            marks[mark] = {key: line[key] for key in ("refused", "opens") if key in line}
            if line["how"] == "read":
                kept.setdefault(file, []).append(text)
    return marks, kept


def collect(folder: Path) -> None:
    marks, files = known()
    places = {text: place for place, texts in files.items() for text in texts}
    named = folder / "versions.json"
    told = json.loads(named.read_text()) if named.exists() else {}
    seen = {
        json.dumps([place.parent.name, shape(json.loads(text)["body"])])
        for text, place in places.items()
    }
    sent: dict[Path, list[str]] = {}
    for source in sorted(folder.glob("*.jsonl")):
        client = source.stem
        for text in source.read_text().splitlines():
            line = json.loads(text)
            body = shortened(line["body"])
            mark = json.dumps([line["style"], shape(body)])
            if mark in seen:
                continue
            seen.add(mark)
            lines = sent.setdefault(CORPUS / line["style"] / source.name, [])
            entry = {"name": f"{client}-{len(lines) + 1}"}
            entry |= {"client": version(client, line["agent"], told), "how": "run"}
            entry |= {"beta": line["beta"]} if "beta" in line else {}
            entry |= marks.get(mark, {})
            lines.append(json.dumps(entry | {"body": body}, ensure_ascii=False))
    for file in CORPUS.glob("*/*.jsonl"):
        file.unlink()
    for file in sent.keys() | files.keys():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(sent.get(file, []) + files.get(file, [])) + "\n")


if __name__ == "__main__":
    collect(Path(sys.argv[1]))
