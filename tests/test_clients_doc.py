"""docs/clients.md says what the tests of real clients show, and no more."""

from __future__ import annotations

from tests import test_sdk, test_sdk_browser, test_sdk_node
from tests.client_table import FEATURES, PAGE, parts, table


def test_the_table_is_what_the_tests_show() -> None:
    told = parts(PAGE.read_text())["table"].strip()
    assert told == table().strip(), "python -m tests.client_table writes it anew"


def test_every_mark_has_its_test() -> None:
    driven = [test_sdk_node, test_sdk_browser, test_sdk.TestOpenAI, test_sdk.TestAnthropic]
    names = {name for each in driven for name in dir(each)}
    assert set(FEATURES.values()) <= names
