"""What the tests share: real queuectl processes, a terminal, and waiting without sleeping.

Whatever a test starts carries the mark of that test in its environment, which children inherit; so
everything that descends from a test is found again in /proc, however it was forked, and is ended by
its own number. What `run` and the test itself started must have ended when the test does: the guard
in conftest.py fails it otherwise. What `spawn` and `terminal` started may still run then: it is
ended with all that descends from it. Where there is no /proc (macOS), only the process groups of
what was started directly are ended.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import gc
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path
from typing import (
    Any,
    Callable,
    Container,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

import click
import pytest

from forking import HELD_OPEN, RUNNING, Commands, Ended, TooLateError
from queuectl import machine
from queuectl.errors import QueueError

T = TypeVar("T")
Word = Union[str, bytes, Path]
Changes = Optional[Mapping[str, Optional[str]]]

# Not a QUEUECTL_ name: it must stay out of what queuectl reads and of what its jobs are promised.
MARK = "TEST_MARK"
# Its warnings are errors.
PYTHON = (sys.executable, "-W", "error")
HAS_PROC = os.path.exists("/proc/self/environ")

# How Python reports what nobody could catch, and a warning: neither changes the exit code.
_COMPLAINT = re.compile(r"^Exception ignored .*|^.*\b[A-Z][a-z]+Warning: .*", re.MULTILINE)
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-B]|[=>78cDEHM])"
)
_UNFINISHED = re.compile(r"(?:\r|\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[()])?)\Z")


def need(program: str) -> None:
    """Skip the test, by name, if a program is missing; but not where `TOOLS_REQUIRED` is set."""
    if shutil.which(program) is None and not os.environ.get("TOOLS_REQUIRED"):
        pytest.skip(f"{program} is not installed")


def wait_until(condition: Callable[[], T], timeout: float = 10.0, what: str = "the condition") -> T:
    """Return what `condition` returns, as soon as that is true.

    Args:
        condition: called again and again, with short growing pauses; what it raises passes through.
        timeout: seconds.
        what: named by the AssertionError when the time is over.
    """
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g}s in vain for {what}; last seen: {found!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def processes(mark: str, containing: str = "", but: Container[int] = ()) -> Dict[int, str]:
    """The living processes that carry this mark: from process id to command line.

    Args:
        mark: the value of the variable `MARK`; `a` finds `a` and `a/1`.
        containing: only those whose command line contains this.
        but: process ids that are passed over unread: thousands of tests look at all there are.
    """
    wanted = re.compile(rb"(?:^|\0)%s=%s(?:/|\0|$)" % (MARK.encode(), re.escape(mark.encode())))
    # A zombie has no environment left, so it is not found.
    found = {
        pid: command_line(pid)
        for pid in all_pids()
        if pid not in but and wanted.search(_proc(pid, "environ"))
    }
    return {pid: line for pid, line in found.items() if containing in line}


def children(but: Container[int] = (), of: int = 0) -> Dict[int, str]:
    """The living children of this process, or of another, but for some: as `processes`."""
    parent = of or os.getpid()
    return {
        pid: command_line(pid) for pid in all_pids() if pid not in but and _parent(pid) == parent
    }


@contextlib.contextmanager
def network(kind: int) -> Iterator[None]:
    """Let no other test see this machine's interfaces change: LOCK_EX changes, LOCK_SH minds.

    A browser gives up all that it asked for when they change. Who wants to change them comes before
    those who ask behind him, so that there is an end to his waiting.
    """
    base = os.path.join(tempfile.gettempdir(), f"queuectl-tests-{os.geteuid()}")
    with open(f"{base}.turn", "a") as turn, open(f"{base}.network", "a") as held:
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(held, kind)
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield


def open_descriptors() -> int:
    """How many are open.

    What other tests left closes at any time, and leaves its number to whatever is opened next: so
    which they are tells nothing, but more of them there must not be.
    """
    gc.collect()
    return len(machine.open_descriptors())


def all_pids() -> List[int]:
    """Every process of this machine, where there is a /proc."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()] if HAS_PROC else []


def command_line(pid: int) -> str:
    """The command line of a process, or nothing if it is gone."""
    return _proc(pid, "cmdline").rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")


def kill(pids: Iterable[int]) -> None:
    """Send SIGKILL to each of these processes that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end_all(mark: str) -> None:
    """Kill everything that carries this mark, also what it starts meanwhile; wait for the end."""

    def none_left() -> bool:
        left = processes(mark)
        kill(left)
        return not left

    wait_until(none_left, what="killed processes to be gone")


def _proc(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""  # Gone meanwhile, or somebody else's.


def _parent(pid: int) -> int:
    fields = _proc(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields and fields[0] != b"Z" else 0


def _end_group(process: subprocess.Popen[Any]) -> None:
    """Kill a process that leads a group, with its group, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Search:
    """Finds patterns in output that grows, each after the end of the one before."""

    def __init__(self, text: Callable[[], str], ended: Callable[[], bool]) -> None:
        self._text = text
        self._ended = ended
        self._position = 0

    def expect(self, pattern: str, timeout: float) -> re.Match[str]:
        wanted = re.compile(pattern, re.MULTILINE)

        def look() -> Union[re.Match[str], str]:
            # In this order, else what came just before the end would be missed.
            ended = self._ended()
            match = wanted.search(self._text(), self._position)
            return match or ("the program ended" if ended else "")

        try:
            found = wait_until(look, timeout)
        except AssertionError:
            found = f"waited {timeout:g}s"
        if isinstance(found, str):
            rest = self._text()[self._position :]
            raise AssertionError(f"no {pattern!r}: {found}; there was:\n{rest}")
        self._position = found.end()
        return found


def _decoded(data: bytes) -> str:
    # Half a character at the end is left out, so that text once seen never changes.
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data)


def _check_for_complaints(stderr: str) -> None:
    found = _COMPLAINT.search(stderr)
    if found:
        raise AssertionError(f"{found[0]}\n--- err:\n{stderr}")


class Process(subprocess.Popen):  # type: ignore[type-arg]  # Not generic at run time on 3.8.
    """A program that runs while the test looks on: a Popen in a session of its own, with more.

    Its output goes to files, so that it never waits for a reader; its input is empty. The options
    are those of Popen: `stdout=subprocess.PIPE` gives it a real pipe.
    """

    def __init__(self, argv: Sequence[Word], **options: Any) -> None:
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115  # Till close().
        self._search_out = _Search(lambda: self.out, lambda: self.poll() is not None)
        self._search_err = _Search(lambda: self.err, lambda: self.poll() is not None)
        defaults = {
            "stdin": subprocess.DEVNULL,
            "stdout": self._files[0],
            "stderr": self._files[1],
            "start_new_session": True,
        }
        super().__init__(argv, **{**defaults, **options})

    @property
    def out(self) -> str:
        """Everything on standard output so far."""
        return self._read(0)

    @property
    def err(self) -> str:
        """Everything on standard error so far."""
        return self._read(1)

    def expect(self, pattern: str, timeout: float = 10.0) -> re.Match[str]:
        """Wait for the pattern on standard output, behind the last one found; return the match.

        Args:
            pattern: a regular expression; `^` and `$` are those of lines.
            timeout: seconds; it fails at once if the program ends.
        """
        return self._search_out.expect(pattern, timeout)

    def expect_err(self, pattern: str, timeout: float = 10.0) -> re.Match[str]:
        """Wait for the pattern on standard error, as `expect` does on standard output."""
        return self._search_err.expect(pattern, timeout)

    def finish(self, code: Optional[int] = None, timeout: float = 30.0) -> int:
        """Wait for the end and return the exit code, negative if it was a signal.

        Args:
            code: what it must be.
            timeout: seconds.
        """
        try:
            self.wait(timeout)
            problem = f"exit code {self.returncode}" if code not in (None, self.returncode) else ""
        except subprocess.TimeoutExpired:
            problem = f"still running after {timeout:g}s"
        if problem:
            output = f"--- out:\n{self.out}\n--- err:\n{self.err}"
            raise AssertionError(f"{self.args}: {problem}\n{output}")
        return int(self.returncode)

    def close(self) -> None:
        """Kill its group if it still runs, and fail if Python complained on standard error."""
        _end_group(self)
        complaints = self.err
        for file in (self.stdin, self.stdout, self.stderr, *self._files):
            if file is not None:
                file.close()
        _check_for_complaints(complaints)

    def _read(self, number: int) -> str:
        descriptor = self._files[number].fileno()
        # Not with seek: the program shares the position, and writes there.
        return _decoded(os.pread(descriptor, os.fstat(descriptor).st_size, 0))


class Terminal:
    """A program at a pseudo-terminal of its own: keys reach it as a person's would.

    Args:
        argv: the program and its arguments.
        env: its environment.
        columns: of the terminal.
        rows: of the terminal.
        cwd: where it starts.
    """

    def __init__(
        self, argv: Sequence[Word], env: Mapping[str, str], columns: int, rows: int, cwd: Word
    ) -> None:
        self._master, slave = os.openpty()
        self.resize(columns, rows)
        # A session leader without a terminal gets the first one that it opens. A shell opens it and
        # then becomes the program; preexec_fn would warn, and might hang, beside threads.
        adopt = ["/bin/sh", "-c", 'exec <>"$0" >&0 2>&0; exec "$@"', os.ttyname(slave)]
        self.process = subprocess.Popen(
            [*adopt, *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env={**env, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(slave)
        self.pid = self.process.pid
        self._data = bytearray()
        self._hung_up = threading.Event()
        self._search = _Search(lambda: self.text, self._ended)
        # Read at all times: a program blocks when it has written more than a terminal holds.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def raw(self) -> str:
        """Everything shown so far, with every control character."""
        return _decoded(bytes(self._data))

    @property
    def text(self) -> str:
        r"""Everything shown so far, without escape sequences, its lines ended by `\n`."""
        text = _ESCAPE.sub("", self.raw)
        # Held back while it may become a sequence or a line's end: text once seen never changes.
        return _UNFINISHED.sub("", text).replace("\r\n", "\n")

    def send(self, keys: str) -> None:
        r"""Type: `\r` is Enter, `\x03` Ctrl-C, `\x04` Ctrl-D, `\x1a` Ctrl-Z, `\x1c` Ctrl-\."""
        os.write(self._master, keys.encode())

    def expect(self, pattern: str, timeout: float = 10.0) -> re.Match[str]:
        """Wait for the pattern in `text`, behind the last one found, and return the match.

        What is typed is echoed, and so is part of the text.

        Args:
            pattern: a regular expression; `^` and `$` are those of lines.
            timeout: seconds; it fails at once if the program ends.
        """
        return self._search.expect(pattern, timeout)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for the end of the program; return its exit code, negative if it was a signal."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout:g}s:\n{self.text}") from None
        self._ended()
        return int(self.process.returncode)

    def resize(self, columns: int, rows: int) -> None:
        """Change the terminal's size; what runs there gets SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def hang_up(self) -> None:
        """Close the terminal, as closing its window does; what runs there gets SIGHUP."""
        if not self._hung_up.is_set():
            self._hung_up.set()
            self._reader.join()
            os.close(self._master)

    def close(self) -> None:
        """Hang up, and kill the program if it still runs."""
        self.hang_up()
        _end_group(self.process)

    def _ended(self) -> bool:
        if self.process.poll() is None:
            return False
        self._reader.join(0.5)  # That long only if something else has the terminal open.
        return True

    def _read(self) -> None:
        while not self._hung_up.is_set():
            if select.select([self._master], [], [], 0.02)[0]:
                try:
                    chunk = os.read(self._master, 65536)
                except OSError:
                    return  # How Linux says that nobody has the terminal open any more.
                if not chunk:
                    return
                self._data += chunk


class Cli:
    """The installed queuectl, run in real processes on a store of its own.

    Args:
        folder: where commands run by default; the store is `store` in it, and is not made here.
        mark: the test's mark.
        commands: runs those that need no Python of their own; none to start one for each.

    Attributes:
        command: how queuectl is called; Python's warnings are errors in it.
        env: changes to the environment of every call; None takes a variable out.
    """

    def __init__(self, folder: Path, mark: str, commands: Optional[Commands] = None) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.mark = mark
        self.commands = commands
        self.command: List[Word] = [*PYTHON, "-m", "queuectl"]
        self.env: Dict[str, Optional[str]] = {}
        self._started: List[Union[Process, Terminal]] = []

    def environment(self, changes: Changes = None) -> Dict[str, str]:
        """The environment of a call: this process's, without settings of queuectl and terminals.

        In it `queuectl` is that of this Python, text is UTF-8, `QUEUECTL_STORE` the test's store.
        """
        unwanted = (
            *("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PYTHONWARNINGS"),
            # It would have every process compile all that it imports, which takes longer than
            # most of them run.
            "PYTHONDONTWRITEBYTECODE",
        )
        env: Dict[str, Optional[str]] = {
            name: value
            for name, value in os.environ.items()
            if name not in unwanted and not name.startswith("QUEUECTL_")
        }
        env["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
        env["LC_ALL"] = "C.UTF-8"
        env["QUEUECTL_STORE"] = str(self.store)
        env[MARK] = self.mark
        env.update(self.env)
        env.update(changes or {})
        return {name: value for name, value in env.items() if value is not None}

    def run(self, *args: Word, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `queuectl ARGS` to its end; its output is text, exactly as written.

        Args:
            *args: after the program's name.
            **options: those of `run_bytes`.
        """
        done = self.run_bytes(*args, **options)
        out, err = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def run_bytes(
        self,
        *args: Word,
        input: Union[str, bytes, None] = None,  # noqa: A002  # As subprocess.run calls it.
        cwd: Optional[Word] = None,
        env: Changes = None,
        check: Optional[int] = None,
        timeout: float = 30.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `queuectl ARGS` to its end; its output is bytes.

        Args:
            *args: after the program's name.
            input: standard input; empty by default.
            cwd: where it runs; the test's folder by default.
            env: changes to the environment; None takes a variable out.
            check: the exit code that it must have; any by default.
            timeout: seconds, after which it is killed and the test fails.
        """
        folder = self.folder if cwd is None else cwd
        argv = [*self.command, *args]
        try:
            if input is None and self.commands is not None and self._needs_no_python(args, env):
                words = list(map(os.fsdecode, args))
                done = self.commands.run(words, os.fsdecode(folder), self.environment(env), timeout)
            else:
                given = input.encode("utf-8") if isinstance(input, str) else input
                done = self._run_alone(argv, given, folder, self.environment(env), timeout)
        except TooLateError as error:
            raise AssertionError(f"{argv}: {error}") from None
        shown = done.err.decode("utf-8", "replace")
        if check not in (None, done.code):
            output = f"--- out:\n{done.out.decode('utf-8', 'replace')}\n--- err:\n{shown}"
            raise AssertionError(f"{argv}: exit code {done.code}, not {check}\n{output}")
        _check_for_complaints(shown)
        return subprocess.CompletedProcess(argv, done.code, done.out, done.err)

    def refusal(self, *args: str) -> Tuple[int, str]:
        """What comes of `queuectl ARGS` that must fail: the exit code, and the line that says why.

        It is called in this process, which is quick: for lists of what is refused.
        """
        from queuectl.cli.app import call, usage_text

        try:
            code = call(["--store", str(self.store), *args])
        except click.UsageError as error:
            code, line = error.exit_code, usage_text(error)
        except QueueError as error:
            code, line = error.exit_code, str(error)
        else:
            raise AssertionError(f"{args} was not refused, but ended with {code}")
        assert "\n" not in line, line
        return code, line

    def json(self, *args: Word, **options: Any) -> Any:
        """Run `queuectl --json ARGS`, which must end with 0, and return what it printed, parsed."""
        return json.loads(self.run("--json", *args, **{"check": 0, **options}).stdout)

    def spawn(
        self, *args: Word, cwd: Optional[Word] = None, env: Changes = None, **options: Any
    ) -> Process:
        """Start `queuectl ARGS` and return at once.

        If it still runs when the test ends, it is killed with everything that descends from it.

        Args:
            *args: after the program's name.
            cwd: where it runs; the test's folder by default.
            env: changes to the environment; None takes a variable out.
            **options: those of Popen.
        """
        folder = self.folder if cwd is None else cwd
        argv = [*self.command, *args]
        process = Process(argv, cwd=folder, env=self._marked(env), **options)
        self._started.append(process)
        return process

    def terminal(
        self,
        *args: Word,
        program: Optional[Sequence[Word]] = None,
        columns: int = 100,
        rows: int = 30,
        cwd: Optional[Word] = None,
        env: Changes = None,
    ) -> Terminal:
        """Start `queuectl ARGS` at a terminal; at the end of the test as with `spawn`.

        Args:
            *args: after the program's name.
            program: what to start instead of queuectl.
            columns: of the terminal.
            rows: of the terminal.
            cwd: where it runs; the test's folder by default.
            env: changes to the environment; None takes a variable out.
        """
        argv = [*(self.command if program is None else program), *args]
        folder = self.folder if cwd is None else cwd
        terminal = Terminal(argv, self._marked(env), columns, rows, folder)
        self._started.append(terminal)
        return terminal

    def processes(self, containing: str = "") -> Dict[int, str]:
        """What runs now of all that was started here, jobs included: process id to command line.

        Args:
            containing: only those whose command line contains this.
        """
        return processes(self.mark, containing)

    def end_all(self) -> None:
        """Kill all that was started here, jobs included: for tests that end in ruins on purpose."""
        end_all(self.mark)

    def close(self) -> None:
        """End what `spawn` and `terminal` started and still runs, with all that descends from it.

        What a program left behind that had ended by itself is not touched: that is for the guard.
        """
        failures = []
        for number, started in enumerate(self._started):
            process = started.process if isinstance(started, Terminal) else started
            if process.poll() is None:
                end_all(f"{self.mark}/{number}")
            try:
                started.close()
            except AssertionError as error:
                failures.append(str(error))
        self._started.clear()
        if failures:
            raise AssertionError("\n".join(failures))

    def _needs_no_python(self, args: Sequence[Word], changes: Changes) -> bool:
        """Whether it makes no difference to a command that it is forked off: see `forking`."""
        own = (*self.env, *(changes or ()))
        return (
            self.command == [*PYTHON, "-m", "queuectl"]
            and "start" not in args
            # What Python itself reads when it starts.
            and not any(name.startswith(("PYTHON", "LC_", "LANG")) for name in own)
        )

    @staticmethod
    def _run_alone(
        argv: Sequence[Word],
        given: Optional[bytes],
        cwd: Word,
        env: Mapping[str, str],
        timeout: float,
    ) -> Ended:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
        with process:
            try:
                out, err = process.communicate(given, timeout)
            except subprocess.TimeoutExpired as error:
                what = RUNNING if process.poll() is None else HELD_OPEN
                raise TooLateError(what, timeout, error.stdout) from None
            finally:
                _end_group(process)
        return Ended(process.returncode, out, err)

    def _marked(self, changes: Changes) -> Dict[str, str]:
        return {**self.environment(changes), MARK: f"{self.mark}/{len(self._started)}"}
