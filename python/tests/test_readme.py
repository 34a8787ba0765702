"""The README's Python example, run as it stands."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from server_process import ServerProcess

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
