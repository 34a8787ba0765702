"""`python -m trials`: trains through negbank with small batches and with ever harder negatives, and times a step; writes
docs/training.md and methods.json. See small_batches.py, hardness.py and overhead.py for what is compared."""

from __future__ import annotations

import os

for _library in ("OMP", "OPENBLAS", "MKL"):  # before numpy is loaded, here and in the workers
    os.environ[f"{_library}_NUM_THREADS"] = "1"

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from importlib import import_module  # noqa: E402
from pathlib import Path  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY / "examples"))

from demo.report import machine  # noqa: E402
from demo.service import running_server  # noqa: E402

PARTS = ("small_batches", "hardness", "overhead")  # modules, imported when they are run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trials", description=__doc__)
    parser.add_argument("--server-binary", type=Path, default=REPOSITORY / "target" / "release" / "negbank")
    parser.add_argument("--reports", type=Path, default=REPOSITORY / "target" / "reports")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="the others keep their figures")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    report = options.reports / "methods.json"
    figures = json.loads(report.read_text()) if report.exists() else {}
    with running_server(options.server_binary, options.reports / "methods-server.log") as address:
        for part in options.parts:
            started = time.perf_counter()
            print(f"{part} ...", flush=True)
            found = import_module(f".{part}", __package__).measure(address, options.seeds, options.workers)
            figures[part] = {"machine": machine(), "seconds": round(time.perf_counter() - started), **found}
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text(json.dumps(figures, indent=2) + "\n")
    from . import document

    page = REPOSITORY / "docs" / "training.md"
    page.write_text(document.page(figures, page.read_text()))
    print(f"Wrote docs/training.md and {report}.")


if __name__ == "__main__":
    main()
