"""docs/debugging.md: every command, in order, against a real server with the real grpcurl."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from installed_tools import REPOSITORY, tool
from server_process import ServerProcess

PAGE = (REPOSITORY / "docs" / "debugging.md").read_text()
# What is built, checked or awaited in the background has shown by then.
WITHIN = 60.0
PROGRAMS = ("grpcurl", "curl", "awk")


def commands() -> list[tuple[str, str]]:
    """The page's commands, each with the output shown under it."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, re.S | re.M)
    shown = [re.split(r"^\$ ", block, flags=re.M)[1:] for block in blocks]
    return [parted(entry) for block in shown for entry in block]


def parted(entry: str) -> tuple[str, str]:
    """A command goes on while a quote is open, or after a backslash or a pipe."""
    lines = entry.splitlines()
    end = 1
    while lines[end - 1].endswith(("\\", "|")) or "\n".join(lines[:end]).count("'") % 2:
        end += 1
    return "\n".join(lines[:end]), "\n".join(lines[end:])


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    start, _ = commands()[0]
    settings = re.findall(r"--set (\S+)", start)
    assert start.startswith("negbank serve")
    assert settings
    process = ServerProcess("http.listen=127.0.0.1:0", *settings)
    yield process
    process.stop()


def test_every_command_prints_what_the_page_shows(server: ServerProcess) -> None:
    path = os.pathsep.join([*(str(Path(tool(name)).parent) for name in PROGRAMS), os.environ["PATH"]])
    asked = commands()[1:]
    assert len(asked) >= 20
    for command, shown in asked:
        assert command.startswith(PROGRAMS), command
        here = command.replace("127.0.0.1:7700", server.address).replace("127.0.0.1:7701", str(server.probes))
        give_up = time.monotonic() + WITHIN
        while not is_shown(printed := ran(here, path), shown):
            # Looking again changes nothing; any other command is given once.
            looks_again = "GetBank" in command and time.monotonic() < give_up
            assert looks_again, f"$ {command}\n{printed}\nis not what the page shows:\n{shown}"
            time.sleep(0.2)


def test_the_page_is_compared_line_by_line() -> None:
    assert is_shown("a\nb 1\nc", "a\nb …\nc")
    assert is_shown("a\nb\nc", "a\n…")
    assert is_shown("a\nb\nc", "…\nc")
    assert not is_shown("a\nb\nc", "a\nc")
    assert not is_shown("a\nb\nc", "…\nb")
    assert not is_shown("a", "")
    assert parted("curl 'a\nb' | \\\n c\nout") == ("curl 'a\nb' | \\\n c", "out")


def ran(command: str, path: str) -> str:
    """What it prints, errors too."""
    run = subprocess.run(
        ["bash", "-c", command],
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    return run.stdout


def is_shown(printed: str, shown: str) -> bool:
    """Whether that is what was printed: a `…` is the rest of its line, and on a line of its own any lines."""
    wanted = (r"(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in shown.splitlines())
    text = printed.rstrip() + "\n" if printed.strip() else ""
    return re.fullmatch("".join(wanted), text) is not None
