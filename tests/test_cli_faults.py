"""The real commands on a disk that fails at any call it could fail at, and without what they need.

strace makes the Nth call fail that a command makes on the store's files, for every N until the
command ends without having met it. Whatever fails: the promised exit code, one line that says what
went wrong and what became of the change, nothing lost, and the next command works.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import pytest

import tracing
from support import Cli
from test_cli_support import complaint, queue_of, run
from test_store_tools import Disk, fast_folder

EVERY = "1+"


class Fault(NamedTuple):
    """What the system refuses.

    Attributes:
        calls: which system calls fail.
        error: with what.
        said: how a command that cannot go on says so.
        changes: whether the change may be there all the same.
        reads: whether reading goes on meanwhile.
    """

    calls: str
    error: str
    said: str
    changes: bool = False
    reads: bool = True


_WRITE = "write,pwrite64"
_PART = r"(jobs\.\w+|settings\.json|history-1\.jsonl|workers)"
_UNKNOWN = r"the disk did not confirm the change, so its outcome is unknown: .*"

FAULTS = {
    "no room": Fault(
        _WRITE, "ENOSPC", rf"cannot write .*/{_PART}: No space left on device; nothing was changed"
    ),
    "nothing written": Fault(_WRITE, "EIO", rf"cannot write .*/{_PART}: Input/output error"),
    "nothing confirmed": Fault(
        "fsync,fdatasync",
        "EIO",
        rf"({_UNKNOWN}|cannot write .*/settings\.json): Input/output error",
        changes=True,
    ),
    "no rename": Fault("rename", "EIO", r"cannot write .*/settings\.json: Input/output error"),
    "no lock": Fault("flock", "ENOLCK", r"cannot lock the store: .*: No locks available"),
    "no descriptor": Fault(
        "openat",
        "EMFILE",
        rf"({_UNKNOWN}|cannot (open|read|write) .*/{_PART}|cannot lock the store: .*)"
        r": Too many open files",
        changes=True,
        reads=False,
    ),
    "nothing read": Fault(
        "read,pread64", "EIO", rf"cannot read .*/{_PART}: Input/output error", reads=False
    ),
    "no memory": Fault(
        "mmap", "ENOMEM", rf"cannot read .*/{_PART}: Cannot allocate memory", reads=False
    ),
}

CHANGES = {
    "enqueue": ["enqueue", "true"],
    "enqueue with an id": ["enqueue", "--id", "mine", "true"],
    "enqueue --file": ["enqueue", "--file", "many"],
    "config set": ["config", "set", "max_retries", "7"],
    "dlq retry": ["dlq", "retry", "--all"],
    "dlq purge": ["dlq", "purge", "dead"],
}
LOOKS = {"status": ["status"], "list": ["list"], "show": ["show", "done"]}

State = Tuple[List[Tuple[str, str, int]], Dict[str, str]]


def limited(name: str, limit: int) -> List[Any]:
    """Starts a command under a limit of the system, such as `RLIMIT_NOFILE`."""
    code = (
        "import os, resource, sys\n"
        # Who measures coverage needs files of his own.
        "for name in [name for name in os.environ if name.startswith('COVERAGE_')]:\n"
        "    del os.environ[name]\n"
        f"resource.setrlimit(resource.{name}, ({limit}, {limit}))\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-S", "-E", "-c", code]


class Faulty:
    """A store in which there is something of everything, and commands on it that meet faults.

    Args:
        cli: the test's command line.
    """

    def __init__(self, cli: Cli, begin: Path) -> None:
        self.cli = cli
        self._plain = list(cli.command)
        self.begin = begin
        self._trace = begin.parent / "trace"
        cli.store = begin.parent / "store"
        (cli.folder / "many").write_text("true one\ntrue two\n")
        with queue_of(cli) as queue:
            queue.enqueue("true", id="done")
            run(queue)
            # What is finished is in the history.
            queue.store.rewrite()
            queue.enqueue("false", id="dead", max_retries=1)
            run(queue, "Exit code 1", b"printed\n")
            queue.enqueue("true", id="waiting")
        cli.store.rename(begin)
        self.renew()

    def renew(self) -> None:
        """Begin anew."""
        shutil.rmtree(self.cli.store, ignore_errors=True)
        shutil.copytree(self.begin, self.cli.store)

    def state(self) -> State:
        """What is in the store, and in the settings."""
        with queue_of(self.cli) as queue:
            jobs = [(job.command, job.state, job.rev) for job in queue.jobs()]
            return jobs, dict(queue.store.settings())

    def under(self, wrapper: Sequence[Any], words: Sequence[str]) -> Tuple[int, str]:
        """Run a command under another one; return its exit code and what it complained of."""
        self.cli.command = [*wrapper, *self._plain]
        try:
            done = self.cli.run(*words)
        finally:
            self.cli.command = list(self._plain)
        return self._said(words, done.returncode, done.stdout, done.stderr)

    def meet(self, fault: Fault, words: Sequence[str], when: str) -> Tuple[int, str, bool]:
        """Let a command meet a fault; as `under`, and whether it met it at all."""
        options = ["-e", f"trace={fault.calls}"]
        for name in (
            *("", "jobs.jsonl", "jobs.lock", "jobs.boot", "jobs.boot.new", "jobs.unsynced"),
            *("settings.json", "settings.json.new", "history-1.jsonl"),
        ):
            options += ["-P", os.path.join(os.path.realpath(self.cli.store), name).rstrip("/")]
        options += ["-e", f"inject={fault.calls}:error={fault.error}:when={when}"]
        if words[0] == "start":
            options = ["-f", "--seccomp-bpf", "-qq", "-o", str(self._trace), *options]
            code, said = self.under(["strace", *options], words)
            return code, said, "(INJECTED)" in self._trace.read_text()
        environ = self.cli.environment()
        found, *shown = tracing.trace_command(words, self.cli.folder, environ, *options)
        injected = any("(INJECTED)" in line for line in found.lines)
        return (*self._said(words, found.code, *shown), injected)

    @staticmethod
    def _said(words: Sequence[str], code: int, out: str, err: str) -> Tuple[int, str]:
        assert bool(out) == (code == 0) or words[0] == "start"
        # A warning of `start` begins with the time, and there may be several.
        lines = re.sub(r"^\[[^]]*\] ⚠️  ", "queuectl: ", err, flags=re.M).splitlines(True)
        assert len(lines) <= 1 or words[0] == "start"
        return code, "\n".join(map(complaint, lines))

    def least_descriptors(self) -> int:
        """How many descriptors Python itself needs to begin with."""
        for limit in count(4):
            done = subprocess.run(
                [*limited("RLIMIT_NOFILE", limit), *self._plain, "--version"],
                env=self.cli.environment(),
                capture_output=True,
                check=False,
            )
            if done.returncode == 0 and not done.stderr:
                break
        return limit

    def verify(self) -> None:
        """The store is whole, and takes the next job."""
        with queue_of(self.cli) as queue:
            before = list(queue.jobs())
            later = queue.enqueue("later")
            assert list(queue.jobs()) == [later, *before]
        Disk(self.cli.store).verify()


@pytest.fixture
def faulty(cli: Cli) -> Iterator[Faulty]:
    with fast_folder() as folder:
        yield Faulty(cli, folder / "begin")


@pytest.fixture
def strace() -> None:
    """Skips the tests where there is no strace."""
    reason = tracing.missing()
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("words", CHANGES.values(), ids=CHANGES)
def test_a_fault_at_any_call_of_a_change(faulty: Faulty, words: List[str]) -> None:
    before = faulty.state()
    faulty.cli.run(*words, check=0)
    after = faulty.state()
    assert after != before
    met = 0
    for fault in FAULTS.values():
        # A lock that was taken can be let go, whatever fails.
        for number in [EVERY] if fault.calls == "flock" else map(str, count(1)):
            faulty.renew()
            code, said, injected = faulty.meet(fault, words, number)
            found = faulty.state()
            if code == 0:
                assert said == ""
                assert found == after
            else:
                assert code == 3
                assert re.fullmatch(fault.said, said), said
                # What was written is there; whether the disk has it too nobody knows.
                assert found == (after if "unknown" in said else before)
                assert fault.changes or found == before
            faulty.verify()
            if not injected:
                assert code == 0
                break
            met += 1
    assert met > 10


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_reading_goes_on_while_a_fault_lasts(faulty: Faulty, fault: Fault) -> None:
    before = faulty.state()
    words = CHANGES["config set" if fault.calls == "rename" else "enqueue with an id"]
    code, said, injected = faulty.meet(fault, words, EVERY)
    assert injected
    assert code == 3
    assert re.fullmatch(fault.said, said), said
    found = faulty.state()
    assert found == before or fault.changes
    for look in LOOKS.values():
        code, said, _ = faulty.meet(fault, look, EVERY)
        if fault.reads or code == 0:
            assert (code, said) == (0, "")
        else:
            assert code == 3
            assert re.fullmatch(fault.said, said), said
    assert faulty.state() == found
    faulty.verify()


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("name", ["no room", "nothing written", "nothing confirmed"])
def test_a_fault_at_any_commit_of_a_start(faulty: Faulty, name: str) -> None:
    """Of the claim, of the result, of the sync in between: the job runs once and is completed."""
    fault = FAULTS[name]
    runs = faulty.cli.folder / "runs"
    with queue_of(faulty.cli) as queue:
        queue.enqueue(f"echo run >> {runs}", id="job")
    shutil.rmtree(faulty.begin)
    faulty.cli.store.rename(faulty.begin)
    met = 0
    for number in count(1):
        faulty.renew()
        code, said, injected = faulty.meet(fault, ["start", "--drain"], str(number))
        for line in said.splitlines():
            replacing = r"cannot replace .*/jobs\.jsonl: Input/output error"
            wanted = f"({fault.said}|{replacing})(; trying again each second)?"
            assert re.fullmatch(wanted, line), said
        # Only who does not know what the disk holds gives up.
        assert code == (3 if "unknown" in said else 0)
        if code == 3:
            faulty.cli.run("start", "--drain", "--quiet", check=0)
        with queue_of(faulty.cli) as queue:
            job = queue.find("job")
        assert (job.state, job.attempts, job.runs) == ("completed", 1, 1)
        assert runs.read_text() == "run\n"
        runs.unlink()
        if not injected:
            break
        met += 1
    assert met > 0
    faulty.verify()


@pytest.mark.parametrize("words", CHANGES.values(), ids=CHANGES)
def test_a_limit_of_size_that_cuts_a_write_short(faulty: Faulty, words: List[str]) -> None:
    """`ulimit -f`: the kernel takes what fits, and refuses the rest."""
    is_setting = words[0] == "config"
    file = faulty.cli.store / ("settings.json" if is_setting else "jobs.jsonl")
    before = faulty.state()
    begin = file.read_bytes() if file.exists() else b""
    faulty.cli.run(*words, check=0)
    added = file.stat().st_size - len(begin)
    for taken in (0, 1, added // 2, added - 1):
        faulty.renew()
        code, said = faulty.under(limited("RLIMIT_FSIZE", len(begin) + taken), words)
        assert code == 3
        assert said == f"cannot write {file}: File too large; nothing was changed"
        assert (file.read_bytes() if file.exists() else b"") == begin
        assert faulty.state() == before
    faulty.renew()
    assert faulty.under(limited("RLIMIT_FSIZE", len(begin) + added + 64), words) == (0, "")
    faulty.verify()


@pytest.mark.parametrize("words", [*CHANGES.values(), *LOOKS.values()], ids=[*CHANGES, *LOOKS])
def test_a_limit_of_descriptors(faulty: Faulty, words: List[str]) -> None:
    """`ulimit -n`: from what Python itself needs up to what is enough."""
    before = faulty.state()
    for limit in range(faulty.least_descriptors(), 20):
        faulty.renew()
        code, said = faulty.under(limited("RLIMIT_NOFILE", limit), words)
        if code == 0:
            break
        assert code == 3
        assert re.fullmatch(FAULTS["no descriptor"].said, said), said
        assert "unknown" in said or faulty.state() == before
    assert code == 0
    faulty.verify()


def test_a_limit_of_descriptors_under_a_start(faulty: Faulty) -> None:
    """Up to where it can be told to stop, and says why it has no worker."""
    before = faulty.state()
    least = faulty.least_descriptors()
    for limit in range(least, least + 20):
        faulty.renew()
        words = ["start", "--timeout", "0.1"]
        code, said = faulty.under(limited("RLIMIT_NOFILE", limit), words)
        where = rf"(work on {faulty.cli.store}|(open|join|read) .*|lock the store: .*|be started)"
        assert re.fullmatch(rf"cannot {where}: Too many open files", said), said
        if code == 0:
            break
        assert code == 3
    assert limit > least
    assert code == 0
    assert faulty.state() == before
    faulty.verify()


def contents(folder: Path) -> Dict[str, bytes]:
    """All files in a folder, but for locks, which hold nothing."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("calls", ["write,pwrite64", "fsync,fdatasync"])
def test_a_repair_without_room_leaves_the_store_as_it_was(
    faulty: Faulty, calls: str, tmp_path: Path
) -> None:
    """Also of the history and of the settings, and nothing of the copy that it had begun."""
    for name, old in (("jobs.jsonl", b"waiting"), ("history-1.jsonl", b"done")):
        data = (faulty.begin / name).read_bytes()
        (faulty.begin / name).write_bytes(data.replace(b'"id":"%s"' % old, b'"id":"\0"'))
    (faulty.begin / "settings.json").write_bytes(b"{")
    (faulty.begin / "settings.json").chmod(0o600)
    before = contents(faulty.begin)
    trace = tmp_path / "trace"
    ended: List[str] = []
    for number in count(1):
        faulty.renew()
        inject = f"inject={calls}:error=ENOSPC:when={number}"
        options = ["-f", "--seccomp-bpf", "-qq", "-o", trace, "-e", f"trace={calls}", "-e", inject]
        code, said = faulty.under(["strace", *options], ["doctor", "--repair"])
        injected, *_ = re.findall(r".*\(INJECTED\)", trace.read_text()) or [""]
        if not injected or "write(1," in injected:
            break
        assert code == 3
        if "nothing was changed" in said:
            assert re.fullmatch(r"cannot (repair|write) .*: No space left on .*", said), said
            assert contents(faulty.cli.store) == before
            ended.append("as before")
        else:
            assert "the disk did not confirm" in said or "the job file is repaired" in said
            assert list(faulty.cli.store.glob("before-repair-*/jobs.jsonl"))
            ended.append("changed")
        faulty.cli.run("doctor", "--repair", check=0)
        faulty.verify()
    assert ended.count("as before") >= 5
    assert ended == sorted(ended)


WITHOUT_POWERS = """\
import ctypes, os, sys
for capability in range(1, 4):  # those by which root passes over the permissions of files
    ctypes.CDLL(None).prctl(24, ctypes.c_ulong(capability), 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def without_powers() -> List[Any]:
    """Starts a command that root cannot do more with than others can."""
    return [sys.executable, "-S", "-E", "-c", WITHOUT_POWERS] if os.geteuid() == 0 else []


@pytest.mark.skipif(sys.platform != "linux", reason="root gives powers up as Linux has it")
class TestPermissions:
    """Of the store's own files, which somebody may have changed."""

    def test_a_folder_that_may_only_be_read(self, faulty: Faulty) -> None:
        before = faulty.state()
        for mode in (0o400, 0o600):
            (faulty.cli.store / "jobs.jsonl").chmod(mode)
            faulty.cli.store.chmod(0o500)
            try:
                for look in LOOKS.values():
                    assert faulty.under(without_powers(), look) == (0, "")
                for words in [*CHANGES.values(), ["start", "--drain", "--quiet"]]:
                    code, said = faulty.under(without_powers(), words)
                    assert code == 3
                    wanted = r"cannot (write( to)?|join) .*: Permission denied"
                    assert re.fullmatch(wanted, said), said
            finally:
                faulty.cli.store.chmod(0o700)
            assert faulty.state() == before
        (faulty.cli.store / "jobs.jsonl").chmod(0o600)
        faulty.verify()

    @pytest.mark.parametrize(("mode", "what"), [(0o400, "write"), (0o200, "open"), (0, "open")])
    def test_a_job_file(self, faulty: Faulty, mode: int, what: str) -> None:
        before = faulty.state()
        file = faulty.cli.store / "jobs.jsonl"
        file.chmod(mode)
        for words in (LOOKS["list"], CHANGES["enqueue"], CHANGES["dlq retry"]):
            ended = faulty.under(without_powers(), words)
            if words == LOOKS["list"] and what == "write":
                assert ended == (0, "")
            else:
                assert ended == (3, f"cannot {what} {file}: Permission denied")
        file.chmod(0o600)
        assert faulty.state() == before
        faulty.verify()
