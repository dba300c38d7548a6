"""The process that computes for a `ProcessEngine`: `python -m dialoop.engine.child FD`, a connected socket.

It ends when the other end of the socket does, whatever becomes of its parent.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
import traceback
from concurrent.futures import Future
from typing import TYPE_CHECKING

from dialoop.engine.gather import Gatherer
from dialoop.engine.wire import Line, Said, Setup, sealed
from dialoop.models.allocator import keep_freed_memory

if TYPE_CHECKING:
    from dialoop.engine.local import LocalCore


def main(descriptor: int) -> None:
    """Load what the first frame asks for, then do what the others ask for. Does not return.

    The models are loaded and run by the main thread. GNU's OpenMP lets threads wait awake for the next piece
    of work only while there are no more of them than processors, and it counts the main one in any case: run
    by a second thread, a step of a small model took twice as long.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # A terminal or a service manager signals the whole group: the parent lets open answers finish.
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    threading.excepthook = _die
    os.set_inheritable(descriptor, False)
    line = Line(socket.socket(fileno=descriptor))
    core: Future[LocalCore] = Future()
    try:
        setup = line.receive()
    except EOFError:
        os._exit(0)
    reader = threading.Thread(target=_obey, args=(line, core), daemon=True)
    reader.start()
    _load(setup, line, core)
    if core.done():
        _run(core.result())
    reader.join()


def _obey(line: Line, core: Future[LocalCore]) -> None:
    """Hand over what is asked for, up to the end of the line and of the process."""
    with contextlib.suppress(EOFError):
        while True:
            number, work = line.receive()
            if work is None:
                core.result().cancel(number)
            else:
                core.result().submit(number, work)
    os._exit(0)  # the main thread may be inside the model, and nobody is left to tell what it finds


def _run(core: LocalCore) -> None:
    try:
        core.run()
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # requests would be left without an answer: end all, to be started again


def _load(setup: Setup, line: Line, core: Future[LocalCore]) -> None:
    """Answers with what is served, or with the error."""
    try:
        from dialoop.engine.loaded import open_models
        from dialoop.engine.local import LocalCore

        models = open_models(setup.refs, context=setup.context, precision=setup.precision)
        local = LocalCore(models, Gatherer(lambda said: _send(line, said)), **setup.options)
        for model, shelved in setup.shelved:
            local.know(model, shelved)
        keep_freed_memory()  # not before: what loading frees is given back
        core.set_result(local)
        line.send(tuple(loaded.known.opened for loaded in models.values()))
    except Exception as error:
        line.send(sealed(error))


def _send(line: Line, said: Said) -> None:
    frame = [(number, sealed(event) if isinstance(event, Exception) else event) for number, event in said]
    with contextlib.suppress(OSError):  # the parent has gone: the main thread sees it too
        line.send(frame)


def _die(failed: threading.ExceptHookArgs) -> None:
    """A thread that ends by an error would leave requests without an answer: end all, to be started again."""
    sys.__excepthook__(failed.exc_type, failed.exc_value or failed.exc_type(), failed.exc_traceback)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
