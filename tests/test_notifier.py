"""Hooks and who runs them, in this process, where their time limit can be short."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from pathlib import Path
from typing import Callable, Iterator, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

import support
from queuectl import job as rules
from queuectl import machine
from queuectl.events import Event
from queuectl.job import Job
from queuectl.manager import QueueManager
from queuectl.notifier import News, Notifier, cut
from queuectl.store.file import FileStore
from starting import SLACK, STUBBORN, wait_until_gone
from support import wait_until

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

NOW = 1_762_707_697.0
LIMIT = 0.3


class Bench:
    """A notifier, as a supervisor has it, on a store of its own."""

    def __init__(self, folder: Path, **options: int) -> None:
        self.folder = folder
        self.told: List[str] = []
        self.manager = QueueManager(FileStore(str(folder / "store")), {})
        self.manager.configure("kill_grace", "0.2")
        self.spool = self.manager.store.spool("me")
        os.makedirs(os.path.dirname(self.spool))
        self.notifier = Notifier(self.manager, self.spool, self._hear, LIMIT, **options)

    def _hear(self, event: Event) -> None:
        self.told.append(event.detail)

    def tell_of(self, *jobs: Job) -> None:
        """Tell of jobs that died."""
        for job in jobs:
            self.notifier.tell(job)

    def is_done(self) -> bool:
        """Do what can be done; tell whether nothing is left."""
        self.notifier.step()
        return not self.notifier.is_busy

    def finish(self) -> None:
        """Work until nothing is left."""
        wait_until(self.is_done, LIMIT + 0.2 + 5 * SLACK, "the end of the hooks")

    def pids(self, name: str, count: int) -> List[int]:
        """The process ids that hooks wrote into a file, once there are so many."""
        path = self.folder / name

        def look() -> bool:
            self.notifier.step()
            return path.exists() and len(path.read_text().split()) == count

        wait_until(look, what=f"{count} processes")
        return [int(word) for word in path.read_text().split()]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    """Makes a bench whose hook for dead jobs is given; it must leave no hook behind."""
    made: List[Bench] = []
    monkeypatch.chdir(tmp_path)

    def make(on_dead: str, **options: int) -> Bench:
        made.append(Bench(tmp_path, **options))
        made[-1].manager.configure("on_dead", on_dead)
        return made[-1]

    yield make
    for bench in made:
        bench.notifier.end()
        bench.finish()
        assert not os.path.exists(bench.spool)
        bench.notifier.let_go()
        bench.manager.close()


def dead(job_id: str = "job", command: str = "false", error: str = "Exit code 1") -> Job:
    """A job whose only attempt failed."""
    job = rules.enqueue(job_id, command, NOW, max_retries=1)
    return rules.fail(rules.claim(job, "w1", NOW), NOW, error, 0, 1)


def test_a_hook_that_hangs_is_ended_with_all_its_processes(make: Callable[..., Bench]) -> None:
    bench = make(
        f'echo "$$" > pids; {STUBBORN}'.replace("sleep 1000 &", 'sleep 1000 & echo "$!" >> pids;')
    )
    bench.tell_of(dead())
    pids = bench.pids("pids", 2)
    bench.finish()
    wait_until_gone(pids, 0.1)
    assert bench.told == ["hook on_dead of job job failed: Timed out after 0.3s"]


def test_what_a_hook_leaves_in_the_background_has_its_time_and_no_more(
    make: Callable[..., Bench],
) -> None:
    bench = make('echo why; sleep 1000 & echo "$!" > pids')
    bench.tell_of(dead())
    pids = bench.pids("pids", 1)
    bench.finish()
    wait_until_gone(pids, 0.1)
    assert bench.told == ["hook on_dead of job job failed: Timed out after 0.3s: why"]


def test_what_a_hook_leaves_in_the_background_may_end_by_itself(make: Callable[..., Bench]) -> None:
    bench = make("(sleep 0.1; touch later) &")
    bench.tell_of(dead())
    bench.finish()
    assert (bench.folder / "later").exists()
    assert bench.told == []


@pytest.mark.parametrize(
    ("hook", "error"),
    [
        ("exit 0", None),
        ("echo; echo why; echo ' no server ' >&2; echo; exit 7", "Exit code 7: no server"),
        ("kill -9 $$", "Killed by signal 9 (SIGKILL)"),
        ("no-such-program 2>/dev/null", "Command not found"),
        ("-x", "Command not found"),
    ],
)
def test_what_went_wrong_is_told_in_a_line(
    make: Callable[..., Bench], hook: str, error: str
) -> None:
    bench = make(hook)
    bench.tell_of(dead("a-job"))
    bench.finish()
    told = [] if error is None else [f"hook on_dead of job a-job failed: {error}"]
    assert [line[: len(told[0])] for line in bench.told] == told


def test_a_shell_that_does_not_exist_is_told(make: Callable[..., Bench]) -> None:
    bench = make("true")
    bench.manager.configure("shell", "/no/such/shell")
    bench.tell_of(dead())
    bench.finish()
    assert bench.told == ["hook on_dead of job job failed: Shell /no/such/shell does not exist"]


def test_a_hook_may_print_anything(make: Callable[..., Bench]) -> None:
    """What it prints takes neither disk nor memory; its last line is what counts."""
    bench = make("head -c 300000000 /dev/zero; echo; echo 'the end'; exit 1")
    bench.notifier._limit = 30.0
    highest = [0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            for fd in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    if bench.spool in os.readlink(f"/proc/self/fd/{fd}"):
                        highest[0] = max(highest[0], os.fstat(int(fd)).st_size)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        bench.tell_of(dead())
        wait_until(bench.is_done, 30, "the end of the hook")
    finally:
        over.set()
        thread.join()
    assert 0 < highest[0] < 250_000_000
    assert bench.told == ["hook on_dead of job job failed: Exit code 1: the end"]


def test_only_a_few_run_at_once_and_the_rest_wait_in_order(make: Callable[..., Bench]) -> None:
    bench = make('touch "ran.$QUEUECTL_JOB_ID"; until [ -e go ]; do sleep 0.01; done')
    bench.notifier._limit = 30.0
    bench.tell_of(*(dead(f"{number:02}") for number in range(20)))

    def ran() -> List[str]:
        bench.notifier.step()
        return sorted(path.name for path in bench.folder.glob("ran.*"))

    wait_until(lambda: len(ran()) == 8, what="the first hooks")
    assert ran() == [f"ran.{number:02}" for number in range(8)]
    (bench.folder / "go").touch()
    bench.finish()
    assert len(ran()) == 20
    assert bench.told == []


def test_the_end_waits_for_what_can_be_done_in_the_time_of_one_hook(
    make: Callable[..., Bench],
) -> None:
    bench = make('case $QUEUECTL_JOB_ID in good*) touch "$QUEUECTL_JOB_ID";; *) sleep 1000;; esac')
    names = [*(f"good-{number}" for number in range(9)), *(f"bad-{number}" for number in range(9))]
    bench.tell_of(*map(dead, [*names, "last"]))
    bench.notifier.wind_up()
    bench.finish()
    assert len(list(bench.folder.glob("good-*"))) == 9
    assert bench.told.count("2 hooks were not run: at the end of start") == 1
    assert sum("Ended by shutdown" in line or "Timed out" in line for line in bench.told) == 8


def test_a_forced_end_ends_those_that_run_and_starts_no_more(make: Callable[..., Bench]) -> None:
    bench = make(f'echo "$$" >> pids; {STUBBORN}')
    bench.notifier._limit = 30.0
    bench.tell_of(*(dead(f"job-{number}") for number in range(9)))
    pids = bench.pids("pids", 8)
    bench.notifier.end()
    bench.tell_of(dead("late"))
    bench.finish()
    wait_until_gone(pids, 0.1)
    bench.notifier.wind_up()
    assert bench.told.count("1 hook was not run: at the end of start") == 2
    assert sum("Ended by shutdown" in line for line in bench.told) == 8


def test_those_that_wait_are_not_without_number(make: Callable[..., Bench]) -> None:
    bench = make("true", most_waiting=20)
    bench.tell_of(*(dead(f"job-{number}") for number in range(25)))
    bench.finish()
    assert bench.told == ["5 hooks were not run: too many waited"]


def test_a_worker_hands_over_only_what_somebody_wants_to_know(make: Callable[..., Bench]) -> None:
    bench = make("touch told")
    claimed = rules.claim(rules.enqueue("other", "true", NOW, max_retries=2), "w1", NOW)
    unwanted = [
        claimed,
        rules.complete(claimed, NOW),
        rules.fail(claimed, NOW, "Exit code 1", 1, 1),
        rules.release(claimed, NOW),
    ]
    for job in unwanted:
        assert bench.notifier.post(job, bench.manager.settings)
    with pytest.raises(BlockingIOError):
        os.read(bench.notifier.inbox, 1)
    assert bench.notifier.post(dead(), bench.manager.settings)
    bench.notifier.hear()
    bench.finish()
    assert (bench.folder / "told").exists()


def test_a_full_pipe_delays_no_worker(make: Callable[..., Bench]) -> None:
    bench = make("true", most_waiting=1_000_000)
    settings = bench.manager.settings
    job = dead(command="x" * 100_000)
    posted = 0
    while bench.notifier.post(job, settings):
        posted += 1
        assert posted < 100_000
    assert posted >= 15
    bench.notifier.hear()
    bench.notifier.end()
    assert bench.told == [f"{posted} hooks were not run: at the end of start"]
    assert bench.notifier.post(job, settings)


def test_a_hook_that_was_reset_meanwhile_is_not_run(make: Callable[..., Bench]) -> None:
    bench = make("touch told")
    assert bench.notifier.post(dead(), bench.manager.settings)
    bench.manager.configure("on_dead", None)
    bench.notifier.hear()
    assert not bench.notifier.is_busy


def test_a_full_disk_keeps_no_hook_from_running(make: Callable[..., Bench]) -> None:
    bench = make("echo why; touch told; exit 1")
    # As good as full: there is no room for the file either.
    os.rmdir(os.path.dirname(bench.spool))
    bench.tell_of(dead())
    bench.finish()
    assert (bench.folder / "told").exists()
    assert bench.told == ["hook on_dead of job job failed: Exit code 1"]


def test_no_descriptor_is_lost(make: Callable[..., Bench]) -> None:
    bench = make("exit 1")
    before = support.open_descriptors()
    bench.tell_of(dead("a"), dead("b"))
    bench.finish()
    bench.manager.configure("shell", "/no/such/shell")
    bench.tell_of(dead("c"))
    bench.finish()
    assert support.open_descriptors() <= before
    assert len(bench.told) == 3


def test_a_worker_holds_nothing_of_a_hook_that_runs(make: Callable[..., Bench]) -> None:
    bench = make("touch begun; sleep 1000")
    bench.tell_of(dead())
    wait_until(lambda: not bench.is_done() and (bench.folder / "begun").exists())
    pid = os.fork()
    if pid == 0:
        bench.notifier.let_go()
        held = [os.readlink(f"/proc/self/fd/{fd}") for fd in machine.open_descriptors()]
        os._exit(any(bench.spool in name for name in held))
    assert os.waitpid(pid, 0)[1] == 0


@given(st.text(max_size=40), st.integers(3, 40))
def test_text_is_cut_at_a_character(text: str, size: int) -> None:
    data = cut(text.encode("utf-8", "ignore").decode(), size)
    assert len(data) <= size
    assert b"\0" not in data
    whole = text.encode("utf-8", "ignore").decode().replace("\0", "\\x00")
    shown = data.decode()
    assert shown == whole or (shown.endswith("…") and whole.startswith(shown[:-1]))
    assert shown == whole or len(whole.encode()) > size >= len(data) > size - 7


@given(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=10_000),
    st.binary(max_size=5000),
)
def test_what_is_handed_over_is_never_longer_than_a_pipe_takes_whole(
    text: str, error: bytes
) -> None:
    job = dead("x" * 64, f"true {text * 3}", error.decode("utf-8", "surrogateescape"))
    news = News.of(job)
    assert sum(map(len, news)) + len(news) <= select.PIPE_BUF
    assert not any(b"\0" in field for field in news)


def test_bytes_that_are_not_utf8_stay_as_they_are() -> None:
    text = b"\xff\xc3(\xc3\xa4".decode("utf-8", "surrogateescape")
    assert cut(text, 100) == b"\xff\xc3(\xc3\xa4"
    assert cut(text * 10, 8) == b"\xff\xc3(\xc3\xa4" + "…".encode()
    assert cut(text * 10, 7) == b"\xff\xc3(" + "…".encode()
