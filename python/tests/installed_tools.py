"""Programs and schemas that `make test` puts into target/tools, and what becomes of a test that lacks one."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = REPOSITORY / "target" / "tools"
FOLDER = TOOLS / "bin"
BY_GO = "install Go (https://go.dev/dl) and run `make test`, which puts it into target/tools"
HOW_TO_GET = {
    "cargo-cyclonedx": "run `make test`, which puts it into target/tools",
    "cargo": "install Rust (https://rustup.rs)",
    "curl": "install it (`apt-get install curl`)",
    "openssl": "install it (`apt-get install openssl`)",
    "awk": "install it (`apt-get install gawk`)",
}


def tool(name: str) -> str:
    """Where that program is; without it the test is not run, or fails if all tests must be."""
    found = shutil.which(name, path=FOLDER) or shutil.which(name)
    if found is None:
        not_tested(f"there is no {name} here: {HOW_TO_GET.get(name, BY_GO)}")
    return found


def schema(name: str) -> Path:
    """Where that file of the Prometheus operator's schemas is; likewise."""
    path = TOOLS / "crds" / name
    if not path.is_file():
        not_tested(f"there is no {path.relative_to(REPOSITORY)} here: {BY_GO}")
    return path


def not_tested(why: str) -> NoReturn:
    """Skips the test for want of something that can be installed; fails it with NEGBANK_REQUIRE_ALL=1, as CI sets it."""
    if os.environ.get("NEGBANK_REQUIRE_ALL") == "1":
        pytest.fail(f"NOT TESTED: {why}", pytrace=False)
    skip(why)


def not_allowed(why: str) -> NoReturn:
    """Skips the test for want of a right that nothing installs; with NEGBANK_REQUIRE_ALL=1 too."""
    skip(f"{why} (a right, which NEGBANK_REQUIRE_ALL does not ask for)")


def skip(why: str) -> NoReturn:
    """Says so past pytest's capture: what did not run must not look as if it had."""
    print(f"\n*** NOT TESTED: {why} ***", file=sys.__stderr__, flush=True)
    pytest.skip(why)
