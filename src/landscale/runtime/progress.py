"""Progress bars with rate and remaining time on a terminal; in a log file, one line at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

console = Console(stderr=True, markup=False, emoji=False)  # names of classes and files are shown as they are


def print_notes(lines: Iterable[str]) -> None:
    """Print lines on stderr, each whole, however narrow the terminal is."""
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {self._unit}/s" if speed else f"– {self._unit}/s")


@contextmanager
def _live(*columns: ProgressColumn, visible: bool) -> Iterator[Progress]:
    """A display that is shown on terminals only, and removed when the work fails, so that the error message stands alone."""
    with Progress(
        *columns, console=console, refresh_per_second=4, disable=not (visible and console.is_terminal)
    ) as live:
        try:
            yield live
        except BaseException:
            live.live.transient = True
            raise


@contextmanager
def progress_bar(
    label: str, total: int, unit: str = "patches", *, visible: bool = True
) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; yields a function that advances it by a number of units."""
    columns = (TextColumn(f"{label:<12}"), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
    started = time.monotonic()
    with _live(*columns, visible=visible) as progress:
        task = progress.add_task(label, total=total)
        yield lambda n: progress.update(task, advance=n)
    if visible and total and not console.is_terminal:
        seconds = time.monotonic() - started
        print(f"{label}: {total:,} {unit} in {seconds:.1f} s, {total / seconds:,.0f}/s", file=console.file)


@contextmanager
def training_bar(total: int, done: int, *, visible: bool) -> Iterator[Callable[[int, int, float, int], None]]:
    """A progress bar over training steps; yields a function of the step, the planned steps, the loss and the step's patches."""
    columns = (
        TextColumn("train       "),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps  {task.fields[rate]}  loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with _live(*columns, visible=visible) as progress:
        task = progress.add_task("train", total=total, completed=done, rate="– patches/s", loss="–")
        smoothed = float("nan")

        def update(step: int, planned: int, loss: float, patches: int) -> None:
            nonlocal smoothed
            smoothed = loss if smoothed != smoothed else 0.95 * smoothed + 0.05 * loss  # noqa: PLR0124  NaN before the first step
            speed = progress.tasks[task].speed
            rate = f"{speed * patches:,.0f} patches/s" if speed else "– patches/s"
            progress.update(task, completed=step, total=planned, rate=rate, loss=f"{smoothed:.4f}")

        yield update
