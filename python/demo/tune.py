"""How the settings were chosen: `python -m demo.tune FIELD=VALUE,VALUE ... [--arms A,C,G,D]`, in process.

Every combination of the values given is run on the tuning seeds, which the demo never reports. Without values it
scores the settings as they stand.
"""

from __future__ import annotations

import os

for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"

import argparse  # noqa: E402
import dataclasses  # noqa: E402
import itertools  # noqa: E402

import numpy as np  # noqa: E402

from .arms import CONTRASTS  # noqa: E402
from .contrasts import paired  # noqa: E402
from .corpus import read_corpus  # noqa: E402
from .experiment import pairs_of, run_seeds  # noqa: E402
from .settings import TUNING_SEEDS, Settings  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.tune", description=__doc__)
    parser.add_argument("values", nargs="*", metavar="FIELD=VALUE,...")
    parser.add_argument("--arms", default="A,C,G,D")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    chosen = tuple(options.arms.split(","))
    fields = {name: values.split(",") for name, _, values in (text.partition("=") for text in options.values)}
    corpus = read_corpus()
    for combination in itertools.product(*fields.values()):
        changes = {name: type(getattr(Settings(), name))(value) for name, value in zip(fields, combination, strict=True)}
        settings = dataclasses.replace(Settings(), **changes)
        pairs = pairs_of(corpus, settings)
        runs = run_seeds(pairs, settings, TUNING_SEEDS, chosen, None, None, options.workers, lambda *event: None)
        scores = {arm: [run.arms[arm].mrr10 for run in runs] for arm in runs[0].arms}
        line = [f"warm-up {np.mean([run.warm_mrr10 for run in runs]):.4f}"]
        line += [f"{arm} {np.mean(values):.4f}" for arm, values in scores.items()]
        for left, right in CONTRASTS:
            if left in scores and right in scores:
                contrast = paired(scores[left], scores[right])
                line.append(f"{left}-{right} {contrast.mean:+.4f} [{contrast.low:+.4f}, {contrast.high:+.4f}]")
        print(changes, "  ".join(line), flush=True)


if __name__ == "__main__":
    main()
