"""What the kernel tells about processes, by /proc and by ps, of real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from queuectl import machine
from support import wait_until

Spawn = Callable[..., "subprocess.Popen[Any]"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")


@pytest.fixture(params=[pytest.param("proc", marks=needs_proc), "ps"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the answers come from."""
    monkeypatch.setattr(machine, "_HAS_PROC", request.param == "proc")
    return str(request.param)


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts a program as the leader of a group, which is killed when the test ends."""
    started: List[subprocess.Popen[Any]] = []

    def start(*command: str, **variables: str) -> subprocess.Popen[Any]:
        environ: Dict[str, str] = dict(os.environ, **variables)
        process = subprocess.Popen(command, env=environ, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        machine.signal_group(process.pid, signal.SIGKILL)
        process.wait()


def reaped(process: subprocess.Popen[Any]) -> int:
    """Kill a process, wait for its end, and return the pid that it had."""
    process.kill()
    process.wait()
    return process.pid


def is_zombie(pid: int) -> bool:
    return subprocess.check_output(["ps", "-o", "stat=", "-p", str(pid)]).startswith(b"Z")


def orphaned(spawn: Spawn, **variables: str) -> int:
    """A group whose leader is gone while another member lives on."""
    process = spawn("/bin/sh", "-c", "sleep 300 & exec sleep 300", **variables)
    wait_until(lambda: len(machine.group_members(process.pid)) == 2)
    return reaped(process)


@needs_proc
def test_boot_id_is_the_kernels() -> None:
    assert machine.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_boot_id_is_never_empty_nor_changes() -> None:
    assert machine.boot_id()
    assert machine.boot_id() == machine.boot_id()


def test_host_is_the_name_of_the_machine() -> None:
    assert machine.host() == os.uname().nodename


@pytest.mark.usefixtures("source")
def test_born_stays_the_same_while_a_process_lives(spawn: Spawn) -> None:
    process = spawn("/bin/sh", "-c", "read line; exec sleep 300")
    assert machine.born(process.pid)
    assert machine.born(process.pid) == machine.born(process.pid)


@pytest.mark.usefixtures("source")
def test_born_tells_an_earlier_process_from_a_later_one(spawn: Spawn) -> None:
    first = spawn("sleep", "300")

    def later_one_differs() -> bool:
        later = spawn("sleep", "300")
        differs = machine.born(later.pid) != machine.born(first.pid)
        reaped(later)
        return differs

    wait_until(later_one_differs)


@pytest.mark.usefixtures("source")
def test_born_of_nobody_is_nothing(spawn: Spawn) -> None:
    assert machine.born(reaped(spawn("sleep", "300"))) is None


@needs_proc
def test_born_is_not_misled_by_a_program_with_a_hostile_name(spawn: Spawn, tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    shutil.copy(shutil.which("sleep") or "", program)
    process = spawn(str(program), "300")
    wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "a) Z 1 (b\n")
    # proc_pid_stat(5): field 22, when only the text before the last parenthesis is the name.
    fields = Path(f"/proc/{process.pid}/stat").read_text().split(") ")[-1].split()
    assert machine.born(process.pid) == fields[22 - 3]
    assert machine.group_members(process.pid) == [process.pid]


@pytest.mark.usefixtures("source")
def test_group_members_are_all_that_live(spawn: Spawn) -> None:
    process = spawn("/bin/sh", "-c", "sleep 300 & sleep 300 & exec sleep 300")
    wait_until(lambda: len(machine.group_members(process.pid)) == 3)
    assert process.pid in machine.group_members(process.pid)
    assert os.getpid() in machine.group_members(os.getpgrp())
    assert os.getpid() not in machine.group_members(process.pid)


@pytest.mark.usefixtures("source")
def test_a_group_lives_as_long_as_any_member_does(spawn: Spawn) -> None:
    group = orphaned(spawn)
    assert machine.group_alive(group)
    os.killpg(group, signal.SIGKILL)
    wait_until(lambda: not machine.group_alive(group))
    assert machine.group_members(group) == []


@pytest.mark.usefixtures("source")
def test_a_stopped_member_is_alive(spawn: Spawn) -> None:
    process = spawn("sleep", "300")
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: b"T" in subprocess.check_output(["ps", "-o", "stat=", str(process.pid)]))
    assert machine.group_alive(process.pid)


def test_a_group_is_alive_whose_members_cannot_be_seen(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other users' processes may be hidden; here it is ps that is not found."""
    process = spawn("sleep", "300")
    monkeypatch.setattr(machine, "_HAS_PROC", False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert machine.group_members(process.pid) == []
    assert machine.group_alive(process.pid)
    assert not machine.group_alive(reaped(process))


@pytest.mark.usefixtures("source")
def test_zombies_do_not_count_as_alive(spawn: Spawn) -> None:
    process = spawn("sleep", "300", ZOMBIE="1")
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: is_zombie(process.pid))
    os.killpg(process.pid, 0)  # To the kernel the group exists.
    assert not machine.group_alive(process.pid)
    assert machine.group_members(process.pid) == []
    assert machine.find_groups({"ZOMBIE": "1"}) == []
    assert machine.born(process.pid)


@needs_proc
def test_a_group_that_is_gone_costs_no_look_at_all_processes(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = reaped(spawn("sleep", "300"))
    monkeypatch.setattr(os, "listdir", None)
    assert not machine.group_alive(group)


@needs_root
@pytest.mark.usefixtures("source")
def test_a_group_of_another_user_is_alive_and_not_ours_to_signal(spawn: Spawn) -> None:
    group = orphaned(spawn)
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        machine.signal_group(group, signal.SIGKILL)
        os._exit(0 if machine.group_alive(group) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert machine.group_alive(group)


def test_signal_group_reaches_every_member(spawn: Spawn) -> None:
    process = spawn("/bin/sh", "-c", "sleep 300 & wait")
    wait_until(lambda: len(machine.group_members(process.pid)) == 2)
    machine.signal_group(process.pid, signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
    wait_until(lambda: not machine.group_alive(process.pid))


def test_signal_group_passes_over_a_group_that_is_gone(spawn: Spawn) -> None:
    machine.signal_group(reaped(spawn("sleep", "300")), signal.SIGKILL)


@pytest.mark.parametrize("number", [1, 0, -1, -300])
def test_numbers_that_mean_everybody_are_no_group(number: int) -> None:
    with pytest.raises(ValueError, match="not the number of a job's process group"):
        machine.signal_group(number, 0)
    assert not machine.group_alive(number)
    assert machine.groups_of_run(number, "1", machine.boot_id(), {}) == []


@pytest.mark.usefixtures("source")
def test_find_groups_wants_every_variable_with_its_whole_value(mark: str, spawn: Spawn) -> None:
    process = spawn("sleep", "300", JOB=mark, RUN="1")
    wait_until(lambda: machine.find_groups({"JOB": mark}) == [process.pid])
    assert machine.find_groups({"JOB": mark, "RUN": "1"}) == [process.pid]
    assert machine.find_groups({"JOB": mark, "RUN": "12"}) == []
    assert machine.find_groups({"JOB": mark, "RUN": ""}) == []
    assert machine.find_groups({"JOB": mark[:-1]}) == []
    assert machine.find_groups({"OB": mark}) == []


@pytest.mark.usefixtures("source")
def test_find_groups_finds_values_with_spaces_and_bytes(mark: str, spawn: Spawn) -> None:
    process = spawn("sleep", "300", JOB=f"{mark} a b")
    wait_until(lambda: machine.find_groups({"JOB": f"{mark} a b"}) == [process.pid])


@needs_proc
def test_find_groups_reads_a_large_environment_whole(mark: str, spawn: Spawn) -> None:
    large = {f"LARGE{number}": "x" * 100_000 for number in range(3)}
    process = spawn("sleep", "300", **large, ZZZ=mark)
    wait_until(lambda: machine.find_groups({"ZZZ": mark}) == [process.pid])


@needs_proc
def test_find_groups_finds_values_that_are_not_text(mark: str, spawn: Spawn) -> None:
    process = spawn("sleep", "300", JOB=f"{mark}\n\udcff")
    wait_until(lambda: machine.find_groups({"JOB": f"{mark}\n\udcff"}) == [process.pid])


@pytest.mark.usefixtures("source")
def test_find_groups_finds_a_group_once_and_without_its_leader(mark: str, spawn: Spawn) -> None:
    group = orphaned(spawn, JOB=mark)
    assert machine.find_groups({"JOB": mark}) == [group]


@pytest.mark.usefixtures("source")
def test_no_variables_find_nothing() -> None:
    assert machine.find_groups({}) == []


@pytest.mark.usefixtures("source")
def test_find_groups_never_finds_our_own(mark: str) -> None:
    environ = dict(os.environ, JOB=mark)
    with subprocess.Popen(["sleep", "300"], env=environ) as process:
        other = subprocess.Popen(["sleep", "300"], env=environ, start_new_session=True)
        wait_until(lambda: machine.find_groups({"JOB": mark}) == [other.pid])
        assert process.pid in machine.group_members(os.getpgrp())
        reaped(other)
        process.kill()


@pytest.mark.usefixtures("source")
def test_the_noted_group_is_known_by_its_leader(spawn: Spawn) -> None:
    process = spawn("sleep", "300")
    born, boot = machine.born(process.pid), machine.boot_id()
    assert machine.is_same_group(process.pid, born, boot)
    assert machine.groups_of_run(process.pid, born, boot, {"JOB": "none such"}) == [process.pid]


@pytest.mark.usefixtures("source")
def test_a_leader_that_started_at_another_time_leads_another_group(spawn: Spawn) -> None:
    process = spawn("sleep", "300")
    assert machine.born(process.pid)
    for wrong in ("1", None):
        assert not machine.is_same_group(process.pid, wrong, machine.boot_id())
        assert machine.groups_of_run(process.pid, wrong, machine.boot_id(), {}) == []
    assert process.poll() is None


@pytest.mark.usefixtures("source")
def test_of_another_boot_nothing_lives(mark: str, spawn: Spawn) -> None:
    process = spawn("sleep", "300", JOB=mark)
    wait_until(lambda: machine.find_groups({"JOB": mark}))
    born = machine.born(process.pid)
    assert not machine.is_same_group(process.pid, born, "another")
    assert machine.groups_of_run(process.pid, born, "another", {"JOB": mark}) == []


@pytest.mark.usefixtures("source")
def test_without_its_leader_the_environment_tells(mark: str, spawn: Spawn) -> None:
    group = orphaned(spawn, JOB=mark)
    boot = machine.boot_id()
    assert machine.is_same_group(group, "1", boot)
    assert machine.groups_of_run(group, "1", boot, {"JOB": mark}) == [group]
    assert machine.groups_of_run(group, "1", boot, {"JOB": "another"}) == []


@pytest.mark.usefixtures("source")
def test_a_leader_that_is_a_zombie_still_leads(spawn: Spawn) -> None:
    process = spawn("/bin/sh", "-c", "sleep 300 & exec sleep 300")
    wait_until(lambda: len(machine.group_members(process.pid)) == 2)
    born = machine.born(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: is_zombie(process.pid))
    assert machine.groups_of_run(process.pid, born, machine.boot_id(), {}) == [process.pid]


@pytest.mark.usefixtures("source")
def test_a_group_of_nobody_alive_is_none(spawn: Spawn) -> None:
    process = spawn("sleep", "300")
    born = machine.born(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: is_zombie(process.pid))
    assert machine.groups_of_run(process.pid, born, machine.boot_id(), {}) == []
    reaped(process)
    assert machine.groups_of_run(process.pid, born, machine.boot_id(), {}) == []


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("boot", [None, machine.boot_id()])
def test_a_group_that_was_never_noted_is_found(mark: str, spawn: Spawn, boot: str) -> None:
    process = spawn("sleep", "300", JOB=mark)
    wait_until(lambda: machine.find_groups({"JOB": mark}))
    assert machine.groups_of_run(None, None, boot, {"JOB": mark}) == [process.pid]


@pytest.mark.usefixtures("source")
def test_noted_and_found_groups_are_told_once_each(mark: str, spawn: Spawn) -> None:
    noted, other = spawn("sleep", "300", JOB=mark), spawn("sleep", "300", JOB=mark)
    wait_until(lambda: len(machine.find_groups({"JOB": mark})) == 2)
    found = machine.groups_of_run(
        noted.pid, machine.born(noted.pid), machine.boot_id(), {"JOB": mark}
    )
    assert found == sorted([noted.pid, other.pid])


@pytest.mark.usefixtures("source")
def test_our_own_group_is_never_that_of_a_run() -> None:
    own = os.getpgrp()
    assert machine.groups_of_run(own, machine.born(own), machine.boot_id(), {}) == []


def test_importing_costs_no_module_that_is_slow_to_import() -> None:
    script = "import sys, queuectl.machine; print('subprocess' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script]) == b"False\n"
