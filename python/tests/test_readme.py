"""The README's Python example and its commands, run as they stand."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from pathlib import Path

import numpy as np

import negbank
from server_process import ServerProcess, binary

README = Path(__file__).parents[2] / "README.md"


def test_the_example_prints_what_the_readme_shows(own_server: ServerProcess) -> None:
    text = README.read_text()
    example = re.search(r"```python\n(.*?)```", text, re.S)
    shown = re.search(r"```text\n(.*?)```", text, re.S)
    assert example
    assert shown
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(example[1].replace("127.0.0.1:7700", own_server.address), {})
    assert printed.getvalue() == shown[1]


def test_the_commands_run(location: str, tmp_path: Path) -> None:
    commands = re.findall(
        r"^    negbank ((?:checkpoint|export|import|top|bank|sample|doctor)\b[^#\n]*)", README.read_text(), re.M
    )
    assert len(commands) >= 8
    server = ServerProcess(location, "http.listen=127.0.0.1:0")
    client = negbank.connect(server.address)
    bank = client.create_bank("docs", dim=4)
    bank.write(np.arange(20), np.ones((20, 4), np.float32), step=40_000)
    for command in commands:
        probes = ["--probes", str(server.probes)] if command.startswith(("top", "doctor")) else []
        arguments = [str(binary()), *command.split(), "--address", server.address, *probes]
        ran = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert ran.returncode == 0, f"{command}: {ran.stderr}"
    assert client.bank("docs").info().entries == 20
    server.stop()
