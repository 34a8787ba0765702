"""The picture: learning curves, paired contrasts, and false negatives served."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np  # noqa: E402
from matplotlib import pyplot  # noqa: E402

from .arms import IN_BATCH_EQUAL_TIME, SERVED, TITLES  # noqa: E402
from .results import Results  # noqa: E402
from .seed_run import SeedRun  # noqa: E402

COLOURS = {"A": "#7f7f7f", "A'": "#bcbcbc", "B": "#1f77b4", "C": "#d62728", "G": "#2ca02c", "D": "#9467bd"}


def draw_picture(path: Path, results: Results, runs: list[SeedRun], machine: str) -> None:
    figure, (curves, contrasts, copies) = pyplot.subplots(1, 3, figsize=(14, 4.4), width_ratios=(5, 3, 3), layout="constrained")
    _draw_curves(curves, results, runs)
    _draw_contrasts(contrasts, results)
    _draw_copies(copies, results)
    figure.suptitle(f"Docstring summary to body, {results.seeds} seeds, {machine}", fontsize=10)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _draw_curves(axes, results: Results, runs: list[SeedRun]) -> None:
    start = np.mean([run.warm_mrr10 for run in runs])
    for arm in results.arms:
        if arm == IN_BATCH_EQUAL_TIME:
            axes.axhline(results.arms[arm].mrr10, color=COLOURS[arm], linestyle="--", label=f"{arm}  {TITLES[arm]} (end)")
            continue
        curve = np.mean([[score for _, score in run.arms[arm].curve] for run in runs], axis=0)
        steps = [0, *(step for step, _ in runs[0].arms[arm].curve)]
        axes.plot(steps, [start, *curve], color=COLOURS[arm], marker="o", markersize=3, label=f"{arm}  {TITLES[arm]}")
    axes.set(xlabel="steps after the warm-up", ylabel="MRR@10, held-out pairs", title="Learning curves (means)")
    axes.legend(fontsize=8)


def _draw_contrasts(axes, results: Results) -> None:
    names = list(results.contrasts)
    for place, contrast in enumerate(results.contrasts.values()):
        axes.plot([contrast.low, contrast.high], [place, place], color="black")
        axes.plot(contrast.mean, place, "o", color="black")
    axes.axvline(0.0, color="#999999", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="difference in MRR@10", title="Paired contrasts (95 % t)")


def _draw_copies(axes, results: Results) -> None:
    arms = [arm for arm in SERVED if arm in results.arms]
    rates = [100 * results.arms[arm].false_negative_rate for arm in arms]
    bars = axes.bar(arms, rates, color=[COLOURS[arm] for arm in arms])
    axes.bar_label(bars, [f"{rate:.2f} %" for rate in rates], fontsize=8)
    axes.set(ylabel="% of negatives served", title="False negatives (positive's text)")
