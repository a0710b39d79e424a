"""What a command says, once, when it ends before its work is done."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from tubelet.errors import printable
from tubelet.machine import is_first_to_report

_STOPPED = 128 + signal.SIGINT  # the exit codes of programs that the signals end
_OUTPUT_CLOSED = 128 + 13  # SIGPIPE, which Windows does not have


def say(message: str) -> None:
    """Print a message on standard error, unless another process of this job has."""
    if is_first_to_report(message):
        lines = map(printable, message.split("\n"))
        print("tubelet: " + "\n".join(lines), file=sys.stderr)


@contextmanager
def say_if_stopped(details: Callable[[], str] = lambda: "") -> Iterator[None]:
    """End the command with one message on Ctrl-C, or where nobody reads its output any more.

    Args:
        details: returns what follows `stopped` in the message.
    """
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        say(f"stopped{details()}")
        raise typer.Exit(_STOPPED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit
        say(f"the output was closed{details()}")
        raise typer.Exit(_OUTPUT_CLOSED) from None
