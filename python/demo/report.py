"""What the demo prints: the tables, the verdict on what was expected, and the machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .arms import TITLES
from .expectation import EXPECTED, NOT_PREDICTED
from .replay import TIE
from .results import Results
from .seed_run import SeedRun


def print_results(console: Console, results: Results, runs: list[SeedRun]) -> None:
    console.print(_arms_table(results))
    console.print(_contrasts_table(results))
    for run in runs:
        if run.comparison:
            seen = run.comparison
            console.print(
                f"F (G of seed {run.seed}, searched in process): {seen.equal:,} of {seen.picks:,} picks in "
                f"{seen.steps} steps are the same ids in the same order, {seen.ties} more are ties "
                f"(scores within {TIE:g}), {seen.different} differ; rows differ by at most {seen.row_difference:.1g}; "
                f"MRR@10 {run.replay_mrr10:.4f}, G had {run.arms['G'].mrr10:.4f}."
            )
    for broken in results.broken_promises():
        console.print(f"[bold red]Not kept: {broken}.[/]")
    console.print(f"{results.seeds} seeds in {results.seconds:.0f} s on {machine()}.")


def _arms_table(results: Results) -> Table:
    table = Table(title=f"Held-out retrieval, mean of {results.seeds} seeds (± half a 95 % t interval)", title_justify="left")
    table.add_column("arm")
    table.add_column("negatives")
    for column in ("MRR@10", "steps", "seconds", "false negatives served"):
        table.add_column(column, justify="right")
    for name, arm in results.arms.items():
        rate = f"{arm.false_negative_rate:.2%} of {arm.served:,}" if arm.served else "none served"
        score = f"{arm.mrr10:.4f} ± {arm.half:.4f}"
        table.add_row(name, TITLES[name], score, f"{arm.steps:.0f}", f"{arm.seconds:.1f}", rate)
    return table


def _contrasts_table(results: Results) -> Table:
    table = Table(title="Paired contrasts in MRR@10", title_justify="left")
    for column in ("contrast", "mean", "95 % t interval", "expected", "came out"):
        table.add_column(column, justify="left" if column == "contrast" else "right")
    for name, contrast in results.contrasts.items():
        as_expected = EXPECTED[name] in (contrast.sign(), NOT_PREDICTED)
        interval = f"[{contrast.low:+.4f}, {contrast.high:+.4f}]".replace("[", r"\[")
        outcome = f"[{'green' if as_expected else 'yellow'}]{contrast.sign()}[/]"
        table.add_row(name, f"{contrast.mean:+.4f}", interval, EXPECTED[name], outcome)
    return table


def machine() -> str:
    """The processor's model and how many cores this process may use."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        model = next((value.strip() for key, _, value in lines if key.strip() == "model name"), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"
