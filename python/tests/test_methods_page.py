"""docs/methods.md: every example and test that it names is there, and every example is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "methods.md").read_text()
TABLES = [re.findall(r"^\|(.*)\|$", table, re.M)[2:] for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.M)]
EXAMPLES = {path.name for path in (REPOSITORY / "examples").glob("*.py")} - {"data.py"}


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)]


@pytest.mark.parametrize("row", [row for table in TABLES for row in table])
def test_the_tests_of_a_row_are_there(row: str) -> None:
    named = re.findall(r"`([\w/]+\.(?:py|rs))::(\w+)`", row)
    assert named, "a row without a test"
    for file, test in named:
        folder = REPOSITORY / ("python/tests" if file.endswith(".py") else "tests")
        define = "def" if file.endswith(".py") else "fn"
        assert re.search(rf"^\s*(?:async )?{define} {test}\b", (folder / file).read_text(), re.M), f"{file} has no {test}"
    assert cells(row)[-1], "a row that does not say what equals what"


def test_every_method_has_an_example() -> None:
    """That each ran in the test named beside it, test_examples.py says."""
    linked = set()
    for row in map(cells, TABLES[0]):
        if row[0]:
            shown = re.fullmatch(r"\[(\w+\.py)\]\(\.\./examples/\1\)", row[2])
            assert shown, f"{row[0]} has no example"
            assert row[1], f"{row[0]} has no call"
            assert "test_examples.py" in row[3]
            linked.add(shown[1])
    assert linked == EXAMPLES
