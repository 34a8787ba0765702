"""`python -m demo`: trains a two-tower text encoder through negbank and says what hard negatives were worth.

Queries are the summaries of docstrings, documents their bodies, over the installed Python standard library, numpy,
scipy and scikit-learn. The document tower's rows live in a bank of the service; each step asks it for negatives and
writes back what it encoded. See arms.py for what is compared and expectation.py for what was expected.
"""

from __future__ import annotations

import os

for _library in ("OMP", "OPENBLAS", "MKL"):  # before numpy is loaded, here and in the workers
    os.environ[f"{_library}_NUM_THREADS"] = "1"

import argparse  # noqa: E402
import contextlib  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

from rich.console import Console  # noqa: E402

from . import arms, expectation  # noqa: E402
from .corpus import read_corpus  # noqa: E402
from .experiment import pairs_of, run_seeds  # noqa: E402
from .live import LiveProgress  # noqa: E402
from .picture import draw_picture  # noqa: E402
from .report import machine, print_results  # noqa: E402
from .results import summarise  # noqa: E402
from .service import running_server  # noqa: E402
from .settings import REPORTED_SEEDS, Settings  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> int:
    options = _options()
    started, settings = time.perf_counter(), Settings()
    console = Console(width=None if sys.stdout.isatty() else 120)
    seeds = REPORTED_SEEDS[: options.seeds]
    console.print(f"[bold]Expected beforehand[/]\n{expectation.__doc__.partition(chr(10) * 2)[2]}", highlight=False)
    with console.status("reading the docstrings of the installed libraries"):
        corpus = read_corpus()
        pairs = pairs_of(corpus, settings)
    console.print(
        f"{len(corpus.names):,} documented names, {len(set(corpus.objects)):,} objects, {len(set(corpus.groups)):,} "
        f"texts; {corpus.twinned():,} names have their text under another name as well."
    )
    with contextlib.ExitStack() as stack:
        address = _address(options, stack)
        progress = stack.enter_context(LiveProgress(console, seeds, seeds[0], settings))
        runs = run_seeds(pairs, settings, seeds, arms.ALL, address, seeds[0], options.workers, progress)
    results = summarise(runs, settings, time.perf_counter() - started)
    print_results(console, results, runs)
    if address is None:
        console.print("Nothing was served in this dry run, so no report was written.")
        return 0
    options.reports.mkdir(parents=True, exist_ok=True)
    draw_picture(options.reports / "demo.png", results, runs, machine())
    (options.reports / "demo.json").write_text(json.dumps(results.as_json(), indent=2) + "\n")
    console.print(f"Picture: {options.reports / 'demo.png'}   figures: {options.reports / 'demo.json'}", soft_wrap=True)
    return 1 if results.broken_promises() else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--server-binary", type=Path, default=REPOSITORY / "target" / "release" / "negbank")
    where.add_argument("--address", help="host:port of a running server, instead of starting one")
    where.add_argument("--in-process", action="store_true", help="dry run on the stand-in, without a service")
    most = len(REPORTED_SEEDS)
    parser.add_argument("--seeds", type=int, choices=range(2, most + 1), default=most)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--reports", type=Path, default=REPOSITORY / "target" / "reports")
    return parser.parse_args()


def _address(options: argparse.Namespace, stack: contextlib.ExitStack) -> str | None:
    if options.in_process:
        return None
    if options.address:
        return options.address
    return stack.enter_context(running_server(options.server_binary, options.reports / "demo-server.log"))


if __name__ == "__main__":
    sys.exit(main())
