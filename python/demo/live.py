"""Live progress: one bar a seed."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from . import arms
from .settings import Settings


class LiveProgress:
    """Called as `progress(seed, arm, steps)`; arm "F" is the replay."""

    def __init__(self, console: Console, seeds: tuple[int, ...], replayed: int, settings: Settings) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
        )
        self.bars = Progress(*columns, console=console)
        self.tasks = {
            seed: self.bars.add_task(
                f"seed {seed}: waiting",
                total=settings.warm_up_steps + settings.steps * (len(arms.ALL) + (seed == replayed)),
                start=False,
            )
            for seed in seeds
        }
        self.totals = {seed: self.bars.tasks[task].total for seed, task in self.tasks.items()}

    def __enter__(self) -> LiveProgress:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bars.stop()

    def __call__(self, seed: int, arm: str, steps: int) -> None:
        task = self.tasks[seed]
        self.bars.start_task(task)
        self.bars.update(task, advance=steps)
        done = self.bars.tasks[task].completed >= self.totals[seed]
        self.bars.update(task, description=f"seed {seed}: {'done' if done else arm}")
