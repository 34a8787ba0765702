"""A real server in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
STARTS_WITHIN = 20.0


class ServerProcess:
    """`negbank serve` on a free port of 127.0.0.1, with settings such as "limits.max_banks=1".

    All its banks are recovered, unless `recovered` is False: then it may still be reading them. With
    "http.listen=127.0.0.1:0" it answers probes at `probes`. `program` takes the place of `negbank`.
    """

    def __init__(self, *settings: str, port: int | None = None, program: Sequence[str] = (), recovered: bool = True) -> None:
        flags = [part for setting in settings for part in ("--set", setting)]
        listen = ["--listen", f"127.0.0.1:{port or 0}", "--set", "http.listen=none"]
        command = [*(program or [str(binary())]), "serve", *listen, *flags]
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        try:
            self.port = int(self._announced(r"serving address=127\.0\.0\.1:(\d+)")[1])
            if recovered:
                self._announced(r"ready banks=\d+")
            self.pid = self._process.pid
            self.address = f"127.0.0.1:{self.port}"
            probes = re.search(r"probes=(\S+)", self._output())
            self.probes = probes[1] if probes else None
        except BaseException:
            self.stop()
            raise

    def suspend(self) -> None:
        """Stops the process's threads: connections stay open, and nothing answers.

        The signal alone is a request: the parent hears once the last thread has stopped, and until then one may still answer.
        """
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self) -> None:
        """Undoes `suspend`."""
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> int:
        """Asks the process to end, and returns its exit status."""
        self._process.terminate()
        return self._process.wait(STARTS_WITHIN)

    def kill(self) -> None:
        """Ends the process at once, suspended or not."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ends the process and forgets what it said."""
        self.kill()
        self._log.close()

    def _announced(self, pattern: str) -> re.Match[str]:
        """What the server says of itself, such as its port: asking for a free one before would leave a moment to lose it."""
        give_up = time.monotonic() + STARTS_WITHIN
        while True:
            announced = re.search(pattern, self._output())
            if announced:
                return announced
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with {self._process.returncode}:\n{self._output()}")
            if time.monotonic() > give_up:
                raise RuntimeError(f"not serving within {STARTS_WITHIN} s:\n{self._output()}")
            time.sleep(0.01)

    def _output(self) -> str:
        # Not by seeking: the process writes where the file that it shares with us stands.
        file = self._log.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def binary() -> Path:
    """The server to test."""
    given = os.environ.get("NEGBANK_SERVER")
    built = [REPOSITORY / "target" / profile / "negbank" for profile in ("release", "debug")]
    candidates = [Path(given)] if given else built
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    tried = ", ".join(map(str, candidates))
    raise FileNotFoundError(f"there is no server at {tried}: build it (cargo build --release) or name it in NEGBANK_SERVER")
