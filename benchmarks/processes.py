"""Child processes: timing them, keeping them running, and what the kernel tells of them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from benchmarks.figure import MeasureError

Word = Union[str, Path]

PATIENCE = 600.0
"""Seconds after which what should have ended has failed."""


def timed(
    argv: Sequence[Word], environ: Mapping[str, str], stdin: int = subprocess.DEVNULL
) -> float:
    """Run a command to its end, its output thrown away; return the seconds it took."""
    began = perf_counter()
    process = subprocess.Popen(
        argv, env=environ, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    return _end(process, argv[0], began)


def _end(process: subprocess.Popen[bytes], name: Word, began: float) -> float:
    with process:
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        except BaseException:
            process.kill()
            raise
        took = perf_counter() - began
    if process.returncode != 0:
        raise MeasureError(f"{name}: exit {process.returncode}: {_last(errors)}")
    return took


def output(argv: Sequence[Word], environ: Mapping[str, str]) -> str:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(
        argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE
    )
    if done.returncode != 0:
        raise MeasureError(f"{argv[0]}: exit {done.returncode}: {_last(done.stderr)}")
    return done.stdout.decode()


def at_once(
    argv: Sequence[Word], count: int, environ: Mapping[str, str]
) -> Tuple[float, List[str]]:
    """Run many of one command at once.

    Returns:
        Seconds from the first one's start to the last one's end, and what each printed.
    """
    printed: List[str] = []
    with contextlib.ExitStack() as stack:
        began = perf_counter()
        crowd = [
            stack.enter_context(
                subprocess.Popen(
                    argv,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )
            for _ in range(count)
        ]
        # What each prints fits into its pipe, so none waits for its reader.
        for process in crowd:
            process.wait(PATIENCE)
        took = perf_counter() - began
        for process in crowd:
            printed.append(process.stdout.read().decode() if process.stdout else "")
            if process.returncode != 0:
                raise MeasureError(f"exit {process.returncode}: {printed[-1].strip()}")
    return took, printed


@contextlib.contextmanager
def running(
    argv: Sequence[Word], environ: Mapping[str, str], end: Sequence[int] = (signal.SIGTERM,) * 2
) -> Iterator[subprocess.Popen[bytes]]:
    """Keep a command running; at the end send it these signals, and kill what is left.

    `start` ends its jobs at the second signal, and with them all that it began.
    """
    process = subprocess.Popen(
        argv,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
        if process.poll() not in (None, 0):
            raise MeasureError(f"{argv[0]}: exit {process.returncode}")
    finally:
        for signum in end:
            if process.poll() is None:
                process.send_signal(signum)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.3)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20 if end else 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Fifo:
    """A named pipe by which a job tells that it runs, at once and without disturbing anybody.

    Args:
        path: where to make it.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self.path = path
        # Open for writing too, so that it never ends.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> Fifo:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)
        self.path.unlink()

    def tell(self, lines: int) -> None:
        """Write lines, for those who wait for one each."""
        os.write(self._fd, b"\n" * lines)

    def wait(self, lines: int = 1, writer: Optional[subprocess.Popen[Any]] = None) -> float:
        """Wait for lines; return when they had come, by `perf_counter`.

        Args:
            lines: how many.
            writer: who must go on running until then.
        """
        deadline = monotonic() + PATIENCE
        while lines > 0:
            ready, _, _ = select.select([self._fd], [], [], 1.0)
            if ready:
                came = perf_counter()
                lines -= os.read(self._fd, 4096).count(b"\n")
                if lines <= 0:
                    return came
            elif writer is not None and writer.poll() is not None:
                raise MeasureError(f"{writer.args!r}: ended early, exit {writer.returncode}")
            elif monotonic() > deadline:
                raise MeasureError(f"no job had run after {PATIENCE:g} s")
        return perf_counter()


def children(pid: int) -> List[int]:
    """The children of a process."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path("/proc", name, "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue  # Gone meanwhile.
        if int(fields[1]) == pid:
            found.append(int(name))
    return found


def memory(pids: Sequence[int], kinds: Tuple[str, ...] = ("Pss:",)) -> float:
    """Megabytes (10^6) that these processes use, with each its share of what they share: PSS.

    Args:
        pids: the processes.
        kinds: what of it, as /proc/PID/smaps_rollup calls it.
    """
    kibibytes = 0
    for pid in pids:
        for line in _told(pid, "smaps_rollup").decode("ascii").splitlines():
            if line.startswith(kinds):
                kibibytes += int(line.split()[1])
    return kibibytes * 1024 / 1e6


def processor_seconds(pids: Sequence[int]) -> float:
    """Seconds of a processor that these processes took so far, with those they waited for."""
    ticks = 0
    for pid in pids:
        # What has ended since it was listed is counted by who waited for it.
        fields = _told(pid, "stat").rpartition(b")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _told(pid: int, name: str) -> bytes:
    """What /proc tells of a process; nothing if that has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _last(errors: bytes) -> str:
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
