"""Programs that `make test` puts into target/tools/bin where Go is installed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "target" / "tools" / "bin"


def tool(name: str) -> str:
    """Where that program is; a test that needs it is skipped, loudly, if it is nowhere."""
    found = shutil.which(name, path=FOLDER) or shutil.which(name)
    if found is None:
        not_tested(f"there is no {name} here: install Go and run `make test`")
    return found


def not_tested(why: str) -> NoReturn:
    """Skips the test, and says so past pytest's capture: what did not run must not look as if it had."""
    print(f"\n*** NOT TESTED: {why} ***", file=sys.__stderr__, flush=True)
    pytest.skip(why)
