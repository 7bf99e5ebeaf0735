"""The console script: it imports nothing before it can say that Ctrl-C ended it."""

from __future__ import annotations


def entry() -> None:
    """`capnet`, where Ctrl-C ends the first half second, in which the command line is imported, as it ends the rest."""
    try:
        from capnet.cli import entry as command_line

        command_line()
    except KeyboardInterrupt:
        from capnet.errors import stopped

        stopped()
    finally:
        import signal

        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends what Python does at its end, in silence


if __name__ == "__main__":
    entry()
