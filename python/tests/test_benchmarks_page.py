"""docs/benchmarks.md has the form that its generator writes, and the command that it names is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "benchmarks.md").read_text()
sys.path.append(str(REPOSITORY / "python"))

from peers import cases, document, results  # noqa: E402


def cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip("|").split("|"))


def tables() -> list[list[tuple[str, ...]]]:
    """Head and rows of every table."""
    found = re.findall(r"(?:^\|.*\n)+", PAGE, re.M)
    return [[cells(line) for line in table.splitlines() if not line.startswith("|---")] for table in found]


def test_every_case_has_its_table_and_every_row_its_figures() -> None:
    *measured, built = tables()
    for case in [*(case.name for case in cases.NEAREST), cases.RANDOM]:
        assert f"## {case[0].upper()}{case[1:]}, k = " in PAGE
    assert len(measured) == len(cases.NEAREST) + 1
    assert built[0] == document.BUILD_COLUMNS
    for head, *rows in measured:
        assert head == document.COLUMNS
        assert rows[0][1].startswith("negbank")
        for _, who, _, recall, median, quartiles, ratio in rows:
            low, high = map(float, quartiles.split(" - "))
            assert low <= float(median) <= high
            assert recall == "-" or 0.0 <= float(recall.removesuffix(" (short)")) <= 1.0
            assert (ratio == "") if who.startswith("negbank") else float(ratio) > 0.0


def test_losses_are_listed_where_there_are_any() -> None:
    losses = PAGE.split("## Where negbank is slower\n\n")[1].split("\n\n##")[0].splitlines()
    rows = [row for table in tables()[:-1] for row in table[1:]]
    slower = [row for row in rows if row[6] and float(row[6]) > 1.0 and "(short)" not in row[3]]
    assert len(slower) <= len([line for line in losses if line.startswith("- ")])


def test_the_head_is_the_generators() -> None:
    fixed = [line for line in document.HEAD.splitlines() if line and "{" not in line]
    assert [line for line in fixed if line not in PAGE] == []
    assert document.where_it_is_slower(results.Results()).endswith("Nowhere in these tables.\n")


def test_the_command_is_there() -> None:
    assert re.search(r"^bench-peers:", (REPOSITORY / "Makefile").read_text(), re.M)
    command = [sys.executable, "-m", "peers", "--help"]
    helped = subprocess.run(command, cwd=REPOSITORY / "python", capture_output=True, text=True, check=True)
    assert "--sizes" in helped.stdout
