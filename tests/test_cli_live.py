"""`queuectl status --watch`: what it shows, that it fits, and that the terminal is as it was."""

from __future__ import annotations

import os
import re
import shutil
import signal
import termios
from typing import Callable, List, Optional

import pytest

import support
from queuectl import clock
from queuectl.cli.live import Facts, Throughput, picture
from queuectl.render import Screen, width_of
from queuectl.store.base import Activity, Counts, Member
from queuectl.testing.common import NOW, new_job
from starting import HOLD, Queue, state_of
from support import Cli, Terminal, wait_until
from test_cli_support import HOSTILE, HOSTILE_SHOWN, refusal

pytestmark = pytest.mark.skipif(not support.HAS_PROC, reason="finds processes in /proc")

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
STYLE = re.compile(r"\x1b\[\d*(?:;\d+)*m")


def lines(terminal: Terminal) -> List[str]:
    """The lines of the last picture that is whole."""
    pictures = terminal.raw.split("\x1b[H")[1:]
    whole = [one.partition("\x1b[J")[0] for one in pictures if "\x1b[J" in one]
    if not whole:
        return []
    drawn = re.split("\r+\n", STYLE.sub("", whole[-1]))
    assert all(line.endswith("\x1b[K") for line in drawn)
    return [line[: -len("\x1b[K")] for line in drawn]


def see(terminal: Terminal, pattern: str) -> List[str]:
    """Wait until a line of a picture matches; return the picture."""

    def look() -> Optional[List[str]]:
        assert terminal.process.poll() is None, terminal.text
        shown = lines(terminal)
        return shown if any(re.search(pattern, line) for line in shown) else None

    found = wait_until(look, what=f"{pattern!r} in a picture")
    assert found is not None
    return found


def modes(terminal: Terminal) -> List[object]:
    """How the terminal treats what is typed."""
    return list(termios.tcgetattr(terminal._master))


@pytest.fixture
def live(cli: Cli, terminal: Callable[..., Terminal]) -> Callable[..., Terminal]:
    """Starts the view on the test's store, which has jobs of several kinds."""

    def start(interval: str = "0.1", **options: object) -> Terminal:
        return terminal("status", "--watch", interval, **options)

    return start


def test_it_shows_what_goes_on_as_it_happens(cli: Cli, live: Callable[..., Terminal]) -> None:
    queue = Queue(cli)
    queue.add("exit 3", id="fails", max_retries=1)
    queue.add(HOLD, id="holds")
    seen = live()
    shown = see(seen, "Pending: 2")
    assert "no workers running: queuectl start" in shown
    start = queue.start()
    see(seen, r"^   Worker-1: holds touch .* \(\d+\.\ds\)$")
    shown = see(seen, r"^   fails exit 3 \(dead, \d+\.\ds ago\): Exit code 3$")
    for line in ("🟠 Processing: 1", "💀 DLQ: 1", "👷 Workers: 1", "🔴 Newest failures:"):
        assert line in shown
    with queue.opened() as manager:
        manager.set_queue("mail", paused=True)
        manager.set_queue("tapes", paused=True)
    see(seen, "Paused queues: mail, tapes")
    queue.let_go()
    see(seen, "Completed: 1")
    # In some picture: on a busy machine it may be the last one that is called lately.
    completing = re.compile(r"Throughput: [1-9]\S* jobs/s, [1-9]\d* jobs/min")
    wait_until(lambda: completing.search(STYLE.sub("", seen.raw)))
    with queue.opened() as manager:
        manager.retry_dead()
        manager.store.remove([queue.job("holds")])
    see(seen, "Completed: 0")
    start.send_signal(signal.SIGTERM)
    start.finish()
    see(seen, "no workers running")
    assert "\x1b[2J" not in seen.raw
    seen.send("\x03")
    assert seen.wait() == 0


def test_ctrl_c_leaves_the_terminal_as_it_was(cli: Cli, live: Callable[..., Terminal]) -> None:
    """Also keys that were pressed meanwhile leave nothing behind."""
    Queue(cli)
    seen = live("60")
    before = modes(seen)
    see(seen, "Total: 0")
    assert modes(seen) != before
    seen.send("xyz\r")
    seen.send("\x03")
    assert seen.wait() == 0
    assert seen.raw.startswith(ENTER)
    assert seen.raw.endswith(LEAVE)
    assert modes(seen) == before
    assert "xyz" not in seen.raw
    assert not seen.text.strip().startswith("^C")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_other_signals_end_it_as_they_would(
    signum: int, cli: Cli, live: Callable[..., Terminal]
) -> None:
    Queue(cli)
    seen = live("60")
    before = modes(seen)
    see(seen, "Total: 0")
    os.kill(seen.pid, signum)
    assert seen.wait() == -signum
    assert seen.raw.endswith(LEAVE)
    assert modes(seen) == before


def test_a_terminal_that_is_closed(cli: Cli, live: Callable[..., Terminal]) -> None:
    Queue(cli)
    seen = live("60")
    see(seen, "Total: 0")
    seen.hang_up()
    assert seen.process.wait(10) == -signal.SIGHUP


def test_ctrl_z_gives_the_terminal_back_for_a_while(
    cli: Cli, live: Callable[..., Terminal]
) -> None:
    Queue(cli)
    seen = live("60")
    before = modes(seen)
    see(seen, "Total: 0")
    seen.send("\x1a")
    wait_until(lambda: state_of(seen.pid) == "T", what="it to have stopped")
    wait_until(lambda: seen.raw.endswith(LEAVE), what="the screen to be given back")
    assert modes(seen) == before
    os.kill(seen.pid, signal.SIGCONT)
    wait_until(lambda: seen.raw.count(ENTER) == 2, what="the view to be back")
    wait_until(lambda: seen.raw.rpartition(ENTER)[2].count("Total: 0"), what="a picture")
    seen.send("\x03")
    assert seen.wait() == 0


def test_an_error_is_told_on_the_screen_as_it_was(cli: Cli, live: Callable[..., Terminal]) -> None:
    Queue(cli)
    seen = live()
    see(seen, "Total: 0")
    shutil.rmtree(cli.store)
    assert seen.wait() == 3
    _, left, said = seen.raw.partition(LEAVE)
    assert left
    assert re.fullmatch(r"queuectl: store \S+ was removed while in use\r\n", said)


def test_it_fits_the_window_and_heeds_a_new_size(cli: Cli, live: Callable[..., Terminal]) -> None:
    """At once, however long the interval is."""
    queue = Queue(cli)
    queue.add("echo " + "漢" * 200, id="wide", max_retries=1, cwd="/none")
    queue.drain()
    seen = live("60", columns=60, rows=24)
    shown = see(seen, "wide echo")
    assert max(map(width_of, shown)) <= 59
    seen.resize(30, 6)
    wait_until(lambda: len(lines(seen)) == 6, what="six lines")
    assert max(map(width_of, lines(seen))) <= 29
    seen.resize(200, 50)
    see(seen, "No such folder|not found|none")
    assert len(lines(seen)) > 10
    seen.send("\x03")
    assert seen.wait() == 0


def test_nothing_in_it_is_obeyed(cli: Cli, live: Callable[..., Terminal]) -> None:
    queue = Queue(cli)
    with queue.opened() as manager:
        manager.enqueue(HOSTILE, id="hostile", max_retries=1, cwd="/none\x1b[2J")
    queue.drain()
    seen = live(columns=300)
    see(seen, re.escape(HOSTILE_SHOWN))
    assert "\x1b[2J" not in seen.raw


@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_without_colours_and_in_ascii(
    plain: support.Changes, cli: Cli, live: Callable[..., Terminal]
) -> None:
    assert plain is not None
    queue = Queue(cli)
    queue.add("exit 3; " + "x" * 200, id="fails", max_retries=1)
    queue.drain()
    seen = live(env={**plain, "PYTHONCOERCECLOCALE": "0"})
    shown = see(seen, "fails exit 3")
    assert (STYLE.search(seen.raw.replace(ENTER, "")) is None) == ("NO_COLOR" in plain)
    assert "".join(shown).isascii() == ("LC_ALL" in plain)


def test_where_it_is_refused(cli: Cli, terminal: Callable[..., Terminal]) -> None:
    Queue(cli)
    assert cli.run("status", "--watch", check=2).stderr == (
        "queuectl: --watch needs a terminal: use watch, or queuectl status --json; "
        "see queuectl status --help\n"
    )
    assert refusal(cli, ["status", "--watch", "--json"]).startswith("--watch has no JSON form")
    for bad in ("0", "x", "0.01"):
        said = refusal(cli, ["status", f"--watch={bad}"])
        assert said.startswith("bad value for --watch: ")
    seen = terminal(program=["env", "TERM=dumb", *cli.command, "status", "--watch"])
    assert seen.wait() == 2
    assert "\x1b" not in seen.raw


def facts(running: int = 0, failures: int = 0, workers: int = 0) -> Facts:
    """Facts about so many jobs and workers."""
    at = clock.to_iso(NOW)
    jobs = [new_job(f"job{number}") for number in range(running + failures)]
    members = [
        Member(f"w{number}", "worker", f"Worker-{number}", 1, "here", at, "s")
        for number in range(workers)
    ]
    activity = Activity(jobs[:running], jobs[running:])
    return Facts(Counts(), activity, members, [], None, "/store", NOW)


def test_what_there_is_no_room_for_is_counted() -> None:
    """Of what runs; the failures and the store stay in sight, as long as that is possible."""
    everything = picture(Screen(), facts(running=30, failures=2), 60)
    assert len(everything) == 45
    shown = picture(Screen(), facts(running=30, failures=2), 24)
    assert len(shown) == 24
    assert shown[-5] == "   and 22 more"
    assert "Newest failures:" in shown[-4]
    assert shown[-1] == "📁 Store: /store"
    assert len(picture(Screen(width=1), facts(running=30, failures=2), 3)) == 3


def test_the_throughput_is_that_of_the_last_while() -> None:
    throughput = Throughput()
    assert throughput.rates(0, 100) is None
    assert throughput.rates(2, 100) == (0, 0)
    assert throughput.rates(4, 108) == (2, 120)
    for second in range(6, 200, 2):
        throughput.rates(second, 108)
    assert throughput.rates(200, 108) == (0, 0)
    assert throughput.rates(202, 128)[1] == 20  # type: ignore[index]


def test_looks_that_are_far_apart_have_a_throughput_too() -> None:
    throughput = Throughput()
    throughput.rates(0, 0)
    assert throughput.rates(120, 240) == (2, 120)
    assert throughput.rates(240, 240) == (0, 0)
