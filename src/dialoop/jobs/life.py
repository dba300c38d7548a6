"""One life of a job's process, as its runner sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from dialoop.jobs.run_directory import RunDirectory

LOG = "log.txt"
"""What the process printed, in its run directory."""


class Life:
    """A process that trains in a run directory. It leaves when the runner does, however that ends."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        with (run.path / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dialoop.jobs.child", str(run.path)],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
        self._told = False

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._process.poll() is not None

    def leave(self) -> None:
        """Tell it, once, to finish its update, to save and to go."""
        if not self._told:
            self._told = True
            self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def wait(self, seconds: float) -> int:
        """Its exit code; by force where it takes longer."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        return code


def how(code: int) -> str:
    """An exit code in words."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
