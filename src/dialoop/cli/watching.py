"""The terminal's view of a tuning job: steps, bars, a live loss line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from dialoop.cli.curve import braille

if TYPE_CHECKING:
    from dialoop.data.dataset import Dataset
    from dialoop.train.loop import Progress as Update

TITLES = {
    "data": "Reading and cleaning dialogues",
    "before": "Scoring the base model on the test split",
    "training": "Fine-tuning",
    "after": "Scoring the tuned model",
    "report": "Comparing and writing the report",
    "rows": "Reading and cleaning rows",
    "judging": "Judging the model on the test split, beside baselines",
}


CURVE_WIDTH, CURVE_HEIGHT = 60, 5


class _Bars(Progress):
    """Bars, and below them the losses so far."""

    losses: list[float]

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        losses = getattr(self, "losses", [])
        if len(losses) > 1:
            for line in braille(losses, min(CURVE_WIDTH, self.console.width - 4), CURVE_HEIGHT):
                yield Text(f"  {line}", style="cyan")


class TerminalWatch:
    """Prints to a console; on one that is no terminal, a line now and then instead of bars."""

    def __init__(self, console: Console, steps: int) -> None:
        self.console, self.steps = console, steps
        self._bar: _Bars | None = None
        self._losses: list[float] = []
        self._tasks: dict[str, TaskID] = {}
        self._last = 0.0

    def step(self, number: int, title: str) -> None:
        """A new part of the work begins."""
        self.close()
        self.console.print(f"\n[bold cyan]\\[{number}/{self.steps}][/] [bold]{TITLES[title]}[/]")

    def data(self, dataset: Dataset[Any]) -> None:
        """The cleaning report and the split."""
        self.console.print(Markdown(dataset.report.to_text()))
        counts = f"{len(dataset.train)} train, {len(dataset.valid)} validation, {len(dataset.test)} test"
        self.console.print(f"Split {dataset.split_rule}: {counts}.", highlight=False)
        self.console.print(f"Leak check: {dataset.leaked.words}.", highlight=False)

    def rows(self, dataset: Dataset[Any]) -> None:
        """As `data`, of rows for a head."""
        from dialoop.cli.heads import rows_read

        self.console.print(Markdown(rows_read(dataset)))

    def done(self, what: str, done: int, total: int) -> None:
        """Answers or likelihoods so far."""
        self._advance(what, f"  {what}", done, total, "")

    def training(self, progress: Update) -> None:
        """One update."""
        loss = f"loss {progress.loss:.3f}"
        self._losses.append(progress.loss)
        if progress.valid_loss is not None:
            self._line(f"  update {progress.step}: validation loss {progress.valid_loss:.3f}")
        detail = f"{loss}  {progress.tokens_per_second:,.0f} tokens/s"
        self._advance("training", "  updates", progress.step, progress.steps, detail)
        if not self.console.is_terminal and (progress.step % 10 == 0 or progress.step == progress.steps):
            left = f"{progress.seconds_left:.0f} s left"
            self._line(f"  update {progress.step}/{progress.steps}  {detail}  {left}")

    def _advance(self, key: str, label: str, done: int, total: int, detail: str) -> None:
        if not self.console.is_terminal:
            return
        if self._bar is None:
            self._bar = _Bars(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}"), console=self.console,
            )  # fmt: skip
            self._bar.losses = self._losses
            self._bar.start()
        if key not in self._tasks:
            self._tasks[key] = self._bar.add_task(label, total=total, detail=detail)
        self._bar.update(self._tasks[key], completed=done, total=total, detail=detail)

    def _line(self, text: str) -> None:
        (self._bar.console if self._bar else self.console).print(text, highlight=False)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._tasks = None, {}
        self._losses = []
