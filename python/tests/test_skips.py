"""Tests that can not be run: told loudly, and failures where all must be run."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

import installed_tools

# What skips, and what looks at that.
APART = {"installed_tools.py", Path(__file__).name}
# What `.ci/run` wants beside Go, and what it is made of itself.
WANTED = ("Rust 1", "rustfmt", "clippy", "Python 3.11", "C compiler", "make", "binutils", "curl", "awk", "kill")
BASICS = ("bash", "cut", "dirname", "env", "head", "id", "mkdir", "mktemp", "rm", "sed", "sort")


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


def test_ci_says_at_once_all_that_a_machine_lacks(tmp_path: Path) -> None:
    checkout, programs = tmp_path / "checkout", tmp_path / "programs"
    (checkout / ".ci").mkdir(parents=True)
    programs.mkdir()
    # Alone: nothing is built here, and should it go on, there is nothing to run.
    shutil.copy(installed_tools.REPOSITORY / ".ci" / "run", checkout / ".ci" / "run")
    shutil.copy(installed_tools.REPOSITORY / "Cargo.toml", checkout / "Cargo.toml")
    for name in BASICS:
        found = shutil.which(name)
        assert found
        (programs / name).symlink_to(found)
    go = programs / "go"

    def told(version: str) -> str:
        go.write_text(f"#!/bin/sh\necho {version}\n")
        go.chmod(0o755)
        ci = checkout / ".ci" / "run"
        run = subprocess.run([ci], env={"PATH": str(programs)}, capture_output=True, text=True, check=False)
        assert (run.returncode, run.stdout) == (1, "")
        assert "NOTHING WAS RUN" in run.stderr
        return run.stderr

    lacks = told("go1.19.8")
    for name in (*WANTED, "Go 1.21"):
        assert name in lacks, name
    assert "Go 1.21" not in told("go1.24.3")
    assert not (checkout / "target").exists()


def test_no_test_is_skipped_in_another_way() -> None:
    ways = ("skip", "importorskip", "xfail", "mark.skip", "mark.skipif", "mark.xfail")
    silent = {f"pytest.{way}" for way in ways}
    paths = sorted(Path(__file__).parent.glob("*.py"))
    assert len(paths) > 50
    for path in paths:
        nodes = ast.walk(ast.parse(path.read_text()))
        used = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
        assert path.name in APART or not silent & used, path.name
