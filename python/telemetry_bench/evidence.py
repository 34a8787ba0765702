"""What the sessions say of one load."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from .readings import ARMS, Logs, Readings

ALLOWED = 0.97
# It is looked at after so many sessions, and each look has its part of the 5 % of runs in which an interval may miss: whichever
# is the last, no more runs end with one that does (Bonferroni). Later looks have more, since more can be told by them.
LOOKS = {6: 0.005, 12: 0.010, 18: 0.015, 24: 0.020}
# What is on unless it is turned off, and traces as well.
PROMISED = ("with", "traced")
# Of the keys in a report.
PREFIXES = {"with": "", "traced": "traced_", "control": "control_"}


class Estimate(NamedTuple):
    """A ratio, and the ends of its interval."""

    ratio: float
    low: float
    high: float


class Evidence:
    """All sessions of one load. A session is one observation, however many rounds it has: rounds share their servers, and what
    slows one down slows the next one too; sessions have servers of their own."""

    def __init__(self) -> None:
        self.sessions: list[Readings] = []

    def estimate(self, of_session: Callable[[Readings, str], float], name: str) -> Estimate:
        """The geometric mean over the sessions, two at least, and Student's interval of it."""
        logs = [of_session(session, name) for session in self.sessions]
        half = stats.t.ppf(1 - may_miss(len(logs)) / 2, len(logs) - 1) * stats.sem(logs)
        middle = statistics.fmean(logs)
        return Estimate(*(float(end) for end in np.exp([middle, middle - half, middle + half])))

    def verdict(self) -> str:
        """What the intervals of throughput say of the promise.

        "false" if that of one server lies below `ALLOWED`, "shown" if none reaches below it, else "not shown", as where the two
        without telemetry are so unlike that the measurement can't be right.
        """
        control = self.estimate(Readings.throughput, "control")
        promised = [self.estimate(Readings.throughput, name) for name in PROMISED]
        if control.high < ALLOWED or control.low > 1 / ALLOWED:
            return "not shown"
        if any(estimate.high < ALLOWED for estimate in promised):
            return "false"
        return "shown" if all(estimate.low >= ALLOWED for estimate in promised) else "not shown"

    def figures(self, negatives: int) -> dict[str, Any]:
        """What a report has of it; a call is answered with `negatives`."""
        found: dict[str, Any] = {f"{name}_rows_s": negatives * self._calls_a_second(name) for name in ARMS}
        found |= {f"{name}_cpu_us_a_row": 1e6 * self._cpu_seconds(name) / negatives for name in ARMS}
        for name, prefix in PREFIXES.items():
            found |= self._of_rounds(f"{prefix}ratio", Readings.throughput, Readings.rates, name)
            found |= self._of_rounds(f"{prefix}cpu_ratio", Readings.cpu_cost, Readings.costs, name)
            found |= keyed(f"{prefix}untrimmed_ratio", self.estimate(Readings.untrimmed, name))
            # How much of the ratio is what was done between the slices.
            found |= {f"{prefix}charged": statistics.fmean(session.charge(name) for session in self.sessions)}
            found[f"{prefix}autocorrelation"] = self._autocorrelation(name)
        found |= {"rounds": sum(session.rounds for session in self.sessions), "sessions": len(self.sessions)}
        return found | {"interval_level": 1 - may_miss(len(self.sessions)), "verdict": self.verdict()}

    def _of_rounds(
        self, key: str, of_session: Callable[[Readings, str], float], of_rounds: Callable[[Readings, str], Logs], name: str
    ) -> dict[str, Any]:
        """An estimate, and the quartiles of single rounds."""
        quartiles = np.exp(np.quantile(np.concatenate([of_rounds(session, name) for session in self.sessions]), [0.25, 0.75]))
        return keyed(key, self.estimate(of_session, name)) | {f"{key}_quartiles": quartiles.tolist()}

    def _calls_a_second(self, name: str) -> float:
        """The median round's."""
        return statistics.median(2 * session.calls / took for session in self.sessions for took in session.seconds[name])

    def _cpu_seconds(self, name: str) -> float:
        """Of a call, the median session's."""
        return statistics.median(session.cpu_seconds(name) for session in self.sessions)

    def _autocorrelation(self, name: str) -> dict[str, float]:
        """Of neighbours: of rounds within a session, the mean over the sessions, and of sessions."""
        within = [neighbours(session.rates(name)) for session in self.sessions if session.rounds > 2]
        between = neighbours([session.throughput(name) for session in self.sessions])
        return {"rounds": statistics.fmean(within) if within else 0.0, "sessions": between}


def may_miss(sessions: int) -> float:
    """The share of cases that the interval of a look at so many sessions may miss; one before its time has that of the next."""
    return next((share for planned, share in LOOKS.items() if sessions <= planned), min(LOOKS.values()))


def keyed(key: str, estimate: Estimate) -> dict[str, Any]:
    """As a report has it."""
    return {key: estimate.ratio, f"{key}_95": [estimate.low, estimate.high]}


def neighbours(values: Sequence[float] | Logs) -> float:
    """Correlation of each with the next one (lag 1); 0 of less than three, or of equal ones."""
    off = np.asarray(values) - np.mean(values)
    spread = float(off @ off)
    return float(off[1:] @ off[:-1]) / spread if len(off) > 2 and spread > 0 else 0.0
