"""Threads that look at a server beside what is measured."""

from __future__ import annotations

import re
import sys
import threading
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from server_process import ServerProcess  # noqa: E402


class Beside:
    """Something that is done again and again in a thread of its own; what fails there fails when it ends."""

    def __init__(self, every: float) -> None:
        self._every, self._over = every, threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def once(self) -> None:
        """What is done."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self.once()
                self._over.wait(self._every)
        except BaseException as fault:
            self._fault = fault

    def __enter__(self) -> Any:
        self._over.clear()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._fault:
            raise self._fault


class Memory(Beside):
    """A server's account of its memory, and the most that it told."""

    def __init__(self, server: ServerProcess) -> None:
        super().__init__(0.05)
        self._server, self.most = server, Counter[str]()

    def parts(self) -> dict[str, float]:
        """Bytes by part."""
        text = urllib.request.urlopen(f"http://{self._server.probes}/metrics", timeout=20).read().decode()
        return {part: float(taken) for part, taken in re.findall(r'^negbank_memory_bytes\{part="(\w+)"\} (\S+)$', text, re.M)}

    def resident(self, line: str) -> int:
        """Bytes that the process has (VmRSS), or had at most (VmHWM)."""
        status = Path(f"/proc/{self._server.pid}/status").read_text()
        told_kib = re.search(rf"^{line}:\s+(\d+) kB", status, re.M)
        return int(told_kib[1]) * 1_024 if told_kib else 0

    def once(self) -> None:
        for part, taken in self.parts().items():
            self.most[part] = max(self.most[part], int(taken))
