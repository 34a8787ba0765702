"""What one session measured of one load."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

# Of the first two what the others are compared with is the geometric mean: neither has telemetry.
ARMS = ("without", "control", "with", "traced")
# Of a session's rounds, at either end.
TRIMMED = 0.1

Logs = NDArray[np.float64]


@dataclass
class Readings:
    """Of each server, round after round: the seconds of its two slices, and the CPU seconds that it used in them."""

    # Of a slice.
    calls: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in ARMS})
    cpu: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in ARMS})
    # CPU seconds that a server used between its slices: for whoever asks for metrics, for exports of traces, for its clocks.
    between: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ARMS, 0.0))

    @property
    def rounds(self) -> int:
        """How many there were."""
        return len(self.seconds["without"])

    def add(self, seconds: dict[str, float], cpu: dict[str, float]) -> None:
        """A round."""
        for name in ARMS:
            self.seconds[name].append(seconds[name])
            self.cpu[name].append(cpu[name])

    def rates(self, name: str) -> Logs:
        """Of each round, calls a second of that server, as ln of what they are beside the two without."""
        return -beside(self.seconds, name)

    def costs(self, name: str) -> Logs:
        """Of each round, CPU of a call, likewise."""
        return beside(self.cpu, name)

    def throughput(self, name: str) -> float:
        """Of the session: the trimmed mean of the rounds, less what the server did between its slices."""
        return float(stats.trim_mean(self.rates(name), TRIMMED)) - self.charge(name)

    def untrimmed(self, name: str) -> float:
        """Of the session: of all its calls and all their seconds."""
        return -beside(self._totals(self.seconds), name).item() - self.charge(name)

    def cpu_cost(self, name: str) -> float:
        """Of the session: CPU of a call, of all that was used from the first round to the last."""
        totals = self._totals(self.cpu)
        return beside({arm: [used + self.between[arm] for used in totals[arm]] for arm in ARMS}, name).item()

    def cpu_seconds(self, name: str) -> float:
        """Of a call, likewise."""
        return (sum(self.cpu[name]) + self.between[name]) / (2 * self.rounds * self.calls)

    def charge(self, name: str) -> float:
        """What a server did between its slices, as if its calls had waited for it (ln)."""
        charged = {arm: [1 + self.between[arm] / sum(self.seconds[arm])] for arm in ARMS}
        return beside(charged, name).item()

    @staticmethod
    def _totals(of_rounds: dict[str, list[float]]) -> dict[str, list[float]]:
        return {name: [sum(of_one)] for name, of_one in of_rounds.items()}


def beside(of_arms: dict[str, list[float]], name: str) -> Logs:
    """ln of one server's figures, less those of the two without; of `control` less those of `without`."""
    logs = {arm: np.log(figures) for arm, figures in of_arms.items()}
    plain = logs["without"] if name == "control" else (logs["without"] + logs["control"]) / 2
    return np.asarray(logs[name] - plain)
