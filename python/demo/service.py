"""The service under the demo: started here, or running already, or the in-process stand-in."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from . import local_bank
from .settings import Settings

READY_WITHIN_S = 20.0
STOPPED_WITHIN_S = 40.0  # the server drains for 30 s at most


@contextlib.contextmanager
def running_server(binary: Path, log: Path) -> Iterator[str]:
    """Starts `negbank serve` on a free port of 127.0.0.1, yields its address once it answers, and stops it."""
    import negbank

    if not binary.exists():
        raise SystemExit(f"no server at {binary}: run `cargo build --release`, or give --server-binary or --address")
    address = f"127.0.0.1:{_free_port()}"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        command = [binary, "serve", "--listen", address, "--set", "http.listen=none"]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + READY_WITHIN_S
            while True:
                if process.poll() is not None:
                    raise SystemExit(f"negbank serve ended with code {process.returncode}; its output is in {log}")
                try:
                    negbank.connect(address, timeout=1.0).list_banks()
                    break
                except (negbank.Unavailable, negbank.DeadlineExceeded) as error:
                    if time.monotonic() > deadline:
                        raise SystemExit(f"{address} did not answer in {READY_WITHIN_S:.0f} s; see {log}") from error
                    time.sleep(0.05)
            yield address
        finally:
            _stop(process)


def _stop(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ServedBanks:
    """Makes a bank of the service for each run and removes it afterwards."""

    def __init__(self, address: str) -> None:
        import negbank

        self.api = negbank
        self.client = negbank.connect(address, timeout=30.0)

    @contextlib.contextmanager
    def bank(self, name: str, settings: Settings, rows: int) -> Iterator:
        unique = f"demo-{name}-{uuid.uuid4().hex[:8]}"
        momentum = settings.bank_momentum
        bank = self.client.create_bank(unique, dim=settings.dim, kind="keyed", metric="cosine", momentum=momentum)
        try:
            yield bank
        finally:
            self.client.delete_bank(unique)


class LocalBanks:
    """The same in process, for tuning and for arm F."""

    api = local_bank

    @contextlib.contextmanager
    def bank(self, name: str, settings: Settings, rows: int) -> Iterator:
        yield local_bank.LocalBank(settings.dim, settings.bank_momentum, rows)
