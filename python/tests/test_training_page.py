"""docs/training.md has the form that its generator writes, and its verdicts are those of its intervals."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "training.md").read_text()
sys.path.append(str(REPOSITORY / "python"))

from trials import document, hardness  # noqa: E402


def rows(heading: str) -> list[list[str]]:
    """The cells of a section's tables, without heads."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]


def test_the_text_is_the_generators() -> None:
    for part in (document.HEAD, document.SMALL, document.HARD, document.CHOICE, document.OVERHEAD):
        fixed = [line for line in part.splitlines() if line and "{" not in line]
        assert [line for line in fixed if line not in PAGE] == []


def test_verdicts_follow_from_intervals() -> None:
    contrasts = re.findall(r"\| ([+-][\d.]+) \| \[([+-][\d.]+), ([+-][\d.]+)\] \| ([a-z ]+) \|", PAGE)
    assert len(contrasts) in (6 + 6, 6 + 7)  # without a contrast of random with itself, where random was the best
    for mean, low, high, sign in contrasts:
        assert float(low) <= float(mean) <= float(high)
        assert sign == ("positive" if float(low) > 0 else "negative" if float(high) < 0 else "about zero")


def test_the_words_follow_from_the_contrasts() -> None:
    signs = {row[0]: row[-1] for row in rows("How hard") if row[0] in document.SAID}
    assert signs.keys() == document.SAID.keys()
    for name, sign in signs.items():
        assert f"- {document.SAID[name][sign]}\n" in PAGE


def test_every_case_has_its_figure() -> None:
    table = {row[0]: row[1:] for row in rows("How hard")}
    for name, betas in hardness.CASES.items():
        cells = dict(zip(hardness.BETAS, table[name], strict=True))
        assert {beta for beta, cell in cells.items() if cell} == set(betas)
        assert all(0.0 < float(cells[beta]) < 1.0 for beta in betas)
    assert float(table["none: copies served"][-1].rstrip("%")) >= 1.0, "there is nothing for the group filter to keep away"
    for _, way, median, quartiles, over in rows("What it costs a step")[2:]:
        low, high = map(float, quartiles.split(" - "))
        assert low <= float(median) <= high
        assert (over == "") == (way == "local")


def test_the_command_is_there() -> None:
    assert re.search(r"^methods:", (REPOSITORY / "Makefile").read_text(), re.M)
    command = [sys.executable, "-m", "trials", "--help"]
    helped = subprocess.run(command, cwd=REPOSITORY / "python", capture_output=True, text=True, check=True)
    assert "--parts" in helped.stdout
