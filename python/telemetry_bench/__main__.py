"""What the telemetry costs: sampling with metrics and logs, with traces too, and without any.

The promise is that with either of them a server keeps 97 % of the throughput that it has without, under either load: batches of
256 x 64 negatives with their embeddings, four calls in flight, and small calls of 8 x 16 ids, sixteen in flight.

How it is measured. The machine is shared, and its speed changes from one millisecond to the next; so everything is compared
with what was done close by. A session starts four servers: two without telemetry, one with metrics and logs as they are by
default, and one that also traces 10,000 of a million calls, the default, for a collector here. A client that costs little
beside them presses one after the other with the same calls, in slices of 5 ms, or more where that is less than twice the calls
in flight; a slice ends with its last answer. A round is a slice of each in random order, and again in the reverse order, so
that what gets steadily faster or slower favours none. It gives the logarithm of a server's throughput less the mean of those of
the two without. The estimate of a session is the mean of its rounds without the highest and the lowest tenth; `untrimmed_ratio`
leaves out none, and so is moved more by what others do. What a server does between its slices is charged in full: the CPU time
is added to that of its slices, as if calls had waited for it. Metrics are asked for there, after each second of a server's
slices, and most spans are sent there.

How sure it is. Rounds that follow each other are alike, and two servers of the same settings differ for as long as they live.
So a session is one observation, with servers of its own, and the interval is Student's of the sessions' estimates: whatever
hangs together within a session is in it. Lag-1 correlations of rounds and of sessions are reported. It is looked at after 6,
12, 18 and 24 sessions, and a load is done when its intervals lie wholly on one side of 97 %. Who looks four times errs more
often than who looks once; so the looks share the 5 % (0.5, 1, 1.5 and 2 %), which makes each interval wider and lets all
together miss once in twenty. What is not known in the end fails too, and says so.

How noisy it was. The two without telemetry are compared in the same way (`control_ratio`), which is how far equal servers seem
to differ. If that interval lies beyond 3 %, the measurement is wrong and shows nothing. The second reading is the server's CPU
time of a call, of all that it did from the first round to the last, by its own clock (`cpu_ratio`): others disturb it less, and
what waits is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from .evidence import ALLOWED, LOOKS, PREFIXES, PROMISED, Evidence
from .loads import LOADS
from .serving import Collector
from .session import measured, serving

SESSIONS = max(LOOKS)


def main() -> None:
    """Prints a line a figure, and reports."""
    parser = argparse.ArgumentParser(prog="python -m telemetry_bench", description=__doc__)
    parser.add_argument("--reports", type=Path)
    possible = range(2, SESSIONS + 1)
    parser.add_argument("--sessions", type=int, choices=possible, metavar="2-24", default=SESSIONS, help="at most (24)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a session's rounds, those of both loads together (20)")
    parser.add_argument("--minutes", type=float, default=12.0, help="no session begins that might end later (12)")
    arguments = parser.parse_args()
    collector = Collector()
    try:
        evidence = gathered(collector.endpoint, arguments.sessions, arguments.seconds, 60 * arguments.minutes)
    finally:
        collector.stop()
    figures = {name: of_load.figures(LOADS[name].negatives) for name, of_load in evidence.items()}
    report = figures["batches"] | {"loads": figures, "cpus": os.cpu_count(), "exports": collector.exports}
    if arguments.reports:
        arguments.reports.mkdir(parents=True, exist_ok=True)
        (arguments.reports / "telemetry.json").write_text(json.dumps(report, indent=2) + "\n")
    for name, of_load in figures.items():
        print("\n".join(lines(name, of_load)), flush=True)
    failures = [failure(name, of_load) for name, of_load in figures.items() if of_load["verdict"] != "shown"]
    if not collector.exports:
        failures.append("*** no call was traced: the collector was sent nothing ***")
    sys.exit("\n".join(failures) or None)


def gathered(endpoint: str, sessions: int, seconds: float, limit: float) -> dict[str, Evidence]:
    """As many sessions as it takes to tell, or as there may be, or as fit into `limit` seconds; two at least."""
    evidence = {name: Evidence() for name in LOADS}
    chance, unknown, longest, began = random.Random(), list(LOADS), 0.0, time.perf_counter()
    for number in range(1, sessions + 1):
        session_began = time.perf_counter()
        if number > 2 and session_began + longest > began + limit:
            break
        with serving(endpoint, chance) as arms:
            for name in chance.sample(unknown, len(unknown)):
                evidence[name].sessions.append(measured(arms, LOADS[name], seconds / len(unknown), chance))
        longest = max(longest, time.perf_counter() - session_began)
        if number in LOOKS:
            unknown = [name for name in unknown if evidence[name].verdict() == "not shown"]
            took = time.perf_counter() - began
            print(f"{number} sessions, {took:.0f} s; unknown: {', '.join(unknown) or 'nothing'}", flush=True)
        if not unknown:
            break
    return evidence


def lines(load: str, figures: dict[str, Any]) -> list[str]:
    """What is printed of a load."""
    told = [f"{load}: {figures['verdict']}; {figures['sessions']} sessions, {figures['rounds']} rounds"]
    for prefix in PREFIXES.values():
        told += [f"  {prefix + key:<24} {beside(figures, prefix + key)}" for key in ("ratio", "untrimmed_ratio", "cpu_ratio")]
        alike = figures[f"{prefix}autocorrelation"]
        told.append(f"    lag-1 correlation of rounds {alike['rounds']:+.2f}, of sessions {alike['sessions']:+.2f}")
    return told


def failure(load: str, figures: dict[str, Any]) -> str:
    """What keeps it from being shown."""
    found = "; ".join(f"{name} {beside(figures, PREFIXES[name] + 'ratio')}" for name in (*PROMISED, "control"))
    found = f"{found}; {figures['sessions']} sessions"
    if figures["verdict"] == "false":
        return f"*** {load}: less than {ALLOWED} of the rate without telemetry: {found} ***"
    return f"*** {load}: NOT SHOWN to be at least {ALLOWED} of the rate without telemetry: {found}; take a quieter machine ***"


def beside(figures: dict[str, Any], key: str) -> str:
    """A ratio and its interval."""
    low, high = figures[f"{key}_95"]
    return f"{figures[key]:.3f} (95 % {low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
