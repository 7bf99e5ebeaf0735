"""The console script: it imports nothing before it can say that Ctrl-C ended it."""

from __future__ import annotations

LAST_SECONDS = 5  # that Python may take to end after Ctrl-C


def entry() -> None:
    """`capnet`, where Ctrl-C ends the first half second, in which the command line is imported, as it ends the rest."""
    import signal

    try:
        _command_line()
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):
            _interrupt_in(LAST_SECONDS)
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends what Python does at its end, in silence


def _command_line() -> None:
    try:
        from capnet.cli import entry as command_line

        command_line()
    except KeyboardInterrupt:
        from capnet.errors import stopped

        stopped()


def _interrupt_in(seconds: float) -> None:
    """The second Ctrl-C, unless the process has ended before: Python waits for each thread, and one that a library's
    pool had just started when the first Ctrl-C came never ends.
    """
    import os
    import signal
    from threading import Timer

    timer = Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    entry()
