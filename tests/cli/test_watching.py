"""What the terminal shows of training as it goes."""

from __future__ import annotations

import io

from rich.console import Console

from dialoop.cli.watching import TerminalWatch
from dialoop.train.loop import Progress


def shown(*, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    watch = TerminalWatch(console, 5)
    watch.step(3, "training")
    for step in range(1, 21):
        valid = 2.5 if step == 10 else None
        watch.training(Progress(step, 20, 5.0 / step, 0.1, 1.0, 64 * step, 640.0, 1.0, 1.0, valid))
    watch.close()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_bars_and_the_losses_as_a_curve() -> None:
    text = shown(terminal=True)
    assert "20/20" in text
    assert any("⠁" <= character <= "⣿" for character in text)
    assert "update 10: validation loss 2.500" in text


def test_a_file_gets_a_line_every_ten_updates_and_no_curve() -> None:
    text = shown(terminal=False)
    assert "update 20/20" in text
    assert not any("⠀" <= character <= "⣿" for character in text)
