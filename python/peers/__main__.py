"""`python -m peers`: measures negbank beside other programs; writes docs/benchmarks.md and target/reports/peers.json."""

from __future__ import annotations

import os

for _library in ("OMP", "OPENBLAS", "MKL"):  # before numpy is loaded
    os.environ[f"{_library}_NUM_THREADS"] = "1"

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import ExitStack, contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from .cases import ANCHORS, BATCHES, DIM, NEAREST, RANDOM, batch, exact  # noqa: E402
from .clustered import Clustered, clustered  # noqa: E402
from .document import page  # noqa: E402
from .results import Results, Row, Table  # noqa: E402
from .turns import choose, in_turns, per_anchor  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]
RANDOM_K = 64


def main() -> int:
    """Measures every size, and writes."""
    options = _options()
    options.reports.mkdir(parents=True, exist_ok=True)
    with quiet(options.reports / "peers.log"):
        results = measured(options)
    options.page.write_text(page(results))
    (options.reports / "peers.json").write_text(json.dumps(results.as_json(ANCHORS), indent=2) + "\n")
    for name, why in results.missing.items():
        say(f"*** {name} WAS NOT MEASURED: {why} ***")
    say(f"{options.page} and {options.reports / 'peers.json'}, {results.seconds / 60:.1f} minutes")
    return 0


def measured(options: argparse.Namespace) -> Results:
    """All sizes."""
    started, results = time.perf_counter(), Results(turns=options.turns)
    sys.path.append(str(REPOSITORY / "python" / "tests"))
    from server_process import ServerProcess

    os.environ["NEGBANK_SERVER"] = str(options.server_binary)
    server = ServerProcess("compute.threads=1", f"index.min_entries={min(options.sizes)}")
    try:
        for entries in options.sizes:
            measure(server.address, clustered(entries, ANCHORS * BATCHES, DIM, seed=1), results)
    finally:
        server.stop()
    results.seconds = time.perf_counter() - started
    return results


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Sends standard error to a file meanwhile: the C++ below TensorFlow and Reverb says a line for every few rows."""
    kept = os.dup(2)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m peers", description=__doc__)
    parser.add_argument("--server-binary", type=Path, default=REPOSITORY / "target" / "release" / "negbank")
    parser.add_argument("--sizes", type=int, nargs="+", default=[65_536, 100_000], help="entries")
    parser.add_argument("--turns", type=int, default=7, help="times that each is measured; 5 at least")
    parser.add_argument("--page", type=Path, default=REPOSITORY / "docs" / "benchmarks.md")
    parser.add_argument("--reports", type=Path, default=REPOSITORY / "target" / "reports")
    options = parser.parse_args()
    if options.turns < 5:
        parser.error("--turns: quartiles of fewer than 5 turns say nothing")
    return options


def measure(address: str, data: Clustered, results: Results) -> None:
    """Everybody, on one data set."""
    from .graphs import libraries
    from .postgres import Pgvector
    from .replay import Reverb
    from .served import Served

    built = results.builds.setdefault(len(data.rows), {})
    with ExitStack() as stack:

        def build(name: str, make: Callable[[], Any]) -> Any:
            say(f"{len(data.rows):,} entries: building {name}")
            start = time.perf_counter()
            try:
                made = make()
            except Exception as fault:  # whatever is wrong with it, the others go on and the page says so
                results.missing[name] = f"{type(fault).__name__}: {str(fault).strip().splitlines()[0] if str(fault) else ''}"
                return None
            built[getattr(made, "name", name)] = time.perf_counter() - start
            if hasattr(made, "close"):
                stack.callback(made.close)
            return made

        served = build("negbank", lambda: Served(address, data))
        graphs = [build(name, lambda make=make: make(data)) for name, make in libraries()]
        postgres = build("PostgreSQL + pgvector", lambda: Pgvector(data))
        reverb = build("Reverb", lambda: Reverb(data, RANDOM_K))
        contenders = [*served.contenders(), *(graph for graph in [*graphs, postgres] if graph is not None)]
        for case in NEAREST:
            say(f"{len(data.rows):,} entries: {case.name}")
            results.tables.append(nearest(case, data, contenders, served, results))
        say(f"{len(data.rows):,} entries: {RANDOM}")
        results.tables.append(random(data, served, postgres, reverb, results))


def nearest(case: Any, data: Clustered, contenders: list[Any], served: Any, results: Results) -> Table:
    """One case."""
    truth = exact(data, case)
    chosen = {who.name: found for who in contenders if (found := choose(who, case, data, truth)) is not None}

    def asked(search: Callable[..., Any]) -> Callable[[int], Any]:
        return lambda turn: search(*batch(data, turn))

    times = in_turns({who: asked(found.setting.search) for who, found in chosen.items()}, results.turns)
    rows = [
        Row(who, found.setting.name, found.recall, per_anchor(times[who]), found.recall >= case.recall)
        for who, found in chosen.items()
    ]
    return Table(case.name, len(data.rows), case.k, case.recall, served.plans[case.name], rows)


def random(data: Clustered, served: Any, postgres: Any, reverb: Any, results: Results) -> Table:
    """Random draws with their rows."""
    calls: dict[str, Callable[[int], Any]] = {"negbank, embeddings": lambda turn: served.random(turn, RANDOM_K)}
    if postgres is not None:
        calls[postgres.name] = lambda turn: postgres.random(turn, RANDOM_K, len(data.rows))
    if reverb is not None:
        calls[reverb.name] = lambda _turn: reverb.random()
    before = {} if reverb is None else {reverb.name: reverb.forget}
    times = in_turns(calls, results.turns, before)
    rows = [Row(who, "default", None, per_anchor(took)) for who, took in times.items()]
    return Table(RANDOM, len(data.rows), RANDOM_K, None, "roster", rows)


def say(what: str) -> None:
    """Progress, and what is missing."""
    print(what, flush=True)


if __name__ == "__main__":
    sys.exit(main())
