"""What the telemetry costs: sampling with metrics and logs, with traces too, and without any, in turns on one machine.

Three servers, each with a bank of its own of the same entries; every round presses each of them in another order, for the same time.
Metrics are read once a round, which is more often than Prometheus does; of a million calls 10,000 are traced, the default, and sent to a
collector here, which takes its share of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

sys.path.append(str(Path(__file__).parent / "tests"))

from server_process import ServerProcess, binary  # noqa: E402

WATCHED = ("http.listen=127.0.0.1:0", "log.format=json")
LOADS = {
    "batches": ["--anchors", "256", "--k", "64"],
    "small_calls": ["--anchors", "8", "--k", "16", "--form", "ids", "--concurrency", "16"],
}


def main() -> None:
    """Prints a line a figure, and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round, server and load")
    arguments = parser.parse_args()
    collector, endpoint, spans = collect()
    servers = {
        "without": ServerProcess("log.filter=off"),
        "with": ServerProcess(*WATCHED),
        "traced": ServerProcess(*WATCHED, f"traces.endpoint={endpoint}"),
    }
    try:
        figures = {name: measured(servers, load, arguments.rounds, arguments.seconds) for name, load in LOADS.items()}
    finally:
        for server in servers.values():
            server.stop()
        collector.stop(None)
    assert spans[0] > 0, "nothing was traced"
    report = figures["batches"] | {"loads": figures, "rounds": arguments.rounds, "cpus": os.cpu_count(), "exports": spans[0]}
    if arguments.reports:
        arguments.reports.mkdir(parents=True, exist_ok=True)
        (arguments.reports / "telemetry.json").write_text(json.dumps(report, indent=2) + "\n")


def measured(servers: dict[str, ServerProcess], load: list[str], rounds: int, seconds: float) -> dict[str, float]:
    """Median rows a second of each server, and how those of one round compare."""
    rates: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(rounds + 1):
        names = list(servers)
        for name in names[number % 3 :] + names[: number % 3]:
            rate = pressed(servers[name], load, seconds)
            # The first round warms up.
            if number:
                rates[name].append(rate)
    figures = {f"{name}_rows_s": statistics.median(of_one) for name, of_one in rates.items()}
    for name, key in (("with", "ratio"), ("traced", "traced_ratio")):
        ratios = sorted(mine / plain for mine, plain in zip(rates[name], rates["without"], strict=True))
        figures[key] = statistics.median(ratios)
        figures[f"{key}_quartiles"] = [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]]
        print(f"{load}: {name} {figures[f'{name}_rows_s']:,.0f} rows/s, {figures[key]:.3f} of without, {figures[f'{key}_quartiles']}")
    return figures


def pressed(server: ServerProcess, load: list[str], seconds: float) -> float:
    """Rows a second that one round was served."""
    command = [binary(), "bench", "--json", "--address", server.address, "--warm-up", "0.3", "--duration", str(seconds), *load]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    if server.probes:
        urllib.request.urlopen(f"http://{server.probes}/metrics", timeout=20).read()
    return float(told["requests"]["negatives_s"])


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
