"""docs/training.md, from the figures."""

from __future__ import annotations

from typing import Any

import numpy as np
from demo.contrasts import Contrast

from .hardness import BETAS, CASES
from .small_batches import CONTRASTS

HEAD = """# What it does for training

Written by `make methods`, which trains through a real server and times a step; figures and all runs are in
`target/reports/methods.json`. Intervals are 95 % t intervals of paired differences over seeds; *positive*, *negative* and
*about zero* say where they lie. Seeds share their data set, so the intervals are somewhat too narrow; they are not adjusted for
their number.
"""

SMALL = """
## Few negatives in the batch, more from the bank

The demo's text encoder (docs/demo.md), with batches of 8 and 16: A has in-batch negatives only, B has 256 random entries of
the bank for each anchor as well, G the 256 hardest that are no copies of the positive. MRR@10 on held-out pairs, {seeds}
seeds, {machine}. Both temperatures were chosen on other seeds from 0.05, 0.1, 0.2 and 0.4: 0.2 in the batch was the best for A,
0.1 for the served negatives the best for B, with either batch.

| batch | A | B | G | contrast | mean | interval | |
|---|---|---|---|---|---|---|---|
"""

HARD = """
## How hard

Digits by instance discrimination with keys of a momentum encoder, the bank encoded anew every {refresh} steps; a tenth of its
entries are copies under other ids, {copies} each of {copied} images. {negatives} negatives an anchor: at random (beta 0), in
proportion to exp(beta s) over the whole bank, or the nearest (top). Mean average precision of held-out images for their digit,
mean of {seeds} seeds, {machine}; before training it is {untrained:.4f}. *group* keeps the anchor's copies away, *label* keeps
everything of the anchor's digit away, which no unlabelled trainer can: it shows what false negatives cost.

"""

CHOICE = """
The regime was chosen among some ten prototypes, which are not in the tree, on seeds 100 and 101, for being one in which the
nearest entries are copies and images of the same digit: that is where hardness should hurt. With views as different as those
of examples/data.py fewer of the nearest were, and the label filter gained less. *best*, beta {best}, was chosen on seeds
{first} to {last}, without a filter ({tuned}).
None of these seeds is among those of the tables.

"""

OVERHEAD = """
## What it costs a step

A MoCo-like step on the CPU (an encoder of 2 million parameters, one thread, 256 anchors, a queue of 65,536 keys of 128
floats), with the queue as a tensor in the process and as a bank: `random` takes 4,096 keys for all anchors, `hard` the 64
nearest of each. The write of the step's keys is part of it. Median milliseconds of {steps} steps and their quartiles,
{machine}, load average {load} before it began; server and trainer share these cores, which a trainer on a GPU would leave to
the server. What `hard` saves is the local search, one product and one top-k on the trainer's one thread, which the server
does over codes on both cores. It has no step ahead: the nearest depend on the anchors, which are not there yet.

| negatives | way | ms a step | quartiles | over local |
|---|---|---|---|---|
"""


def page(figures: dict[str, Any], standing: str) -> str:
    """The whole page; a part that has no figures here keeps its section of the page as it stands."""
    writers = {"small_batches": (SMALL, _small), "hardness": (HARD, _hard), "overhead": (OVERHEAD, _overhead)}
    sections = [
        write(figures[part]) if part in figures else _section(standing, text.splitlines()[1])
        for part, (text, write) in writers.items()
    ]
    return HEAD + "".join(sections)


def _section(page: str, heading: str) -> str:
    after = page.split(f"\n{heading}\n")[1]
    return f"\n{heading}\n" + after.split("\n## ")[0].rstrip("\n") + "\n"


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
    text = HARD.format(seeds=found["seeds"], machine=found["machine"], untrained=np.mean(found["untrained"]), **found["regime"])
    text += _row("filter", *(f"beta {beta}" if beta != "top" else beta for beta in BETAS)) + _row(*["---"] * (len(BETAS) + 1))
    for name in CASES:
        text += _row(name, *_cells(found["score"][name], ".4f"))
    text += _row("none: copies served", *_cells(found["same_group"]["none"], ".2%"))
    text += _row("none: same digit served", *_cells(found["same_label"]["none"], ".1%"))
    text += _row("none: cosine to the positive, first epoch", *_cells(found["first_cosine"]["none"], ".2f"))
    text += _row("none: cosine to the positive, last epoch", *_cells(found["last_cosine"]["none"], ".2f"))
    tuning, best = found["tuning"], found["best_beta"]
    tuned = ", ".join(f"{beta} {np.mean(scores):.4f}" for beta, scores in tuning["score"].items())
    text += CHOICE.format(best=best, tuned=tuned, first=tuning["seeds"][0], last=tuning["seeds"][-1])
    text += "| contrast | mean | interval | |\n|---|---|---|---|\n"
    for name, contrast in found["contrasts"].items():
        text += _row(name, *verdict(contrast))
    return text + "\n" + "".join(f"- {line}\n" for line in said(found["contrasts"]))


def _cells(by_beta: dict[str, list[float]], form: str) -> list[str]:
    """Means, with nothing where nothing was run."""
    return [format(float(np.mean(by_beta[beta])), form) if beta in by_beta else "" for beta in BETAS]


# By where the interval lies.
SAID = {
    "none top - none 0": {
        "negative": "That too hard hurts was shown: without a filter the nearest do worse than random ones.",
        "about zero": "That too hard hurts was not shown: without a filter the nearest and random ones can't be told apart.",
        "positive": "That too hard hurts was not shown: without a filter the nearest do better than random ones.",
    },
    "label top - none top": {
        "positive": "That a filter recovers it was shown: with the anchor's digit kept away the nearest do better.",
        "about zero": "That a filter recovers it was not shown: with the anchor's digit kept away the nearest do no better.",
        "negative": "That a filter recovers it was not shown: with the anchor's digit kept away the nearest do worse.",
    },
    "label top - label 0": {
        "positive": "With the label filter hard is better than random.",
        "about zero": "With the label filter the nearest and random ones can't be told apart.",
        "negative": "With the label filter too, the nearest do worse than random ones.",
    },
    "group top - none top": {
        "positive": "That keeping only the copies away helps was shown.",
        "about zero": "That keeping only the copies away helps was not shown.",
        "negative": "Keeping only the copies away made the nearest do worse.",
    },
}


def said(contrasts: dict[str, dict[str, float]]) -> list[str]:
    """What was shown and what was not, in words."""
    sign = {name: Contrast(**contrast).sign() for name, contrast in contrasts.items()}
    ends = [sign[name] for name in ("none best - none 0", "none best - none top") if name in sign]
    if len(ends) < 2:
        peak = "A peak between random and nearest was not shown: on the tuning seeds an end of the range was the best."
    elif ends == ["positive", "positive"]:
        peak = "A peak between random and nearest was shown: the beta chosen beforehand does better than either."
    else:
        peak = "A peak between random and nearest was not shown: the beta chosen beforehand does no better than one of them."
    return [peak, *(by_sign[sign[name]] for name, by_sign in SAID.items())]


def _overhead(found: dict[str, Any]) -> str:
    text = OVERHEAD.format(steps=found["steps"], machine=found["machine"], load=found["load"])
    for kind, ways in found["ms"].items():
        local = ways["local"][1]
        for way, (low, median, high) in ways.items():
            over = "" if way == "local" else f"{median - local:+.1f}"
            text += _row(kind, way, f"{median:.1f}", f"{low:.1f} - {high:.1f}", over)
    return text
