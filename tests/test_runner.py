"""One command to its end: real shells, real signals, real files.

What a test leaves running on purpose carries the test's mark, and is killed when the test ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

import queuectl.runner
import support
from queuectl import machine
from queuectl.runner import TIMEOUT, Limits, Outcome, Runner
from queuectl.waiter import Waiter
from support import open_descriptors, wait_until

PYTHON = f"exec {sys.executable} -S -E -c"
MARKER = re.compile(rb"\n--- (\d+) bytes cut by queuectl -+\n")

needs_proc = pytest.mark.skipif(not support.HAS_PROC, reason="needs /proc")


class Bench:
    """A runner in a folder of the test's own, like that of a store.

    Attributes:
        groups: the process group of every command that was started.
        waits: for how many seconds the runner wanted to wait, each time.
        spool: where the current run writes.
        kept: where the output of a run goes; a number is added.
    """

    def __init__(self, folder: Path, waiter: Waiter) -> None:
        self.folder = folder
        self.groups: List[int] = []
        self.waits: List[float] = []
        self.reason: Optional[str] = None
        self.waiter = waiter
        (folder / "workers").mkdir()
        self.spool = folder / "workers" / "spool"
        self.runner = Runner(str(self.spool), os.environ, self.wait)

    def printed(self) -> int:
        """How many bytes the current run has in its file."""
        return self.spool.stat().st_size if self.spool.exists() else 0

    def restart(
        self,
        spool: Optional[Path] = None,
        environ: Optional[Dict[str, str]] = None,
        wait: Optional[Callable[[float], None]] = None,
    ) -> None:
        """Give up the runner for another one."""
        self.runner.close()
        self.runner = Runner(str(spool or self.spool), environ or os.environ, wait or self.wait)

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.waiter.wait(seconds)

    def kept(self, number: int = 1) -> Path:
        return self.folder / "logs" / "ab" / f"{number}.log"

    def output(self, number: int = 1) -> bytes:
        return self.kept(number).read_bytes()

    def run(
        self,
        command: str,
        number: int = 1,
        *,
        timeout: Optional[float] = None,
        kill_grace: float = 20.0,
        max_output: Optional[int] = 1 << 20,
        **options: Any,
    ) -> Outcome:
        """Run a command; every option of `Runner.run` has a value that changes nothing."""
        settings: Dict[str, Any] = {
            "shell": "/bin/sh",
            "cwd": str(self.folder),
            "variables": {},
            "limits": Limits(timeout, kill_grace, max_output),
            "keep_as": str(self.kept(number)),
            "on_spawn": self.groups.append,
            "on_wait": lambda: None,
            "on_lasting": lambda group: None,
            "stop": lambda: self.reason,
        }
        return self.runner.run(command, **{**settings, **options})


@pytest.fixture
def waiter() -> Iterator[Waiter]:
    waiter = Waiter()
    yield waiter
    waiter.close()


@pytest.fixture
def bench(
    tmp_path: Path, mark: str, waiter: Waiter, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    monkeypatch.chdir(tmp_path)  # Back again, after the runs.
    bench = Bench(tmp_path, waiter)
    yield bench
    for group in bench.groups:
        # At once: one of them that is just becoming another program would not be found by its mark.
        machine.signal_group(group, signal.SIGKILL)
    support.end_all(mark)
    bench.runner.close()


def script(text: str, home: Path) -> str:
    """What a Python program prints that can `run` a command, with its files in `home`."""
    head = """
        import os, signal, sys, time
        from queuectl.runner import Limits, Runner
        from queuectl.waiter import Waiter
        home = os.path.dirname(sys.argv[0])

        def run(command, cwd="/", on_spawn=lambda pid: None, wait=None):
            waiter = Waiter() if wait is None else None
            runner = Runner(home + "/spool", os.environ, wait or waiter.wait)
            outcome = runner.run(
                command, shell="/bin/sh", cwd=cwd, variables={}, limits=Limits(None, 5.0, None),
                keep_as=home + "/kept", on_spawn=on_spawn,
                on_wait=lambda: None, on_lasting=lambda group: None, stop=lambda: None)
            runner.close()
            return outcome
    """
    program = home / "program.py"
    program.write_text(textwrap.dedent(head) + textwrap.dedent(text))
    environ = dict(os.environ, PYTHONPATH=str(Path(queuectl.runner.__file__).parents[1]))
    return subprocess.check_output([sys.executable, str(program)], env=environ).decode()


def test_success_says_nothing(bench: Bench) -> None:
    assert bench.run("true") == Outcome(None, 0, None, None)


@pytest.mark.parametrize(
    ("command", "error", "status"),
    [
        ("exit 3", "Exit code 3", 3),
        ("echo disk full; exit 3", "Exit code 3: disk full", 3),
        ("echo one; echo two >&2; exit 1", "Exit code 1: two", 1),
        ("no_such_command", "Command not found", 127),
        ("echo x; exit 127", "Command not found", 127),
        ("/", "Permission denied", 126),
        ("kill -9 $$", "Killed by signal 9 (SIGKILL)", -9),
        ("echo so far; kill -9 $$", "Killed by signal 9 (SIGKILL): so far", -9),
        ("kill -TERM $$", "Killed by signal 15 (SIGTERM)", -15),
        ("kill -40 $$", "Killed by signal 40", -40),
        ("sh -c 'kill -9 $$'; exit $?", "Exit code 137", 137),
    ],
)
def test_failure_says_what_happened(bench: Bench, command: str, error: str, status: int) -> None:
    outcome = bench.run(command)
    ended = (None, -status) if status < 0 else (status, None)
    # Some shells say themselves that a child was killed.
    assert str(outcome.error).replace("137: Killed", "137") == error
    assert (outcome.exit_code, outcome.signal) == ended
    assert outcome.ended_by is None


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        (r"last\n\n  \t\r\n", "last"),
        (r"  last\r\n", "last"),
        (r"first\nno end of line", "no end of line"),
        (r"10%%\r20%%\r", "10%\r20%"),
        (r"\033[31mred\033[0m\n", "\x1b[31mred\x1b[0m"),
        (r"caf\303\251 \377\n", "café \udcff"),
        (r" \n\r\n\t\n", ""),
    ],
)
def test_the_last_line_is_the_last_that_is_not_blank(bench: Bench, printed: str, line: str) -> None:
    error = bench.run(f"printf '{printed}'; exit 1").error
    assert error == (f"Exit code 1: {line}" if line else "Exit code 1")


@pytest.mark.parametrize("length", [200, 201, 5000, 100000])
def test_a_long_last_line_is_cut(bench: Bench, length: int) -> None:
    error = bench.run(f"head -c {length} /dev/zero | tr '\\0' a; exit 1").error
    assert error is not None
    assert error.startswith("Exit code 1: aaa")
    assert len(error) == len("Exit code 1: ") + 200
    assert error.endswith("…") == (length > 200)


def test_a_last_line_is_not_cut_within_a_character(bench: Bench) -> None:
    command = "import sys; sys.stdout.buffer.write(b'x' + '€'.encode() * 1365 + b'xx'); sys.exit(1)"
    error = bench.run(f'{PYTHON} "{command}"').error
    assert error == "Exit code 1: " + "€" * 199 + "…"


def test_the_group_is_told_once_and_is_a_session_of_its_own(bench: Bench) -> None:
    sessions: List[int] = []

    def on_spawn(group: int) -> None:
        bench.groups.append(group)
        sessions.append(os.getsid(group))

    bench.run("echo $$", on_spawn=on_spawn)
    assert bench.groups == sessions == [int(bench.output())]


def test_only_of_a_run_that_goes_on_for_a_moment_it_is_told(bench: Bench, tmp_path: Path) -> None:
    told: List[int] = []
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def on_wait() -> None:
        told.append(1)
        fifo.write_text("go on\n")

    bench.run("read line <fifo", on_wait=on_wait)
    assert len(told) == 1
    # A machine that is busy may take long over anything: one of many is over at once.
    for number in range(2, 200):
        bench.run(":", number, on_wait=lambda: told.append(1))
    assert len(told) < len(bench.groups)


def test_only_of_a_run_that_lasts_the_group_is_told_again(bench: Bench, tmp_path: Path) -> None:
    lasting: List[int] = []
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def on_lasting(group: int) -> None:
        lasting.append(group)
        fifo.write_text("go on\n")

    bench.run("read line <fifo", on_lasting=on_lasting)
    assert lasting == bench.groups
    # A machine that is busy may take long over anything: one of many is over at once.
    for number in range(2, 50):
        bench.run(":", number, on_lasting=lasting.append)
    assert len(lasting) < len(bench.groups)


def test_without_sessions_a_group_of_its_own_remains(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a Python that was built for a C library before POSIX_SPAWN_SETSID."""
    posix_spawn = os.posix_spawn

    def old(*args: Any, setsid: bool = False, **options: Any) -> int:
        if setsid:
            raise NotImplementedError
        return posix_spawn(*args, **options)

    monkeypatch.setattr(os, "posix_spawn", old)
    for number in (1, 2):
        bench.run(f"{PYTHON} 'import os; print(os.getpgrp() == os.getpid())'", number)
        assert bench.output(number) == b"True\n"


def test_it_runs_in_its_folder(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "da ta \udcff"
    folder.mkdir()
    for number in (1, 2):  # The second time in another folder of the same name.
        bench.run("pwd; echo $PWD; ls", number, cwd=str(folder))
        seen = bench.output(number).splitlines()
        assert seen == [os.fsencode(folder)] * 2 + [b"made anew"] * (number - 1)
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "made anew").touch()


def test_it_keeps_the_name_of_a_folder_that_is_a_link(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("workers")
    bench.run("pwd", cwd=str(tmp_path / "link"))
    assert bench.output() == os.fsencode(tmp_path / "link") + b"\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", "does not exist"),
        ("file", "is not a folder"),
        ("file/below", "is not a folder"),
        ("link", os.strerror(errno.ELOOP)),
        ("x" * 300, os.strerror(errno.ENAMETOOLONG)),
        ("nul\0", "embedded null"),
        ("lone \ud800", "can't encode"),
    ],
)
def test_a_folder_that_is_none_starts_nothing(
    bench: Bench, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("link")
    outcome = bench.run("echo x > ../started", cwd=f"{tmp_path}/{name}")
    assert str(outcome.error).startswith(f"Working folder {tmp_path}/{name}")
    assert words in str(outcome.error)
    assert outcome[1:] == (None, None, None, None)
    assert not bench.groups
    assert bench.run("true").error is None


def test_a_folder_that_may_not_be_entered_says_so() -> None:
    # Root may enter every folder: so it becomes nobody, who cannot reach tmp_path.
    text = """
        os.mkdir(home + "/closed", 0)
        if os.geteuid() == 0:
            os.setuid(65534)
        print(run("true", cwd=home + "/closed").error)
    """
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        os.chmod(home, 0o777)
        printed = script(text, Path(home))
    assert printed == f"Working folder {home}/closed may not be entered\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", "Shell {} does not exist"),
        ("plain/below", "Shell {} does not exist"),
        ("plain", "Shell {} may not be executed"),
        ("folder", "Shell {} may not be executed"),
        ("broken", "Shell {}: Exec format error"),
    ],
)
def test_a_shell_that_is_none_starts_nothing(
    bench: Bench, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken").write_bytes(b"\x7fELF, but not really")
    (tmp_path / "broken").chmod(0o755)
    shell = str(tmp_path / name)
    assert bench.run("true", shell=shell) == Outcome(words.format(shell), None, None)
    assert not bench.groups
    assert bench.run("true").error is None


def test_another_shell_may_be_used(bench: Bench, tmp_path: Path) -> None:
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\necho "$0" "$@"\n')
    shell.chmod(0o755)
    bench.run("a  b", shell=str(shell))
    assert bench.output().decode() == f"{shell} -c a  b\n"


def test_too_long_an_environment_says_so(bench: Bench) -> None:
    outcome = bench.run("true", variables={"LONG": "x" * 200_000})
    words = "Command and environment are longer than the system allows"
    assert outcome == Outcome(words, None, None)


def test_a_command_is_given_byte_by_byte(bench: Bench) -> None:
    bench.run("printf %s 'café \udcff\udc80 €'")
    assert bench.output() == "café ".encode() + b"\xff\x80 " + "€".encode()


@pytest.mark.parametrize("sign", ["-", "+"])
def test_a_command_that_looks_like_an_option_is_a_command(bench: Bench, sign: str) -> None:
    assert bench.run(f"{sign}x || echo no such command").error is None
    assert bench.output().endswith(b"no such command\n")


def test_the_environment_is_that_of_the_runner_and_the_variables(
    tmp_path: Path, bench: Bench
) -> None:
    environ = {"PATH": os.environ["PATH"], "A": "1", "B": "\udcff", "PWD": "/wrong"}
    bench.restart(environ=environ)

    def seen(number: int, **variables: str) -> Dict[bytes, bytes]:
        bench.run("env", number, variables=variables)
        lines = [line.split(b"=", 1) for line in bench.output(number).splitlines()]
        shells_own = (b"OLDPWD", b"SHLVL", b"_")
        return {name: value for name, value in lines if name not in shells_own}

    common = {b"PATH": os.fsencode(environ["PATH"]), b"B": b"\xff", b"PWD": os.fsencode(tmp_path)}
    assert seen(1, A="2", C="3 \udcfe") == {**common, b"A": b"2", b"C": b"3 \xfe"}
    assert seen(2) == {**common, b"A": b"1"}


def test_standard_input_is_empty(bench: Bench) -> None:
    assert bench.run("cat; echo end").error is None
    assert bench.output() == b"end\n"


def test_nothing_else_is_inherited(bench: Bench) -> None:
    left_by_parent = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(left_by_parent, True)
    bench.restart()
    check = "import os; print([fd for fd in range(256) if os.path.exists(f'/dev/fd/{fd}')])"
    bench.run(f'{PYTHON} "{check}"')
    os.close(left_by_parent)
    assert bench.output() == b"[0, 1, 2]\n"


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]])
def test_it_works_with_standard_streams_closed(tmp_path: Path, closed: List[int]) -> None:
    text = """
        for fd in CLOSED:
            os.close(fd)

        def write_to_what_is_closed(pid):
            # As a library may do that complains.
            for fd in CLOSED:
                try:
                    os.write(fd, b"complaint")
                except OSError:
                    pass

        # Without a Waiter, whose pipe would take two of the free numbers.
        outcome = run("cat; echo out; echo err >&2", on_spawn=write_to_what_is_closed,
                      wait=lambda seconds: time.sleep(0.01))
        with open(home + "/outcome", "w") as file:
            file.write(repr(tuple(outcome)))
    """
    script(text.replace("CLOSED", repr(closed)), tmp_path)
    assert (tmp_path / "outcome").read_text() == "(None, 0, None, None, None)"
    assert (tmp_path / "kept").read_text() == "out\nerr\n"


@needs_proc
def test_no_signal_is_ignored_or_blocked_in_a_job(tmp_path: Path) -> None:
    text = """
        every = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
        for number in every:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, every - {signal.SIGCHLD})
        run("exec cat /proc/self/status")
        print(open(home + "/kept").read())
    """
    masks = dict(re.findall(r"^(Sig\w+):\s+(\w+)", script(text, tmp_path), re.MULTILINE))
    every = sum(1 << number - 1 for number in signal.valid_signals())
    assert [int(masks[name], 16) & every for name in ("SigIgn", "SigBlk", "SigCgt")] == [0, 0, 0]


def test_it_sees_the_end_of_jobs_where_a_parent_ignored_sigchld(tmp_path: Path) -> None:
    text = """
        if len(sys.argv) == 1:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            os.execv(sys.executable, [sys.executable, *sys.argv, "again"])
        print(signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN, tuple(run("exit 3")))
    """
    assert script(text, tmp_path) == "True ('Exit code 3', 3, None, None, None)\n"


def test_umask_and_limits_are_those_of_the_process(bench: Bench) -> None:
    before = os.umask(0o027)
    try:
        bench.run("umask; ulimit -n")
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert bench.output().decode().split() == ["0027", str(limit)]
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_silence_leaves_no_file_and_the_next_run_the_same_spool(bench: Bench) -> None:
    bench.run("true")
    first = bench.spool.stat()
    bench.run("true", 2)
    assert bench.spool.stat().st_ino == first.st_ino
    assert not (bench.folder / "logs").exists()
    bench.restart()
    assert list((bench.folder / "workers").iterdir()) == []


def test_output_and_errors_are_kept_in_order_each_run_apart(bench: Bench) -> None:
    bench.run("echo one; echo two >&2; echo three")
    bench.run("echo four", 2)
    assert bench.output() == b"one\ntwo\nthree\n"
    assert bench.output(2) == b"four\n"
    assert not bench.spool.exists()


def test_output_is_closed_to_others(bench: Bench) -> None:
    bench.run("echo x")
    paths = [bench.kept(), *bench.kept().parents][:3]
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o600, 0o700, 0o700]


def test_output_is_found_while_it_runs(bench: Bench) -> None:
    seen: List[bytes] = []

    def stop() -> None:
        seen.append(bench.spool.read_bytes() if bench.spool.exists() else b"")
        if b"now" in seen[-1]:
            (bench.folder / "go").touch()

    bench.run("echo now; until test -e go; do sleep 0.01; done; echo then", stop=stop)
    assert b"now\n" in seen
    assert bench.output() == b"now\nthen\n"


def test_output_is_appended(bench: Bench) -> None:
    bench.run("echo one; : > workers/spool; echo two")
    assert bench.output() == b"two\n"


def test_what_was_in_the_spool_before_is_nobodys(bench: Bench) -> None:
    bench.spool.write_text("left by a crash")
    bench.run("echo x")
    assert bench.output() == b"x\n"


def test_no_descriptor_is_lost(bench: Bench) -> None:
    bench.run("true")
    before = open_descriptors()
    for number in range(5):
        bench.run("echo x", 2 * number)
        bench.run("true")
        bench.run("true", cwd="/gone")
        bench.run("true", shell="/gone")
    assert open_descriptors() <= before
    bench.restart()
    assert open_descriptors() < before  # It has no spool yet.


def test_output_that_cannot_be_moved_is_kept_for_later(bench: Bench) -> None:
    in_the_way = bench.folder / "logs"
    in_the_way.touch()
    outcome = bench.run("echo x; exit 3")
    assert outcome == Outcome("Exit code 3: x", 3, None, os.strerror(errno.ENOTDIR))
    with pytest.raises(NotADirectoryError):
        bench.runner.keep()
    with pytest.raises(NotADirectoryError):
        bench.run("echo y", 2)
    assert len(bench.groups) == 1
    assert bench.spool.read_bytes() == b"x\n"
    in_the_way.unlink()
    bench.runner.keep()
    assert bench.output() == b"x\n"
    bench.runner.keep()
    bench.run("echo y", 2)
    assert (bench.output(), bench.output(2)) == (b"x\n", b"y\n")


def test_the_next_run_moves_what_could_not_be_moved(bench: Bench) -> None:
    (bench.folder / "logs").touch()
    assert bench.run("echo x").unkept
    (bench.folder / "logs").unlink()
    assert bench.run("echo y", 2).unkept is None
    assert (bench.output(), bench.output(2)) == (b"x\n", b"y\n")


def test_output_that_cannot_be_moved_survives_the_runner(bench: Bench) -> None:
    (bench.folder / "logs").touch()
    assert bench.run("echo x").unkept
    bench.restart()
    assert bench.spool.read_bytes() == b"x\n"


def test_a_store_that_was_removed_is_not_made_anew(bench: Bench) -> None:
    store = bench.folder / "store"
    store.mkdir()
    bench.restart(store / "spool")
    outcome = bench.run("echo x; rm -r store", keep_as=str(store / "logs" / "ab" / "1"))
    assert outcome == Outcome(None, 0, None, None)
    assert not store.exists()
    with pytest.raises(FileNotFoundError):
        bench.run("true")
    assert len(bench.groups) == 1
    store.mkdir()
    assert bench.run("true").error is None


def test_a_spool_that_was_removed_while_idle_is_made_anew(bench: Bench) -> None:
    bench.run("true")
    bench.spool.unlink()
    bench.run("echo x")
    assert bench.output() == b"x\n"


def parts(output: bytes) -> List[bytes]:
    """The beginning, the number of bytes that were cut, and the end of output that was cut."""
    return MARKER.split(output)


def test_output_up_to_the_limit_is_whole(bench: Bench) -> None:
    bench.run("head -c 4000 /dev/zero", max_output=4000)
    assert bench.output() == bytes(4000)


def test_output_over_the_limit_keeps_both_ends(bench: Bench) -> None:
    bench.run("seq 1 1000", max_output=2000)
    printed = b"".join(b"%d\n" % number for number in range(1, 1001))
    head, cut, tail = parts(bench.output())
    assert (head, tail) == (printed[:500], printed[-500:])
    assert int(cut) == len(printed) - 1000


def test_without_a_limit_all_is_kept(bench: Bench) -> None:
    bench.run("head -c 3000000 /dev/zero", max_output=None)
    assert len(bench.output()) == 3000000


@pytest.mark.parametrize("limit", [0, 1, 3, 7, 100, 110, 150, 230])
def test_the_smallest_limits_are_kept_too(bench: Bench, limit: int) -> None:
    bench.run("seq 1 1000", max_output=limit)
    quarter = limit // 4
    output = bench.output() if limit else b""
    assert len(output) <= limit
    assert output.startswith(b"1\n2\n3\n4"[:quarter])
    assert output.endswith(b"\n999\n1000\n"[-quarter:] if quarter else b"")


def test_bytes_that_were_cut_are_counted_over_all_cuts(bench: Bench) -> None:
    """The job waits for each cut, so that nothing comes in between."""
    program = textwrap.dedent("""
        import os, time
        for letter in b"abcd":
            os.write(1, bytes([letter]) * 100000)
            while os.fstat(1).st_size > 50000:
                time.sleep(0.001)
            os.write(1, b"-%c-" % letter)
        """)
    bench.run(f"{PYTHON} '{program}'", max_output=50000)
    head, cut, tail = parts(bench.output())
    assert head == b"a" * 12500
    assert tail == b"d" * 12500 + b"-d-"
    assert len(head) + int(cut) + len(tail) == 4 * 100003


def test_output_is_cut_while_the_job_runs(bench: Bench) -> None:
    sizes: List[int] = []

    def stop() -> Optional[str]:
        sizes.append(bench.printed())
        return "seen" if sizes[-1] < max(sizes) else None

    outcome = bench.run("head -c 300000 /dev/zero; sleep 300", max_output=100_000, stop=stop)
    assert outcome.ended_by == "seen"
    assert len(bench.output()) <= 100_000


def test_output_is_cut_while_the_job_is_ended(bench: Bench) -> None:
    sizes: List[int] = []

    def stop() -> Optional[str]:
        sizes.append(bench.printed())
        if sizes[-1] < max(sizes):
            (bench.folder / "go").touch()
        return "end" if sizes[-1] else None

    command = "trap 'head -c 300000 /dev/zero; until test -e go; do sleep 0.01; done; exit 7' TERM"
    outcome = bench.run(
        f"{command}; echo ready; while :; do sleep 0.01; done", max_output=100_000, stop=stop
    )
    assert outcome.exit_code == 7
    assert len(bench.output()) <= 100_000


def test_what_is_printed_while_output_is_cut_is_taken_along(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread = os.pread

    def pread_while_it_grows(*args: Any) -> bytes:
        if not bench.kept(2).exists():
            bench.kept(2).touch()
            with open(bench.spool, "ab") as file:
                file.write(b"meanwhile\n")
        return pread(*args)

    bench.kept(2).parent.mkdir(parents=True)
    monkeypatch.setattr(os, "pread", pread_while_it_grows)
    bench.run("seq 1 1000", max_output=2000)
    printed = len(b"".join(b"%d\n" % number for number in range(1, 1001))) + len(b"meanwhile\n")
    head, cut, tail = parts(bench.output())
    assert tail.endswith(b"\n1000\nmeanwhile\n")
    assert len(head) + int(cut) + len(tail) == printed


def test_a_limit_that_cannot_be_kept_by_copying_is_kept_by_cutting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full file system that copies on write."""

    def pwrite(*args: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert bench.run("seq 1 1000; exit 3", max_output=2000).error == "Exit code 3: 152"
    assert bench.output() == b"".join(b"%d\n" % number for number in range(1, 1001))[:500]


@pytest.mark.slow
def test_a_gibibyte_without_a_line_end_costs_neither_memory_nor_disk(bench: Bench) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    command = "echo begin; head -c 1073741824 /dev/zero | tr '\\0' a; printf '\\nend'; exit 3"
    outcome = bench.run(command, max_output=4 << 20)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1024 if sys.platform == "linux" else 1) < 4 << 20
    assert outcome.error == "Exit code 3: end"
    output = bench.output()
    assert len(output) <= 4 << 20
    assert output.startswith(b"begin\naaa")
    assert output.endswith(b"aaa\nend")
    head, cut, tail = parts(output)
    # What is printed at the very moment of a cut goes uncounted.
    assert 0.9 < (len(head) + int(cut) + len(tail)) / (1 << 30) < 1.001


def test_a_background_process_does_not_hold_up_its_job(bench: Bench) -> None:
    assert bench.run("sleep 300 & echo done") == Outcome(None, 0, None)
    assert machine.group_alive(bench.groups[0])
    assert bench.output() == b"done\n"


def test_what_a_background_process_prints_stays_with_its_job(bench: Bench) -> None:
    bench.run("(until test -e go; do sleep 0.01; done; echo late; exec sleep 300) &")
    assert bench.output() == b""
    bench.run("true", 2)
    (bench.folder / "go").touch()
    wait_until(lambda: bench.output() == b"late\n")
    bench.run("echo other", 3)
    assert not bench.kept(2).exists()
    assert bench.output(3) == b"other\n"


def test_what_left_the_group_prints_to_its_own_job_too(bench: Bench) -> None:
    program = textwrap.dedent("""
        import os, time
        os.setsid()
        open("left", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
        print("late")
        """)
    child = f"{sys.executable} -u -S -E -c '{program}'"
    bench.run(f"{child} & until test -e left; do sleep 0.01; done")
    wait_until(lambda: not machine.group_alive(bench.groups[0]))
    bench.run("true", 2)
    (bench.folder / "go").touch()
    wait_until(lambda: bench.output() == b"late\n")
    assert not bench.kept(2).exists()


def test_a_background_process_that_holds_no_output_costs_no_file(bench: Bench) -> None:
    bench.run(
        "(exec >/dev/null 2>&1; >shut; exec sleep 300) & until test -e shut; do sleep 0.01; done"
    )
    assert machine.group_alive(bench.groups[0])
    assert not bench.kept().exists()


LATE = "(until test -e go; do sleep 0.01; done; head -c 300000 /dev/zero; exec sleep 300) &"


def test_tend_bounds_what_background_processes_print(bench: Bench) -> None:
    bench.run(f"echo started; {LATE}", max_output=100_000)
    (bench.folder / "go").touch()
    wait_until(lambda: bench.kept().stat().st_size == 300_008)
    bench.runner.tend()
    head, cut, tail = parts(bench.output())
    assert head.startswith(b"started\n")
    assert (len(head), int(cut), len(tail)) == (25_000, 250_008, 25_000)


def test_the_output_of_background_processes_is_bounded_while_others_run(bench: Bench) -> None:
    bench.run(LATE, max_output=100_000)
    (bench.folder / "go").touch()
    wait_until(lambda: bench.kept().stat().st_size == 300_000)

    def stop() -> Optional[str]:
        return "cut" if MARKER.search(bench.output()) else None

    assert bench.run("exec sleep 300", 2, max_output=None, stop=stop).ended_by == "cut"


def test_output_is_bounded_while_it_cannot_be_moved(bench: Bench) -> None:
    (bench.folder / "logs").touch()
    assert bench.run(LATE, max_output=100_000).unkept
    (bench.folder / "go").touch()
    wait_until(lambda: bench.printed() == 300_000)
    bench.runner.tend()
    assert bench.printed() < 60_000


def test_a_background_process_is_forgotten_when_it_ended(bench: Bench) -> None:
    before = open_descriptors()
    bench.run("echo x; sleep 300 &")
    bench.run("sleep 300 &", 2)
    bench.runner.tend()
    assert bench.output(2) == b""
    for group in bench.groups:
        os.killpg(group, signal.SIGKILL)
    wait_until(lambda: not any(map(machine.group_alive, bench.groups)))
    bench.runner.tend()
    assert bench.output() == b"x\n"
    assert not bench.kept(2).exists()  # It printed nothing after all.
    assert open_descriptors() <= before


def test_the_number_of_background_processes_that_are_tended_is_bounded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queuectl.runner, "_MAX_LEFTOVERS", 2)
    for number in range(2):
        bench.run("sleep 300 &", number)
    before = open_descriptors()
    for number in range(2, 5):
        bench.run("sleep 300 &", number)
    assert open_descriptors() <= before


def test_where_files_cannot_be_locked_the_group_tells(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*args: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    bench.run("sleep 300 &")
    assert bench.output() == b""
    bench.run("true", 2)
    assert not bench.kept(2).exists()


def test_a_job_that_takes_too_long_is_ended(bench: Bench) -> None:
    outcome = bench.run("echo begun; sleep 300; echo never", timeout=0.5)
    assert outcome == Outcome("Timed out after 0.5s: begun", None, TIMEOUT, signal=signal.SIGTERM)
    assert not machine.group_alive(bench.groups[0])


def test_without_output_a_timeout_has_no_colon(bench: Bench) -> None:
    assert bench.run("sleep 300", timeout=0.1).error == "Timed out after 0.1s"


def test_a_timeout_does_not_touch_what_ends_in_time(bench: Bench) -> None:
    assert bench.run("sleep 0.1", timeout=20.0) == Outcome(None, 0, None)


@pytest.mark.parametrize("code", [0, 7, 127])
def test_a_job_that_ends_well_when_told_has_timed_out_all_the_same(bench: Bench, code: int) -> None:
    command = f"trap 'echo bye; exit {code}' TERM; while :; do sleep 0.01; done"
    outcome = bench.run(command, timeout=0.3)
    assert outcome == Outcome("Timed out after 0.3s: bye", code, TIMEOUT)


def test_a_job_that_ignores_term_is_killed_after_the_grace(bench: Bench) -> None:
    started = time.monotonic()
    outcome = bench.run("trap '' TERM; while :; do sleep 0.01; done", timeout=0.2, kill_grace=0.3)
    assert 0.5 <= time.monotonic() - started < 5
    assert outcome == Outcome("Timed out after 0.2s", None, TIMEOUT, signal=signal.SIGKILL)
    assert not machine.group_alive(bench.groups[0])


def test_grandchildren_are_ended_too(bench: Bench) -> None:
    bench.run("sh -c 'sleep 300 & sleep 300 & wait' & sh -c 'sleep 300; :' & wait", timeout=0.3)
    assert machine.group_members(bench.groups[0]) == []


def test_grandchildren_that_ignore_term_are_killed_after_the_grace(bench: Bench) -> None:
    """The shell ends at once: the group is what counts."""
    command = "(trap '' TERM; while :; do sleep 0.01; done) & echo $! >pid; wait"
    started = time.monotonic()
    bench.run(command, timeout=0.3, kill_grace=0.3)
    assert 0.6 <= time.monotonic() - started < 5
    assert machine.group_members(bench.groups[0]) == []


def test_a_grandchild_may_finish_within_the_grace(bench: Bench) -> None:
    command = "(trap 'sleep 0.3; echo finished; exit' TERM; while :; do sleep 0.01; done) & wait"
    assert bench.run(command, timeout=0.3).error == "Timed out after 0.3s: finished"


def test_a_job_that_stopped_sees_term(bench: Bench) -> None:
    command = "trap 'exit 7' TERM; kill -STOP $$; while :; do sleep 0.01; done"
    started = time.monotonic()
    assert bench.run(command, timeout=0.3).exit_code == 7
    assert time.monotonic() - started < 10


def test_stopping_and_continuing_is_not_ending(bench: Bench) -> None:
    assert bench.run("(sleep 0.2; kill -CONT $$) & kill -STOP $$; exit 3").error == "Exit code 3"


@needs_proc
def test_zombies_do_not_hold_up_the_end(bench: Bench) -> None:
    """A zombie stays in the group, whose parent left the group and lives on."""
    program = textwrap.dedent("""
        import os, time
        group = os.getpgrp()
        os.setpgid(0, 0)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.setpgid(pid, group)
        open("zombie", "w").close()
        time.sleep(300)
        """)
    started = time.monotonic()
    bench.run(
        f"{sys.executable} -S -E -c '{program}' & wait",
        stop=lambda: "end" if (bench.folder / "zombie").exists() else None,
    )
    assert time.monotonic() - started < 10
    os.killpg(bench.groups[0], 0)  # To the kernel it exists.


def test_a_reason_to_stop_ends_a_job(bench: Bench) -> None:
    def stop() -> Optional[str]:
        return "shutdown" if bench.groups and bench.spool.stat().st_size else None

    outcome = bench.run("echo half; sleep 300", stop=stop)
    assert outcome == Outcome("Ended by shutdown: half", None, "shutdown", signal=signal.SIGTERM)
    assert not machine.group_alive(bench.groups[0])


def test_a_reason_at_the_start_starts_nothing(bench: Bench) -> None:
    bench.reason = "shutdown"
    assert bench.run("true") == Outcome("Ended by shutdown", None, "shutdown")
    assert not bench.groups


@pytest.mark.parametrize(("first", "timeout"), [("cancel", None), (TIMEOUT, 0.2)])
def test_the_first_reason_counts(bench: Bench, first: str, timeout: Optional[float]) -> None:
    told, go = bench.folder / "told", bench.folder / "go"
    asked: List[str] = []

    def stop() -> Optional[str]:
        if told.exists():
            asked.append("shutdown")
            go.touch()
            return "shutdown"
        return "cancel" if timeout is None and (bench.folder / "ready").exists() else None

    loop = "until test -e go; do sleep 0.01; done"
    command = f"trap '>told; {loop}; exit 0' TERM; >ready; {loop}"
    assert bench.run(command, timeout=timeout, stop=stop).ended_by == first
    assert asked


def test_what_ended_before_its_time_was_over_has_not_timed_out(bench: Bench) -> None:
    """However late that is seen: the runner sleeps through the end and the timeout."""

    def oversleep(seconds: float) -> None:
        wait_until(lambda: not machine.group_members(bench.groups[0]))
        wait_until(lambda: time.monotonic() > over)

    bench.restart(wait=oversleep)
    over = time.monotonic() + 0.3
    assert bench.run("exit 3", timeout=0.1) == Outcome("Exit code 3", 3, None)


def test_a_reason_that_comes_after_the_time_was_over_does_not_count(bench: Bench) -> None:
    def oversleep(seconds: float) -> None:
        time.sleep(max(over - time.monotonic(), 0.01))
        bench.reason = "shutdown"

    bench.restart(wait=oversleep)
    over = time.monotonic() + 0.3
    assert bench.run("sleep 300", timeout=0.1).ended_by == TIMEOUT


def test_what_on_spawn_raises_passes_through_and_the_job_is_gone(bench: Bench) -> None:
    def on_spawn(group: int) -> None:
        bench.groups.append(group)
        wait_until(lambda: bench.spool.stat().st_size)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run("echo x; sleep 300 & sleep 300", on_spawn=on_spawn)
    wait_until(lambda: not machine.group_alive(bench.groups[0]))
    bench.run("echo y", 2)
    assert not bench.kept().exists()
    assert bench.output(2) == b"y\n"


def test_a_job_is_looked_at_every_tenth_of_a_second(bench: Bench) -> None:
    used = time.process_time()
    bench.run("sleep 0.5")
    assert 5 <= len(bench.waits) <= 10
    assert bench.waits[:2] == [0.001, 0.01]
    assert set(bench.waits[2:]) == {0.1}
    assert time.process_time() - used < 0.1


def test_the_end_is_noticed_at_once(bench: Bench) -> None:
    started = time.monotonic()
    for _ in range(100):
        bench.run("sleep 0.001")
    assert time.monotonic() - started < 7


def test_a_reason_that_comes_by_itself_is_noticed(bench: Bench) -> None:
    """As when the time is over that a shutdown gives to jobs: nothing wakes the runner then."""
    over = time.monotonic() + 0.5

    def stop() -> Optional[str]:
        return "shutdown" if time.monotonic() >= over else None

    assert bench.run("sleep 300", max_output=None, stop=stop).ended_by == "shutdown"
    assert time.monotonic() - over < 10


def test_a_signal_of_the_caller_is_heard_at_once(bench: Bench) -> None:
    def handler(signum: int, frame: Optional[FrameType]) -> None:
        bench.reason = "told"

    before = signal.signal(signal.SIGUSR1, handler)
    bench.restart(wait=lambda seconds: bench.wait(30))
    started = time.monotonic()
    try:
        # One process: the end of a grandchild wakes nobody, and this `wait` would oversleep it.
        outcome = bench.run("kill -USR1 $PPID; exec sleep 300")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert outcome.ended_by == "told"
    assert time.monotonic() - started < 20


@pytest.fixture(params=["poll", "select"])
def any_waiter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiter]:
    if request.param == "select":
        monkeypatch.delattr(select, "poll")
    waiter = Waiter()
    yield waiter
    waiter.close()


def timed(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def test_waiting_ends_with_the_time(any_waiter: Waiter) -> None:
    assert 0.1 <= timed(lambda: any_waiter.wait(0.1)) < 5
    assert timed(lambda: any_waiter.wait(0)) < 5
    assert timed(lambda: any_waiter.wait(-1)) < 5


def test_waiting_ends_with_a_child(any_waiter: Waiter) -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})
    assert timed(lambda: any_waiter.wait(float("inf"))) < 20
    assert os.waitpid(pid, os.WNOHANG)[0] == pid


def test_a_signal_before_the_wait_ends_it_once(any_waiter: Waiter) -> None:
    os.kill(os.getpid(), signal.SIGCHLD)
    assert timed(lambda: any_waiter.wait(30)) < 20
    assert timed(lambda: any_waiter.wait(0.1)) >= 0.1


def test_waiting_ends_with_a_readable_descriptor_and_names_it(any_waiter: Waiter) -> None:
    reading, writing = os.pipe()
    any_waiter.register(reading)
    assert any_waiter.wait(0) == []
    os.write(writing, b"x")
    os.kill(os.getpid(), signal.SIGCHLD)
    assert any_waiter.wait(30) == [reading]
    os.read(reading, 1)
    assert any_waiter.wait(0) == []
    os.close(writing)
    assert any_waiter.wait(30) == [reading]
    any_waiter.unregister(reading)
    assert any_waiter.wait(0) == []
    os.close(reading)


def test_a_waiter_gives_back_what_it_took() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    fds = open_descriptors()
    try:
        waiter = Waiter()
        assert signal.getsignal(signal.SIGCHLD) not in (signal.SIG_IGN, signal.SIG_DFL)
        waiter.close()
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
        assert signal.set_wakeup_fd(-1) == -1
        assert open_descriptors() <= fds
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_many_signals_do_not_block_a_waiter(any_waiter: Waiter) -> None:
    for _ in range(70_000):  # More than a pipe holds.
        signal.raise_signal(signal.SIGCHLD)
    any_waiter.wait(30)
