r"""How jobs look: text made harmless, tables for people, rows and JSON for programs.

A job may be called anything and may print anything. So whatever comes from one passes `Screen.text`
or `row` before it is written: control characters, those that turn the direction of writing around,
and bytes that are not UTF-8 come out as escapes such as `\x1b`, byte by byte; and so does what the
encoding cannot show.
"""

from __future__ import annotations

import codecs
import functools
import json
import re
import time
from typing import Any, Iterable, List, NamedTuple, Optional, Pattern, Sequence, Tuple

from queuectl import clock
from queuectl.job import Job, JobState

# C0, DEL and C1; line and paragraph separators; marks that reorder text; bytes that are not UTF-8.
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_NAMED = {"\n": "\\n", "\t": "\\t"}
_COLORS = {
    JobState.PENDING: "yellow",
    JobState.PROCESSING: "cyan",
    JobState.COMPLETED: "green",
    JobState.FAILED: "yellow",
    JobState.DEAD: "red",
    JobState.CANCELLED: "bright_black",
}
_LEAST_CELL = 10
ERRORS = "queuectl.bytes"
"""The codec error handler that writes what cannot be encoded as the escapes of its bytes."""


def _escape(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    try:
        data = character.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return f"\\u{ord(character):04x}"
    return "".join(f"\\x{byte:02x}" for byte in data)


def _escape_unencodable(error: UnicodeError) -> Tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_escape, error.object[error.start : error.end])), error.end


codecs.register_error(ERRORS, _escape_unencodable)


def visible(text: str) -> str:
    r"""Write text as one line in which nothing is obeyed; a newline is shown as `\n`."""
    return _pattern("").sub(lambda match: _escape(match[0]), text)


def visible_output(text: str) -> str:
    """Write the output of a job so that nothing but its newlines and tabs is obeyed."""
    return _pattern("(?![\n\t])").sub(lambda match: _escape(match[0]), text)


@functools.lru_cache(maxsize=None)
def _pattern(but: str) -> Pattern[str]:
    """Find what is unsafe; compiled when needed, for most commands write little."""
    return re.compile(f"{but}[{_UNSAFE}]")


def row(values: Iterable[object]) -> str:
    """Write a row for a program: cells separated by tabs, backslashes doubled, nothing as empty."""
    return "\t".join(
        "" if value is None else visible(str(value).replace("\\", "\\\\")) for value in values
    )


def job_row(job: Job) -> str:
    """Write a job as `queuectl list` does into a pipe."""
    return row((job.id, job.state, job.attempts, job.max_retries, job.created_at, job.command))


def dead_row(job: Job) -> str:
    """Write a job as `queuectl dlq list` does into a pipe."""
    return row((job.id, job.attempts, job.finished_at, job.last_error, job.command))


def to_json(value: Any) -> str:
    """Write a value as one line of JSON, in ASCII."""
    return json.dumps(value, allow_nan=False)


def short_id(job_id: str) -> str:
    """Shorten an id that was generated to what is enough to name it; a chosen one stays."""
    generated = len(job_id) == 36 and job_id.count("-") == 4
    return job_id[:8] if generated else job_id


def local_time(instant: str) -> str:
    """Write an instant of the store in the user's own time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(clock.from_iso(instant)))


def elapsed(seconds: float) -> str:
    """Write how long something took or takes: `0.1s`, `42s`, `3m 05s`, `2h 00m`, `5d 03h`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    whole = int(seconds)
    for size, unit, part, lesser in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // part:02d}{lesser}"
    return f"{whole}s"


def width_of(text: str) -> int:
    """How many columns a terminal takes to show text."""
    if text.isascii():
        return len(text)
    import unicodedata

    def columns(character: str) -> int:
        if unicodedata.category(character) in ("Mn", "Me", "Cf"):
            return 0
        return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1

    return sum(map(columns, text))


class Screen(NamedTuple):
    """What text is shown on.

    Attributes:
        encoding: of the stream.
        width: in columns; where it is not a terminal, what a line should be cut to.
        color: whether colours are wanted.
    """

    encoding: str = "utf-8"
    width: int = 80
    color: bool = False

    @property
    def plain(self) -> bool:
        """Whether only ASCII can be shown."""
        try:
            "📦…─".encode(self.encoding)
        except (UnicodeEncodeError, LookupError):
            return True
        return False

    def text(self, raw: str) -> str:
        """Write text as one line that is harmless and can be shown."""
        return self._encodable(visible(raw))

    def output(self, raw: str) -> str:
        """Write a job's output, but for newlines and tabs, so that it is harmless, and whole."""
        return self._encodable(visible_output(raw))

    def say(self, symbol: str, text: str) -> str:
        """Put a symbol before a line, where it can be shown; some need a space more."""
        if self.plain:
            return text
        return f"{symbol}  {text}" if symbol.endswith("\ufe0f") else f"{symbol} {text}"

    def cut(self, shown: str, width: int) -> str:
        """Cut what `text` returned to a number of columns; … stands for what is missing."""
        if width_of(shown) <= width:
            return shown
        end = "..." if self.plain else "…"
        left = width - len(end)
        kept: List[str] = []
        for character in shown:
            left -= width_of(character)
            if left < 0:
                break
            kept.append(character)
        return "".join(kept).rstrip() + end

    def paint(self, text: str, color: Optional[str] = None, bold: bool = False) -> str:
        """Colour text, where colours are wanted."""
        if not self.color:
            return text
        import click

        return click.style(text, fg=color, bold=bold or None)

    def state(self, state: str) -> str:
        """Colour the name of a state."""
        return self.paint(state, _COLORS.get(state))

    def table(
        self,
        headers: Sequence[str],
        rows: Iterable[Sequence[object]],
        elastic: Sequence[int] = (),
    ) -> str:
        """Draw a table that fits the screen's width, if need be by cutting cells.

        Args:
            headers: of the columns.
            rows: of raw cells; those of a column `State` are coloured.
            elastic: which columns may be cut.
        """
        cells = [["" if cell is None else self.text(str(cell)) for cell in line] for line in rows]
        widths = [
            max([len(header), *(width_of(line[number]) for line in cells)])
            for number, header in enumerate(headers)
        ]
        self._shrink(widths, elastic)
        shown = [[self.cut(cell, width) for cell, width in zip(line, widths)] for line in cells]
        if "State" in headers:
            at = headers.index("State")
            for line in shown:
                line[at] = self.state(line[at])
        return _tabulate(headers, shown, "grid" if self.plain else "simple_grid")

    def _shrink(self, widths: List[int], elastic: Sequence[int]) -> None:
        """Take columns from the widest elastic cells until the table fits."""
        # Each cell has a border and two spaces; one border more closes the line.
        excess = sum(widths) + 3 * len(widths) + 1 - self.width
        while excess > 0 and elastic:
            widest = max(elastic, key=lambda number: widths[number])
            if widths[widest] <= _LEAST_CELL:
                return
            next_widest = max(
                [_LEAST_CELL, *(widths[other] for other in elastic if other != widest)]
            )
            step = min(excess, max(widths[widest] - next_widest, 1))
            widths[widest] -= step
            excess -= step

    def _encodable(self, text: str) -> str:
        if text.isascii():
            return text
        return text.encode(self.encoding, ERRORS).decode(self.encoding)


class _Widths:
    """What tabulate asks of the package wcwidth, which we do not require."""

    wcswidth = staticmethod(width_of)


def _tabulate(headers: Sequence[str], cells: Sequence[Sequence[str]], style: str) -> str:
    import tabulate

    # The cells have the width that was planned; tabulate would make the headers' wider.
    tabulate.MIN_PADDING = 0
    # Without wcwidth, tabulate takes every character for one column wide.
    if getattr(tabulate, "wcwidth", _Widths) is None:
        vars(tabulate).update(wcwidth=_Widths, WIDE_CHARS_MODE=True)
    return tabulate.tabulate(cells, headers, tablefmt=style, disable_numparse=True)
