"""Of which of the two Lightnings the callback is; both are stood in for, since but one of them is installed here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# A line for each argument, modules that are imported before the callback's: the module of its base.
PROGRAM = """
import sys
import negbank.torch.keeper
for before in sys.argv[1:]:
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning", "negbank.lightning"):
        sys.modules.pop(name, None)
    for name in before.split():
        __import__(name)
    from negbank.lightning import BankCallback
    print(BankCallback.__base__.__module__)
"""


def families(folder: Path, *before: str) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    run = subprocess.run([sys.executable, "-c", PROGRAM, *before], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def stand_in(package: Path, text: str = "class Callback: ...") -> None:
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(text)


def test_the_callback_is_of_the_lightning_that_is_imported_or_else_the_newer(tmp_path: Path) -> None:
    stand_in(tmp_path / "pytorch_lightning")
    stand_in(tmp_path / "lightning", "")
    # That one has no `lightning.pytorch`.
    assert families(tmp_path, "", "pytorch_lightning") == ["pytorch_lightning"] * 2
    stand_in(tmp_path / "lightning" / "pytorch")
    both = "pytorch_lightning lightning.pytorch"
    chosen = families(tmp_path, "", "lightning.pytorch", "pytorch_lightning", both)
    assert chosen == ["lightning.pytorch", "lightning.pytorch", "pytorch_lightning", "lightning.pytorch"]
