"""docs/benchmarks.md, whole."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from .cases import ANCHORS, BATCHES, DIM
from .graphs import EF_BUILD, M
from .results import Results, Row, Table

DOCS = Path(__file__).parents[2] / "docs"

COLUMNS = ("entries", "who", "asked with", "recall", "us an anchor", "quartiles", "negbank / it")
BUILD_COLUMNS = ("entries", "who", "seconds")

HEAD = """# negbank beside other programs

Written by `make bench-peers`, whole; don't edit it. What stands in one table was measured in turns within one run;
compare nothing else.

- Machine: {machine}. Other work may have been running on it.
- Source: commit {commit}.
- Data: {dim}-d unit vectors in 2,000 power-law clusters with noise that is strong in few directions; a label is a cluster.
  {anchors} anchors a call, which are no entries; recall over {all_anchors} of them, against an exact search in numpy.
- negbank: the server in a process of its own with `compute.threads=1`, asked through gRPC over loopback from the Python
  package, transport, copies and all. *ids* answers with ids alone, as the libraries do; *ids and embeddings* brings the rows.
- Libraries: in the measuring process, one thread (two to build), no transport. HNSW with M = {m} and efConstruction =
  {ef_build}; SVS's Vamana with degree {degree} and window {ef_build}. usearch holds bf16, the others f32. To leave out
  the anchor's label usearch, SVS and hnswlib fetch more and drop rows: two have no filter, hnswlib's calls Python an entry.
- PostgreSQL: a private cluster on a Unix socket, fsync off, no parallel workers, a prepared statement an anchor, in one
  pipeline.
- Each is shown at the first setting of its sweep that reaches the recall wanted; nothing is interpolated. Where none does,
  its best is shown and marked (short).
- Times: median of {turns} turns. *negbank / it* is negbank's time, with ids alone, over the other's: **under 1 negbank is
  faster**, over 1 slower.
"""

GROWTH = """## As a bank grows

Time and memory from ten thousand to a million entries, and scans of ten million, with what was chosen by itself
([growth.md](growth.md), by `make bench-growth`):

![Time and memory by the number of entries](growth.svg)
"""

RANDOM_NOTE = """The answer is {rows:,} rows of embeddings; an anchor's share is 1 / {anchors} of the request. PostgreSQL is
told the ids, which the client draws. Reverb's server is a process of its own with 16,384 entries, read through its TensorFlow
pipeline batch after batch, and draws with replacement.
"""


BUILDING = """To fill and build, with two threads where it has them; negbank's is writing the rows through gRPC and, where it
has a graph, waiting until that serves.
"""


def page(results: Results) -> str:
    """The page's text."""
    parts = [
        HEAD.format(
            machine=machine(),
            commit=commit(),
            dim=DIM,
            anchors=ANCHORS,
            all_anchors=f"{ANCHORS * BATCHES:,}",
            m=M,
            ef_build=EF_BUILD,
            degree=2 * M,
            turns=results.turns,
        )
    ]
    if results.missing:
        parts.append("## Not measured\n")
        parts.append("\n".join(f"- **{name}**: {why}" for name, why in results.missing.items()) + "\n")
    parts.append(where_it_is_slower(results))
    for case in dict.fromkeys(table.case for table in results.tables):
        tables = [table for table in results.tables if table.case == case]
        parts.append(f"## {case[0].upper()}{case[1:]}, k = {tables[0].k}\n")
        if tables[0].wanted is None:
            parts.append(RANDOM_NOTE.format(rows=ANCHORS * tables[0].k, anchors=ANCHORS))
        else:
            parts.append(f"Recall wanted: {tables[0].wanted}. negbank's plan: {', '.join(sorted({t.plan for t in tables}))}.\n")
        parts.append(as_table(COLUMNS, [line for table in tables for line in lines(table)]))
    parts.append("## Building\n")
    parts.append(BUILDING)
    built = [(f"{n:,}", who, f"{s:.1f}") for n, by_name in results.builds.items() for who, s in by_name.items()]
    parts.append(as_table(BUILD_COLUMNS, list(built)))
    if (DOCS / "growth.md").exists():
        parts.append(GROWTH)
    parts.append(f"The whole run took {results.seconds / 60:.1f} minutes.\n")
    return "\n".join(parts)


def where_it_is_slower(results: Results) -> str:
    """The losses, in one place."""
    lost = []
    for table in results.tables:
        for row in table.rows:
            if not row.who.startswith("negbank") and row.reached and table.ratio(row) > 1:
                lost.append(f"- {table.case}, {table.entries:,} entries: {table.ratio(row):.2f} times as long as {row.who}")
    return "## Where negbank is slower\n\n" + ("\n".join(lost) if lost else "Nowhere in these tables.") + "\n"


def lines(table: Table) -> list[tuple[str, ...]]:
    """The rows of one table."""
    return [(f"{table.entries:,}", *line(table, row)) for row in table.rows]


def line(table: Table, row: Row) -> tuple[str, ...]:
    """One contender."""
    low, median, high = row.times
    recall = "-" if row.recall is None else f"{row.recall:.3f}" + ("" if row.reached else " (short)")
    ratio = "" if row.who.startswith("negbank") else f"{table.ratio(row):.2f}"
    return row.who, row.setting, recall, f"{median:.1f}", f"{low:.1f} - {high:.1f}", ratio


def machine() -> str:
    """CPU, cores and system."""
    described = Path("/proc/cpuinfo")
    text = described.read_text() if described.exists() else ""
    model = next((x.split(":")[1].strip() for x in text.splitlines() if x.startswith("model name")), platform.machine())
    system = f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {system}"


def commit() -> str:
    """Of the source tree; what is not committed is not named."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def as_table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table."""
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(head + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"
