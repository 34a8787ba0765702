"""What the telemetry costs: sampling with metrics and logs, with traces too, and without any, in turns on one machine.

Three servers, each with a bank of its own of the same entries; every round presses each of them for the same short time, in
another order than the round before, all six in turn, so that a machine that slowly gets faster or slower favours none. Metrics
are read once a round, which is more often than Prometheus does; of a million calls 10,000 are traced, the default, and sent to
a collector here, which takes its share of the machine. Where others use it too, the server's CPU time a row tells more than
rows a second, so both are told.

The promise is that metrics and logs take no more than 3 % of the throughput of either load: the median over the rounds of what
a server with them did, beside the one without in the same round. Rounds go on until the median's 95 % interval lies wholly on
one side of that: then it is shown, or shown to be false. It is looked at every 24 rounds; by looking up to five times one errs
a little more often than the one time in twenty of a single look. After the last round it is said to be not shown, which fails
too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np

import negbank

sys.path.append(str(Path(__file__).parent / "tests"))

from server_process import ServerProcess, binary  # noqa: E402

ALLOWED = 0.97
# A multiple of the six orders.
ROUNDS_BETWEEN_LOOKS = 24
WARM_UP = "0.1"
WATCHED = ("http.listen=127.0.0.1:0",)
BANK, DIM, ENTRIES = "bench", 128, 65_536
LOADS = {
    "batches": ["--anchors", "256", "--k", "64"],
    "small_calls": ["--anchors", "8", "--k", "16", "--form", "ids", "--concurrency", "16"],
}


def main() -> None:
    """Prints a line a figure, and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=Path)
    parser.add_argument("--rounds", type=int, default=120, help="of each load, at most (120)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each round, server and load (0.5)")
    arguments = parser.parse_args()
    collector, endpoint, spans = collect()
    servers = {
        # Only the line that says where it listens.
        "without": ServerProcess("log.filter=off,negbank::app=info"),
        "with": ServerProcess(*WATCHED),
        "traced": ServerProcess(*WATCHED, f"traces.endpoint={endpoint}"),
    }
    try:
        for server in servers.values():
            fill(server)
        figures = {name: measured(servers, load, arguments.rounds, arguments.seconds) for name, load in LOADS.items()}
    finally:
        for server in servers.values():
            server.stop()
        collector.stop(None)
    assert spans[0] > 0, "nothing was traced"
    report = figures["batches"] | {"loads": figures, "cpus": os.cpu_count(), "exports": spans[0]}
    if arguments.reports:
        arguments.reports.mkdir(parents=True, exist_ok=True)
        (arguments.reports / "telemetry.json").write_text(json.dumps(report, indent=2) + "\n")

    failures = [failure(load, of_load) for load, of_load in figures.items() if of_load["verdict"] != "shown"]
    sys.exit("\n".join(failures) or None)


def failure(load: str, figures: dict[str, Any]) -> str:
    """What keeps it from being shown."""
    low, high = figures["ratio_95"]
    of_rounds = f"{figures['ratio']:.3f} of without (95 % {low:.3f} to {high:.3f}) in {figures['rounds']} rounds"
    if figures["verdict"] == "false":
        return f"*** {load}: {of_rounds}: less than {ALLOWED} ***"
    return f"*** {load}: NOT SHOWN that it is at least {ALLOWED}: {of_rounds}; take more rounds, or a quieter machine ***"


def verdict(interval_95: list[float]) -> str:
    """What the interval of the median says of the promise."""
    low, high = interval_95
    return "shown" if low >= ALLOWED else "false" if high < ALLOWED else "not shown"


def measured(servers: dict[str, ServerProcess], load: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Medians of each server, and how those of one round compare, of as many rounds as it takes to tell, or all."""
    rates: dict[str, list[float]] = {name: [] for name in servers}
    costs: dict[str, list[float]] = {name: [] for name in servers}
    print(" ".join(load), flush=True)
    # Warms up.
    for server in servers.values():
        pressed(server, load, seconds)
    orders = itertools.cycle(itertools.permutations(servers))
    for number, order in enumerate(itertools.islice(orders, rounds), 1):
        for name in order:
            rate, cost = pressed(servers[name], load, seconds)
            rates[name].append(rate)
            costs[name].append(cost)
        if number % ROUNDS_BETWEEN_LOOKS == 0:
            so_far = interval(beside(rates, "with"))
            print(f"{number} rounds: 95 % {so_far[0]:.3f} to {so_far[1]:.3f}", flush=True)
            if verdict(so_far) != "not shown":
                break
    figures = compared(rates, costs)
    return figures | {"rounds": len(rates["with"]), "verdict": verdict(figures["ratio_95"])}


def beside(of_servers: dict[str, list[float]], name: str) -> list[float]:
    """Of each round, that server's figure as a part of the one's without."""
    return [mine / plain for mine, plain in zip(of_servers[name], of_servers["without"], strict=True)]


def compared(rates: dict[str, list[float]], costs: dict[str, list[float]]) -> dict[str, Any]:
    """What the report has of a load."""
    figures: dict[str, Any] = {f"{name}_rows_s": statistics.median(of_one) for name, of_one in rates.items()}
    figures |= {f"{name}_cpu_us_a_row": 1e6 * statistics.median(of_one) for name, of_one in costs.items()}
    for name, prefix in (("with", ""), ("traced", "traced_")):
        throughput, cpu = sorted(beside(rates, name)), sorted(beside(costs, name))
        for key, ratios in ((f"{prefix}ratio", throughput), (f"{prefix}cpu_ratio", cpu)):
            low, middle, high = ratios[len(ratios) // 4], statistics.median(ratios), ratios[-1 - len(ratios) // 4]
            sure = interval(ratios)
            figures |= {key: middle, f"{key}_quartiles": [low, high], f"{key}_95": sure}
            print(f"{key}: {middle:.3f} of without; quartiles {low:.3f} to {high:.3f}, 95 % {sure[0]:.3f} to {sure[1]:.3f}")
    return figures


def interval(ratios: list[float]) -> list[float]:
    """Where the median lies with 95 %, by drawing the rounds again (percentile bootstrap, Efron 1979)."""
    rng = np.random.default_rng(1)
    medians = np.median(rng.choice(sorted(ratios), (10_000, len(ratios))), axis=1)
    return [float(bound) for bound in np.percentile(medians, [2.5, 97.5])]


def fill(server: ServerProcess) -> None:
    """65,536 unit vectors of 128 floats."""
    bank = negbank.connect(server.address).create_bank(BANK, dim=DIM)
    rng = np.random.default_rng(1)
    for first in range(0, ENTRIES, 8_192):
        bank.write(range(first, first + 8_192), rng.standard_normal((8_192, DIM), dtype=np.float32))


def pressed(server: ServerProcess, load: list[str], seconds: float) -> tuple[float, float]:
    """Rows a second that one round was served, and the server's CPU seconds a row."""
    command = [
        str(binary()),
        "bench",
        "--json",
        "--address",
        server.address,
        "--bank",
        BANK,
        "--warm-up",
        WARM_UP,
        "--duration",
        str(seconds),
        *load,
    ]
    before = cpu_seconds(server.pid)
    told = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)["requests"]
    if server.probes:
        urllib.request.urlopen(f"http://{server.probes}/metrics", timeout=20).read()
    return float(told["negatives_s"]), (cpu_seconds(server.pid) - before) / max(1, told["negatives"])


def cpu_seconds(pid: int) -> float:
    """What a process has used, in the kernel too."""
    user, kernel = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(kernel)) / os.sysconf("SC_CLK_TCK")


def collect() -> tuple[grpc.Server, str, list[int]]:
    """A collector, its URL, and the number of exports that it was sent."""
    exports = [0]

    def export(_: bytes, __: grpc.ServicerContext) -> bytes:
        exports[0] += 1
        return b""

    server = grpc.server(ThreadPoolExecutor(1))
    method = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    name = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, method),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"http://127.0.0.1:{port}", exports


if __name__ == "__main__":
    main()
