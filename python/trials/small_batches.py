"""Few negatives in the batch, more from the bank: the demo's text encoder with batches of 8 and 16.

Arms of the demo: A in-batch only, B with 256 random entries of the bank for each anchor, G with the 256 hardest that are no
copies of the positive. All arms of a seed start from one warm-up and take as many steps. Both temperatures were chosen on the
demo's tuning seeds, none of which is reported, for each batch: that of the negatives in the batch for A (`python -m demo.tune
batch=8 temperature=0.05,0.1,0.2,0.4 --arms A`), then that of the served ones for B (`python -m demo.tune batch=8 served=256
served_temperature=0.05,0.1,0.2,0.4 --arms A,B,G`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from demo.contrasts import paired
from demo.corpus import Corpus, read_corpus
from demo.experiment import pairs_of, run_seeds
from demo.settings import Settings

BATCHES = (8, 16)
ARMS = ("A", "B", "G")
CONTRASTS = (("B", "A"), ("G", "A"), ("G", "B"))
SETTINGS = dataclasses.replace(Settings(), temperature=0.2, served=256, served_temperature=0.1)


def measure(
    address: str, seeds: int, workers: int, settings: Settings = SETTINGS, corpus: Corpus | None = None
) -> dict[str, Any]:
    """MRR@10 of each arm and seed, and paired contrasts with their 95 % t intervals, on the demo's corpus or the given one."""
    corpus = corpus or read_corpus()
    found: dict[str, Any] = {"seeds": seeds, "batches": {}}
    for batch in BATCHES:
        with_batch = dataclasses.replace(settings, batch=batch)
        pairs = pairs_of(corpus, with_batch)
        runs = run_seeds(pairs, with_batch, range(seeds), ARMS, address, None, workers, lambda *event: None)
        scores = {arm: [run.arms[arm].mrr10 for run in runs] for arm in ARMS}
        contrasts = {f"{left}-{right}": paired(scores[left], scores[right]) for left, right in CONTRASTS}
        found["batches"][str(batch)] = {
            "warm_up": [run.warm_mrr10 for run in runs],
            "scores": scores,
            "contrasts": {name: dataclasses.asdict(contrast) for name, contrast in contrasts.items()},
        }
    return found
