"""What a run found."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Row:
    """One contender in one case. Times are microseconds an anchor: first quartile, median, third quartile."""

    who: str
    setting: str
    recall: float | None
    times: np.ndarray
    reached: bool = True


@dataclass(frozen=True)
class Table:
    """One case at one size; negbank's own forms come first."""

    case: str
    entries: int
    k: int
    wanted: float | None
    plan: str
    rows: list[Row]

    def ratio(self, row: Row) -> float:
        """negbank's time with ids alone (random draws: with rows), over that of the row."""
        return float(self.rows[0].times[1] / row.times[1])


@dataclass
class Results:
    """All tables, what could not take part, and how long builds took."""

    tables: list[Table] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    builds: dict[int, dict[str, float]] = field(default_factory=dict)
    turns: int = 0
    seconds: float = 0.0

    def as_json(self, batch: int) -> dict:
        """`target/reports/peers.json`: a case for each peer in each table."""
        cases = []
        for table in self.tables:
            ours = table.rows[0]
            for row in table.rows:
                if row.who.startswith("negbank"):
                    continue
                cases.append(
                    {
                        "name": table.case,
                        "n": table.entries,
                        "batch": batch,
                        "k": table.k,
                        "plan": table.plan,
                        "us_per_anchor": round(float(ours.times[1]), 3),
                        "recall": ours.recall,
                        "peer": row.who,
                        "peer_us_per_anchor": round(float(row.times[1]), 3),
                        "peer_recall": row.recall,
                        "peer_setting": row.setting,
                        "ratio": round(table.ratio(row), 4),
                    }
                )
        return {"cases": cases, "missing": self.missing}
