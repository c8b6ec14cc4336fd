"""What people copy to deploy it: valid where it is read, and settings without a fault.

Schemas: the Compose specification and Kubernetes 1.33, without their descriptions (Apache-2.0).
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from keyproxy.settings import Settings

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
DEPLOY = EXAMPLES / "deploy"
SCHEMAS = Path(__file__).parent / "deploy"
COMPOSE = sorted(EXAMPLES.rglob("compose*.yaml"))
KUBERNETES = sorted(DEPLOY.glob("kubernetes*.yaml"))
SITE = "app.example.com"
KEY = "sk-or-v1-" + "0123456789abcdef" * 4


def name_of(path: Path) -> str:
    return path.relative_to(EXAMPLES).as_posix()


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@pytest.mark.parametrize("path", COMPOSE, ids=name_of)
def test_compose_takes_it(path: Path) -> None:
    schema = json.loads((SCHEMAS / "compose-spec.json").read_text())
    jsonschema.validate(documents(path)[0], schema)


@pytest.mark.parametrize("path", KUBERNETES, ids=name_of)
def test_kubernetes_takes_it(path: Path) -> None:
    schema = json.loads((SCHEMAS / "kubernetes-1.33.json").read_text())
    for document in documents(path):
        kind = schema["kinds"][document["kind"]]
        whole = {**schema, "$ref": f"#/definitions/{kind}"}
        jsonschema.validators.validator_for(whole)(whole).validate(document)


def test_the_schema_of_kubernetes_is_one() -> None:
    """What a schema of a megabyte is looked at for once, and not with each document."""
    schema = json.loads((SCHEMAS / "kubernetes-1.33.json").read_text())
    jsonschema.validators.validator_for(schema).check_schema(schema)


def containers(path: Path) -> Iterator[dict[str, Any]]:
    for document in documents(path):
        pod = document["spec"].get("template", {}).get("spec", {})
        yield from (*pod.get("initContainers", ()), *pod.get("containers", ()))


@pytest.mark.parametrize("path", KUBERNETES, ids=name_of)
def test_keyproxys_container_may_do_nothing_it_need_not(path: Path) -> None:
    [keyproxy] = [each for each in containers(path) if each["name"] == "keyproxy"]
    context = keyproxy["securityContext"]
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}


def settings_in(path: Path) -> Mapping[str, str]:
    """What an example says to keyproxy, by variable."""
    if path.suffix == ".toml":
        said: dict[str, str] = tomllib.loads(path.read_text())["env"]
        return said | {"OPENROUTER_API_KEY": KEY, "KEYPROXY_SESSION_SECRET": KEY[9:]}
    if path in KUBERNETES:
        [keyproxy] = [each for each in containers(path) if each["name"] == "keyproxy"]
        return {each["name"]: each["value"] for each in keyproxy["env"]}
    services = documents(path)[0]["services"]
    environment: dict[str, str] = services["keyproxy"]["environment"]
    return {name: re.sub(r"\$\{SITE[^}]*\}", SITE, value) for name, value in environment.items()}


SERVED = [*KUBERNETES, DEPLOY / "fly.toml", *(p for p in COMPOSE if p.name != "compose.dev.yaml")]


@pytest.mark.parametrize("path", SERVED, ids=name_of)
def test_serve_takes_its_settings_and_counts_once(path: Path) -> None:
    """Either one instance that keeps its ledger, or counters that all share."""
    said = settings_in(path)
    settings = Settings.from_environ("serve", said, read_file=lambda path: KEY.encode())
    assert settings.total_budget
    text = path.read_text()
    if settings.storage is None:
        assert not re.search(r"replicas: *([2-9]|1[0-9])", text)
        assert "/data" in text
    else:
        assert re.search(r"valkey|redis", text)


@pytest.mark.parametrize("path", [p for p in DEPLOY.iterdir() if p.suffix in (".yaml", ".toml")])
def test_what_was_not_run_says_so_first(path: Path) -> None:
    assert path.read_text().startswith("# Not run by our tests, which have no ")


def test_the_unit_says_where_the_ledger_is_and_hands_on_the_key() -> None:
    text = (DEPLOY / "keyproxy.service").read_text()
    lines = [line.strip() for line in text.splitlines() if "=" in line and not line.startswith("#")]
    told = [line.partition("=")[0] for line in lines]
    assert {"StateDirectory", "LoadCredential", "DynamicUser", "TimeoutStopSec"} <= set(told)
    assert "sk-" not in text


def test_every_example_stands_in_the_docs() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    names = {path.name for path in DEPLOY.iterdir()} - {"README.md"}
    assert [name for name in sorted(names) if name not in page] == []
