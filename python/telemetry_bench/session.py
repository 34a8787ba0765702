"""A session: four new servers, pressed in short slices by turns."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .connection import Connection
from .loads import Load
from .readings import ARMS, Readings
from .serving import SILENT, WATCHED, Arm

# Of a slice, about; but no less than twice the calls that are in flight. A round has eight slices.
SLICE_SECONDS = 0.005
WARM_UP_SECONDS = 0.3
# Of a server's own slices, between two times that it is asked for its metrics; Prometheus asks every 15.
SCRAPED_EVERY = 1.0


@contextmanager
def serving(endpoint: str, chance: random.Random) -> Iterator[dict[str, Arm]]:
    """All four, started and filled in random order; traces go to `endpoint`."""
    settings = {"without": SILENT, "control": SILENT, "with": WATCHED, "traced": (*WATCHED, f"traces.endpoint={endpoint}")}
    arms: dict[str, Arm] = {}
    try:
        for name in chance.sample(ARMS, len(ARMS)):
            arms[name] = Arm(*settings[name])
            arms[name].fill()
        yield arms
    finally:
        for arm in arms.values():
            arm.stop()


def measured(arms: dict[str, Arm], load: Load, seconds: float, chance: random.Random) -> Readings:
    """Rounds of a load for so long, one at least.

    In a round each server has a slice in random order, and then one in the reverse order.
    """
    connections = {name: arms[name].connect(load) for name in ARMS}
    readings = Readings(warmed_up(connections, load))
    unasked = dict.fromkeys(ARMS, 0.0)
    before = {name: arms[name].cpu_seconds() for name in ARMS}
    until = time.perf_counter() + seconds
    while not readings.rounds or time.perf_counter() < until:
        took, used, answered = dict.fromkeys(ARMS, 0.0), dict.fromkeys(ARMS, 0.0), dict.fromkeys(ARMS, 0)
        order = chance.sample(ARMS, len(ARMS))
        for name in order + order[::-1]:
            used_before = arms[name].cpu_seconds()
            slice_took, slice_answered = connections[name].press(readings.calls, load.in_flight)
            used[name] += arms[name].cpu_seconds() - used_before
            took[name] += slice_took
            answered[name] += slice_answered
            unasked[name] += slice_took
            if unasked[name] >= SCRAPED_EVERY:
                arms[name].scrape()
                unasked[name] = 0.0
        if len(set(answered.values())) > 1:
            raise RuntimeError(f"the servers answered the same calls with different numbers of bytes: {answered}")
        readings.add(took, used)
    for name in ARMS:
        readings.between[name] = arms[name].cpu_seconds() - before[name] - sum(readings.cpu[name])
    return readings


def warmed_up(connections: dict[str, Connection], load: Load) -> int:
    """Presses all servers alike for a while, and returns how many calls a slice should have."""
    calls, pressed = 2 * load.in_flight, 0.0
    while pressed < WARM_UP_SECONDS:
        took = sum(connection.press(calls, load.in_flight)[0] for connection in connections.values()) / len(connections)
        pressed += took
        calls = max(2 * load.in_flight, round(calls * SLICE_SECONDS / took))
    return calls
