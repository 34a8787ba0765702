"""docs/training.md, from the figures."""

from __future__ import annotations

from typing import Any

import numpy as np
from demo.contrasts import Contrast

from .hardness import BETAS, FILTERS
from .small_batches import CONTRASTS

HEAD = """# What it does for training

Written by `make methods`, which trains through a real server and times a step; figures and all runs are in
`target/reports/methods.json`. Intervals are 95 % t intervals of paired differences over seeds; *positive*, *negative* and
*about zero* say where they lie. Seeds share their data set, so the intervals are somewhat too narrow.
"""

SMALL = """
## Few negatives in the batch, more from the bank

The demo's text encoder (docs/demo.md), with batches of 8 and 16: A has in-batch negatives only, B has 256 random entries of
the bank for each anchor as well, G the 256 hardest that are no copies of the positive. MRR@10 on held-out pairs, {seeds}
seeds, {machine}. The temperature of the served negatives was chosen on other seeds; at the demo's own, which is sharper,
random negatives came out no better than none.

| batch | A | B | G | contrast | mean | interval | |
|---|---|---|---|---|---|---|---|
"""

HARD = """
## How hard

Digits by instance discrimination with keys of a momentum encoder, and a bank in which a tenth of the images lie twice under
other ids. 16 negatives an anchor: at random (beta 0), in proportion to exp(beta s) over the whole bank, or the nearest
(top). Mean average precision of held-out images for their digit, mean of {seeds} seeds, {machine}. *group* keeps the
anchor's copy away, *label* keeps everything of the anchor's digit away, which no unlabelled trainer can: it shows what
false negatives cost.

"""

OVERHEAD = """
## What it costs a step

A MoCo-like step on the CPU (an encoder of 2 million parameters, one thread, 256 anchors, a queue of 65,536 keys of 128
floats), with the queue as a tensor in the process and as a bank: `random` takes 4,096 keys for all anchors, `hard` the 64
nearest of each. The write of the step's keys is part of it. Median milliseconds of {steps} steps and their quartiles,
{machine}, load average {load} before it began; server and trainer share these cores, which a trainer on a GPU would leave to
the server.

| negatives | way | ms a step | quartiles | over local |
|---|---|---|---|---|
"""


def page(figures: dict[str, Any]) -> str:
    """The whole page."""
    return HEAD + _small(figures["small_batches"]) + _hard(figures["hardness"]) + _overhead(figures["overhead"])


def verdict(contrast: dict[str, float]) -> tuple[str, str, str]:
    """A contrast's mean, interval and sign, as cells."""
    sign = Contrast(**contrast).sign()
    return f"{contrast['mean']:+.4f}", f"[{contrast['low']:+.4f}, {contrast['high']:+.4f}]", sign


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _small(found: dict[str, Any]) -> str:
    text = SMALL.format(seeds=found["seeds"], machine=found["machine"])
    for batch, of in found["batches"].items():
        means = [f"{np.mean(of['scores'][arm]):.4f}" for arm in "ABG"]
        for name in (f"{left}-{right}" for left, right in CONTRASTS):
            text += _row(batch, *means, name, *verdict(of["contrasts"][name]))
    return text


def _hard(found: dict[str, Any]) -> str:
    text = HARD.format(seeds=found["seeds"], machine=found["machine"])
    text += _row("filter", *(f"beta {beta}" if beta != "top" else beta for beta in BETAS)) + _row(*["---"] * (len(BETAS) + 1))
    for name in FILTERS:
        text += _row(name, *(f"{np.mean(found['scores'][name][beta]):.4f}" for beta in BETAS))
    text += _row("none: copies served", *(f"{found['same_group']['none'][beta]:.3%}" for beta in BETAS))
    text += _row("none: same digit served", *(f"{found['same_label']['none'][beta]:.1%}" for beta in BETAS))
    text += f"\nThe best beta without a filter, {found['best_beta']}, was chosen on the first half of the seeds;"
    text += " the first two contrasts are of the second half, the others of all.\n\n"
    text += "| contrast | mean | interval | |\n|---|---|---|---|\n"
    for name, contrast in found["contrasts"].items():
        text += _row(name, *verdict(contrast))
    return text


def _overhead(found: dict[str, Any]) -> str:
    text = OVERHEAD.format(steps=found["steps"], machine=found["machine"], load=found["load"])
    for kind, ways in found["ms"].items():
        local = ways["local"][1]
        for way, (low, median, high) in ways.items():
            over = "" if way == "local" else f"{median - local:+.1f}"
            text += _row(kind, way, f"{median:.1f}", f"{low:.1f} - {high:.1f}", over)
    return text
