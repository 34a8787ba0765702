"""Servers that differ in their telemetry alone, and the collector that takes the traces of one."""

from __future__ import annotations

import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

import negbank

from .connection import Connection
from .loads import BANK, PATH, Load

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from server_process import ServerProcess  # noqa: E402

DIM, ENTRIES, BATCH = 128, 65_536, 8_192
# Only the line that says where it listens; nor is anything measured where nobody can ask.
SILENT = ("log.filter=off,negbank::app=info",)
WATCHED = ("http.listen=127.0.0.1:0",)


class Arm:
    """A server with a bank of its own, and the connection of the load that it is under."""

    def __init__(self, *settings: str) -> None:
        self._server = ServerProcess(*settings)
        self._clock = cpu_clock(self._server.pid)
        self._connection: Connection | None = None

    def fill(self) -> None:
        """65,536 unit vectors of 128 floats."""
        bank = negbank.connect(self._server.address).create_bank(BANK, dim=DIM)
        rng = np.random.default_rng(1)
        for first in range(0, ENTRIES, BATCH):
            bank.write(range(first, first + BATCH), rng.standard_normal((BATCH, DIM), dtype=np.float32))

    def connect(self, load: Load) -> Connection:
        """A new connection for a load, whose first call is seen to be answered in full.

        The one before is closed: nobody would answer the server's pings on it.
        """
        messages = load.messages()
        with grpc.insecure_channel(self._server.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
            served = load.served(channel.unary_unary(PATH)(messages[0], timeout=20))
        if served != load.negatives:
            raise RuntimeError(f"a call for {load.negatives} negatives was answered with {served}")
        self._close()
        self._connection = Connection(self._server.address, PATH, messages)
        return self._connection

    def cpu_seconds(self) -> float:
        """What the server has used until now, in the kernel too."""
        return time.clock_gettime(self._clock)

    def scrape(self) -> None:
        """Asks for the metrics, where there are any."""
        if self._server.probes:
            urllib.request.urlopen(f"http://{self._server.probes}/metrics", timeout=20).read()

    def stop(self) -> None:
        """Ends the server."""
        self._close()
        self._server.stop()

    def _close(self) -> None:
        if self._connection:
            self._connection.close()


class Collector:
    """Takes spans over OTLP and forgets them."""

    def __init__(self) -> None:
        self.exports = 0
        self._server = grpc.server(ThreadPoolExecutor(1))
        method = {"Export": grpc.unary_unary_rpc_method_handler(self._export)}
        name = "opentelemetry.proto.collector.trace.v1.TraceService"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, method),))
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _export(self, _: bytes, __: grpc.ServicerContext) -> bytes:
        self.exports += 1
        return b""

    def stop(self) -> None:
        """Ends it."""
        self._server.stop(None).wait()


def cpu_clock(pid: int) -> int:
    """The clock of a process's CPU time, in nanoseconds (Linux: what clock_getcpuclockid(3) makes of a pid)."""
    return (~pid << 3) | 2
