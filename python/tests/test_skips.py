"""Tests that can not be run: told loudly, and failures where all must be run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import installed_tools

# What skips, and what looks at that.
APART = {"installed_tools.py", Path(__file__).name}


def test_a_missing_program_skips_the_test_and_fails_it_where_all_must_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEGBANK_REQUIRE_ALL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no such-a-program here: install Go .*make test"):
        installed_tools.tool("such-a-program")
    monkeypatch.setenv("NEGBANK_REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match="no such-a-program here: install Go .*make test"):
        installed_tools.tool("such-a-program")
    with pytest.raises(pytest.fail.Exception, match="crds/nothing.yaml here: install Go"):
        installed_tools.schema("nothing.yaml")


def test_a_missing_right_is_never_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEGBANK_REQUIRE_ALL", "1")
    with pytest.raises(pytest.skip.Exception, match="root only"):
        installed_tools.not_allowed("root only")


def test_no_test_is_skipped_in_another_way() -> None:
    ways = ("skip", "importorskip", "xfail", "mark.skip", "mark.skipif", "mark.xfail")
    silent = {f"pytest.{way}" for way in ways}
    paths = sorted(Path(__file__).parent.glob("*.py"))
    assert len(paths) > 50
    for path in paths:
        nodes = ast.walk(ast.parse(path.read_text()))
        used = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
        assert path.name in APART or not silent & used, path.name
