"""Where the command line writes: data to standard output, messages to standard error.

Whatever the streams are, writing to them neither fails on a character nor leaves a traceback at the
end: what the encoding cannot show is escaped, and when the reader has gone the command ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from typing import Iterator, Optional, TextIO

from queuectl.errors import RequestError
from queuectl.render import ERRORS, Screen, visible

CLEAR_LINE = "\r\x1b[K"
_PIPE_WIDTH = 200
_DELAY = 1.0
_REDRAW = 0.1


def prepare() -> None:
    """Make the standard streams safe to use; to be called before anything else is opened."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # Closed by the caller: the next file to be opened, even the job file, would take its
            # place, and be written to.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _usable(sys.stdout, 1)
    sys.stderr = _usable(sys.stderr, 2)


def _usable(stream: Optional[TextIO], fd: int) -> TextIO:
    if stream is None:
        return open(fd, "w", encoding="utf-8", errors=ERRORS, closefd=False)
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors=ERRORS)
    return stream


def is_terminal() -> bool:
    """Whether a person looks at standard output."""
    return sys.stdout.isatty()


def screen(stream: Optional[TextIO] = None) -> Screen:
    """Describe standard output, or another stream, to those who write for it."""
    stream = sys.stdout if stream is None else stream
    if not stream.isatty():
        return Screen(stream.encoding, _PIPE_WIDTH)
    import shutil  # With its compression modules, slow to import.

    wants_color = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Screen(stream.encoding, shutil.get_terminal_size().columns, wants_color)


def write(text: str) -> None:
    """Write to standard output.

    Raises:
        BrokenPipeError: nobody reads it any more.
        RequestError: it cannot be written, as to a full disk.
    """
    with writing():
        sys.stdout.write(text)


def line(text: str = "") -> None:
    """Write a line to standard output; raises what `write` does."""
    write(text + "\n")


def write_bytes(data: bytes) -> None:
    """Write bytes as they are to standard output; raises what `write` does."""
    with writing():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)


def flush() -> None:
    """Hand on what was written; raises what `write` does."""
    with writing():
        sys.stdout.flush()


def check_reader() -> None:
    """Raise BrokenPipeError if whoever read standard output from a pipe has gone."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sys.stdout, 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            raise BrokenPipeError


def notice(text: str) -> None:
    """Tell the user something, in one line on standard error."""
    complain(f"queuectl: {visible(text)}\n")


def complain(text: str) -> None:
    """Write to standard error; if that cannot be written either, there is nobody to tell."""
    with contextlib.suppress(OSError, RequestError):
        flush()
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def flush_what_can_be() -> None:
    """Hand on what is left, after an error was told; what cannot be written is given up."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Turn what the system says of a write to standard output into what `write` raises."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RequestError(f"cannot write the output: {error.strerror}") from error


class Progress:
    """A line at a terminal's standard error that says what takes long; not in the first second.

    Args:
        text: what it says until there is more to say.
        wanted: whether it may appear at all.
    """

    def __init__(self, text: str, wanted: bool) -> None:
        self._text = text
        self._over = threading.Event()
        self._thread: Optional[threading.Thread] = None
        if wanted and sys.stderr.isatty():
            self._thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> Progress:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def show(self, text: str) -> None:
        """Say what is being done now; costs nothing, so it may be called often."""
        self._text = text

    def _draw(self) -> None:
        if self._over.wait(_DELAY):
            return
        drawn = ""
        while True:
            if drawn != self._text:
                drawn = self._text
                complain(f"{CLEAR_LINE}{drawn}")
            if self._over.wait(_REDRAW):
                break
        complain(CLEAR_LINE)
