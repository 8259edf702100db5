"""Runs one command, tells how it ended, and keeps what it printed.

**No orphans.** A job leads a process group (and session) of its own. When it is made to end, `run`
returns only once no process of that group is alive. A job that ends by itself may leave processes
behind: those are its own business.

**Bounded output.** A job writes to a file (see `capture`), not through a pipe that somebody has to
empty. If the file is empty at the end and nobody can write to it any more, the next run has it;
else it goes to its place. So no output ever ends up with another job, whatever a job leaves behind,
and a job that prints nothing costs no file.

**No busy waiting.** All waiting is done in the `wait` of the caller, which SIGCHLD must end.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
from time import monotonic
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from queuectl import machine
from queuectl.capture import Capture, above_stdio
from queuectl.clock import format_duration

TIMEOUT = "timeout"

_BRIEF = 0.001  # seconds after which what is run probably waits for something itself
_LASTING = 0.01  # seconds after which a run is no longer one of those that are over at once
_LOOK = 0.1  # seconds between two looks at the size of the output, and at the reasons to stop
_FIRST_PAUSE = 0.001  # seconds before a group that is ending is looked at, doubled each time
_MAX_LEFTOVERS = 256  # each costs a descriptor, of which a process often has but 1024
_EVERY_SIGNAL = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})

_FOLDER_ERRORS = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "is not a folder",
    errno.EACCES: "may not be entered",
}
_SHELL_ERRORS = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "does not exist",
    errno.EACCES: "may not be executed",
}
# What a shell means by these; the words are enough, and are the same in every language.
_EXIT_CODES = {126: "Permission denied", 127: "Command not found"}


class Limits(NamedTuple):
    """What a run may take: `timeout` and `kill_grace` in seconds, `max_output` in bytes."""

    timeout: Optional[float]
    kill_grace: float
    max_output: Optional[int]


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        error: what went wrong, in words; nothing if the shell exited 0 and was not made to.
        exit_code: of the shell; nothing if a signal ended it or it never ran.
        ended_by: `TIMEOUT`, or the reason that `stop` gave; nothing if the job ended by itself.
        unkept: why its output is not in its place yet: call `Runner.keep` until that succeeds.
        signal: the number of the signal that ended the shell; nothing if none did.
    """

    error: Optional[str]
    exit_code: Optional[int]
    ended_by: Optional[str]
    unkept: Optional[str] = None
    signal: Optional[int] = None


class Runner:
    """Runs commands, one after the other.

    It sees to it that children inherit none of this process's descriptors above 2, and changes the
    working folder at each run: so the paths it is given are absolute.

    Args:
        spool: the file to which the current run writes.
        environ: what every command finds in its environment.
        wait: sleeps for so many seconds, or until a signal (SIGCHLD above all) or an order comes.
    """

    def __init__(
        self, spool: str, environ: Mapping[str, str], wait: Callable[[float], object]
    ) -> None:
        let_nothing_be_inherited()
        self._spool = os.path.abspath(spool)
        self._environ = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
        self._wait = wait
        self._null = above_stdio(os.open(os.devnull, os.O_RDONLY))
        self._output: Optional[Capture] = None
        self._unkept: Optional[Capture] = None
        self._leftovers: List[Capture] = []

    def run(
        self,
        command: str,
        *,
        shell: str,
        cwd: str,
        variables: Mapping[str, str],
        limits: Limits,
        keep_as: str,
        on_spawn: Callable[[int], None],
        on_wait: Callable[[], None],
        on_lasting: Callable[[int], None],
        stop: Callable[[], Optional[str]],
    ) -> Outcome:
        """Run a command to its end.

        Args:
            command: the line for the shell.
            shell: the path of a program that takes `-c` and a line.
            cwd: the folder to run it in.
            variables: added to its environment.
            limits: see `Limits`.
            keep_as: where its output is moved, if there is any; folders are made for it, but none
                above what this path has in common with the spool's: a removed store stays removed.
            on_spawn: called with the number of the process group, the shell's pid, once it runs.
            on_wait: called once it has run for a moment, so that others can use the processor.
            on_lasting: called with the same once it has not ended at once; so what takes a while
                (the kernel tells nothing of a process that is just becoming another program) is
                not done for a job that is over before anybody could ask for it.
            stop: asked before the spawn and then, after each wait, ten times a second at least; if
                it gives a reason the job is ended.

        Raises:
            OSError: the output of the last run cannot be moved yet, or there is no file for that of
                this one. Nothing was started. What `on_spawn`, `stop` or `wait` raise passes
                through, after the group was killed.
        """
        self.keep()
        reason = stop()
        if reason is not None:
            return Outcome(f"Ended by {reason}", None, reason)
        output, lent = self._lend()
        try:
            pid = self._spawn(command, shell, cwd, variables, lent)
        except NotStartedError as error:
            return Outcome(str(error), None, None)
        finally:
            os.close(lent)
        child = _Child(pid)
        output.assign(pid, keep_as, limits.max_output)
        try:
            deadline = monotonic() + (math.inf if limits.timeout is None else limits.timeout)
            on_spawn(pid)
            self._wait(max(min(_BRIEF, deadline - monotonic()), 0))
            if not child.reap():
                on_wait()
                if stop() is None:
                    self._wait(max(min(_LASTING, deadline - monotonic()), 0))
            if not child.reap():
                on_lasting(pid)
            ended_by = self._watch(child, output, deadline, limits.kill_grace, stop)
        except BaseException:
            child.destroy()
            self._output = None
            output.discard()
            raise
        return self._finish(child, output, ended_by, limits.timeout)

    def keep(self) -> None:
        """Move the output of the last run to its place, if `Outcome.unkept` told that it is not.

        Raises:
            OSError: it still cannot be moved, as on a full disk.
        """
        output = self._unkept
        if output is None:
            return
        output.move()
        self._unkept = None
        if not output.held:
            output.close()
            return
        self._leftovers.append(output)
        if len(self._leftovers) > _MAX_LEFTOVERS:
            self._leftovers.pop(0).close()

    def tend(self) -> None:
        """Keep what earlier jobs' background processes print below its limit; to be called often.

        While a job runs, `run` does it.
        """
        if self._unkept is not None:
            self._unkept.trim()
        for output in self._leftovers[:]:
            output.held = output.is_held()
            size = output.trim()
            if not output.held:
                self._leftovers.remove(output)
                if size:
                    output.close()
                else:
                    output.discard()

    def close(self) -> None:
        """Let go of everything; output that could not be kept stays in the spool."""
        with contextlib.suppress(OSError):
            self.keep()
        if self._output is not None:
            self._output.discard()
        if self._unkept is not None:
            self._leftovers.append(self._unkept)
        for output in self._leftovers:
            output.close()
        self._output, self._unkept, self._leftovers = None, None, []
        os.close(self._null)

    def _lend(self) -> Tuple[Capture, int]:
        """The file for the next run, which is empty, and a descriptor for the job."""
        if self._output is not None:
            try:
                return self._output, self._output.lend()
            except FileNotFoundError:
                # Removed together with the store.
                self._output.close()
                self._output = None
        self._output = Capture(self._spool)
        return self._output, self._output.lend()

    def _spawn(
        self, command: str, shell: str, cwd: str, variables: Mapping[str, str], lent: int
    ) -> int:
        try:
            folder = cwd.encode("utf-8", "surrogateescape")
            os.chdir(folder)
        except (OSError, ValueError) as error:
            raise NotStartedError(f"Working folder {cwd}", error, _FOLDER_ERRORS) from error
        environ = dict(self._environ)
        for name, value in variables.items():
            environ[os.fsencode(name)] = os.fsencode(value)
        environ[b"PWD"] = folder
        return spawn(shell, command, environ, self._null, lent)

    def _watch(
        self,
        child: _Child,
        output: Capture,
        deadline: float,
        kill_grace: float,
        stop: Callable[[], Optional[str]],
    ) -> Optional[str]:
        """Wait until the job has ended, or end it; returns why it was made to end."""
        # What has ended before its end was due has a result that counts, however late that is seen.
        while not child.reap():
            reason = stop()
            if monotonic() >= deadline:
                reason = TIMEOUT
            if reason is not None:
                self._end(child, output, kill_grace, stop)
                return reason
            output.trim()
            self.tend()
            self._wait(max(min(_LOOK, deadline - monotonic()), 0))
        return None

    def _end(
        self,
        child: _Child,
        output: Capture,
        kill_grace: float,
        stop: Callable[[], Optional[str]],
    ) -> None:
        """End the group: TERM, and when the time of grace is over KILL, until nobody is left."""
        machine.signal_group(child.pid, signal.SIGTERM)
        # One that is stopped gets to see TERM only once it continues.
        machine.signal_group(child.pid, signal.SIGCONT)
        kill_at = monotonic() + kill_grace
        pause = _FIRST_PAUSE
        while not child.reap() or machine.group_alive(child.pid):
            if monotonic() >= kill_at:
                machine.signal_group(child.pid, signal.SIGKILL)
                # And again: a process of the same session may have joined the group since.
                kill_at = monotonic() + _LOOK
            self._wait(max(min(pause, kill_at - monotonic()), 0))
            pause = min(pause * 2, _LOOK)
            # It has its reason; but the caller may have to take note of what woke it.
            stop()
            output.trim()
            self.tend()

    def _finish(
        self, child: _Child, output: Capture, ended_by: Optional[str], timeout: Optional[float]
    ) -> Outcome:
        # In this order: what is written before the last writer lets go shows in the size.
        output.held = output.is_held()
        size = output.trim()
        error = in_words(child.status, ended_by, timeout)
        if error is not None and error not in _EXIT_CODES.values():
            line = output.last_line(size)
            error = f"{error}: {line}" if line else error
        unkept = None
        if size or output.held:
            self._output, self._unkept = None, output
            try:
                self.keep()
            except OSError as failure:
                unkept = failure.strerror or str(failure)
        exit_code = os.WEXITSTATUS(child.status) if os.WIFEXITED(child.status) else None
        killed_by = os.WTERMSIG(child.status) if os.WIFSIGNALED(child.status) else None
        return Outcome(error, exit_code, ended_by, unkept, killed_by)


class _Child:
    """The shell of a job, which leads its process group; `status` is what waitpid tells of it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status = 0
        self._ended = False

    def reap(self) -> bool:
        """Whether it has ended."""
        if not self._ended:
            pid, self.status = os.waitpid(self.pid, os.WNOHANG)
            self._ended = pid != 0
        return self._ended

    def destroy(self) -> None:
        """End the group at once."""
        machine.signal_group(self.pid, signal.SIGKILL)
        if not self._ended:
            os.waitpid(self.pid, 0)


class NotStartedError(Exception):
    """The command could not be started, for a reason that lies in the job or the settings."""

    def __init__(self, what: str, error: Exception, words: Mapping[int, str]) -> None:
        number = error.errno if isinstance(error, OSError) and error.errno else 0
        if number == errno.E2BIG:
            super().__init__("Command and environment are longer than the system allows")
        elif number in words:
            super().__init__(f"{what} {words[number]}")
        else:
            super().__init__(f"{what}: {os.strerror(number) if number else error}")


def spawn(shell: str, command: str, environ: Mapping[bytes, bytes], null: int, output: int) -> int:
    """Start a shell line as the leader of a session, and so of a process group, of its own.

    Args:
        shell: the path of a program that takes `-c` and a line.
        command: the line.
        environ: its whole environment.
        null: the descriptor that becomes its standard input.
        output: the one that becomes its standard output and error.

    Raises:
        NotStartedError: the system did not let it start.
    """
    options: Dict[str, Any] = {
        "file_actions": [
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ],
        # A signal that is ignored would stay ignored in all that it starts.
        "setsigmask": [],
        "setsigdef": _EVERY_SIGNAL,
    }
    try:
        # What comes from a job is UTF-8 whatever the locale, other bytes being surrogates.
        program = shell.encode("utf-8", "surrogateescape")
        line = command.encode("utf-8", "surrogateescape")
        if line[:1] in (b"-", b"+"):
            # A shell would take it for options.
            line = b" " + line
        argv = [program, b"-c", line]
        try:
            return os.posix_spawn(program, argv, environ, setsid=True, **options)
        except NotImplementedError:
            # Python was built for an old C library. All promises hold without a session too.
            return os.posix_spawn(program, argv, environ, setpgroup=0, **options)
    except (OSError, ValueError) as error:
        raise NotStartedError(f"Shell {shell}", error, _SHELL_ERRORS) from error


def in_words(status: int, ended_by: Optional[str], timeout: Optional[float]) -> Optional[str]:
    """What went wrong with a shell that ended with this status."""
    if ended_by == TIMEOUT and timeout is not None:
        return f"Timed out after {format_duration(timeout)}"
    if ended_by is not None:
        return f"Ended by {ended_by}"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"Killed by signal {number} ({signal.Signals(number).name})"
        except ValueError:
            return f"Killed by signal {number}"
    code = os.WEXITSTATUS(status)
    return _EXIT_CODES.get(code, f"Exit code {code}") if code else None


def let_nothing_be_inherited() -> None:
    """Keep from jobs what our own parent left open, such as the lock of `flock -n 9`."""
    for fd in machine.open_descriptors():
        if fd > 2:
            os.set_inheritable(fd, False)
