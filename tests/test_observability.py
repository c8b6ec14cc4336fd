"""examples/observability: what it names exists, and Prometheus' own tool takes it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from keyproxy.admin.prometheus import GAUGES
from keyproxy.admin.tally import FAMILIES
from keyproxy.errors import CODES
from tests.test_metrics import checked

FOLDER = Path(__file__).parent.parent / "examples" / "observability"
_OF_PROMETHEUS = {"le", "job", "instance", "__name__"}


def known() -> dict[str, set[str]]:
    """The names of all series, each with its labels."""
    series: dict[str, set[str]] = {"up": set()}
    for family in FAMILIES:
        ends = ("_bucket", "_sum", "_count") if family.buckets else ("",)
        series |= {family.name + end: set(family.labels) for end in ends}
    return series | {gauge.name: set(gauge.labels) for gauge in GAUGES}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / "grafana-dashboard.json").read_text())[
        "panels"
    ]
    return found


EXPRESSIONS = [rule["expr"] for rule in rules()] + [
    target["expr"] for panel in panels() for target in panel["targets"]
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_series_and_label_that_is_named_exists(expression: str) -> None:
    series = known()
    names = re.findall(r"\b(?:keyproxy|gen_ai)_[a-z_]+(?=[{\[\s)]|$)", expression)
    labels = set(re.findall(r"([a-z_]+)(?:=~|!=|=)\"", expression))
    for group in re.findall(r"(?:by|ignoring) \(([^)]*)\)", expression):
        labels |= set(group.split(", "))
    told = [name for name in names if name in series]
    assert told or "up{" in expression
    assert set(names) - set(told) <= set().union(*(series[name] for name in told))
    allowed = set().union(*(series[name] for name in told)) | _OF_PROMETHEUS
    assert labels <= allowed


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_rule_says_in_a_sentence_what_is_so(rule: dict[str, Any]) -> None:
    summary = rule["annotations"]["summary"]
    assert summary.endswith(".")
    assert rule["labels"]["severity"] in ("warning", "critical")
    # What it names is left by what it sums up.
    by = re.findall(r"sum by \(([^)]*)\)", rule["expr"])
    named = set(re.findall(r"\$labels\.([a-z_]+)", summary))
    assert not by or named <= set(by[0].split(", "))


def test_codes_and_classes_that_are_named_exist() -> None:
    text = " ".join(EXPRESSIONS)
    codes = {
        code for each in re.findall(r'[,{ ]code=~?"([^"]*)"', text) for code in each.split("|")
    }
    assert codes <= CODES.keys()
    assert len(codes) > 3


def test_the_dashboard_has_a_place_for_every_metric() -> None:
    text = (FOLDER / "grafana-dashboard.json").read_text() + (FOLDER / "alerts.yml").read_text()
    missing = {family.name for family in FAMILIES if family.name not in text}
    missing |= {gauge.name for gauge in GAUGES if gauge.name not in text}
    assert missing == set()
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))


def test_promtool_takes_rules_and_settings() -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    code, told = checked(promtool, "rules", str(FOLDER / "alerts.yml"))
    assert code == 0, told
    assert f"{len(rules())} rules found" in told
    code, told = checked(promtool, "config", "--syntax-only", str(FOLDER / "prometheus.yml"))
    assert code == 0, told
