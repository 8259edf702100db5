"""What the kernel tells about this machine and its processes.

A process group is known by its number only while it lives: numbers are used again. Two facts make
it safe to signal a group that was noted. The kernel gives nobody the pid N while a group N has
members; so if a process N exists and started at another time than noted, the noted group is gone.
And start times count from the boot; so a group that was noted in another boot is gone too. A group
whose leader has ended is known by the environment of its members instead.

Zombies do not count as alive: they hold nothing, and only their parent can remove them. Where there
is no /proc (macOS), `ps` answers the same questions.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Collection, Dict, Iterator, List, Mapping, NamedTuple, Optional, Set

_HAS_PROC = os.path.exists("/proc/self/stat")
_DEAD = "ZXx"
_CHUNK = 1 << 16


class _Process(NamedTuple):
    """A process as the kernel lists it; `state` is one of ps's letters."""

    pid: int
    state: str
    group: int


@functools.lru_cache(maxsize=None)
def boot_id() -> str:
    """Name this boot of the machine; `unknown` where the kernel has no name for it."""
    named = _read("/proc/sys/kernel/random/boot_id").decode("ascii", "replace").strip()
    return named or _output_of("sysctl", "-n", "kern.bootsessionuuid").strip() or "unknown"


def host() -> str:
    """The machine's name."""
    return os.uname().nodename


def was_given(name: str) -> bool:
    """Whether this program was started with a variable; yes where the kernel does not tell."""
    if not _HAS_PROC:
        return True
    start = os.fsencode(name) + b"="
    return any(entry.startswith(start) for entry in _read("/proc/self/environ").split(b"\0"))


def given_environ() -> Dict[str, str]:
    """The environment as this program was given it.

    Python sets LC_CTYPE for itself where the locale is C.
    """
    environ = dict(os.environ)
    if "LC_CTYPE" in environ and not was_given("LC_CTYPE"):
        del environ["LC_CTYPE"]
    return environ


def listed_descriptors() -> Set[int]:
    """This process's open descriptors, and the one that was open to list them."""
    try:
        return set(map(int, os.listdir("/dev/fd")))
    except OSError:
        return set(range(1024))


def open_descriptors(but: Collection[int] = ()) -> Set[int]:
    """This process's open descriptors.

    Args:
        but: those that are not asked for.
    """
    found = set()
    for fd in listed_descriptors().difference(but):
        with contextlib.suppress(OSError):
            os.fstat(fd)
            found.add(fd)
    return found


def born(pid: int) -> Optional[str]:
    """When a process started, in the kernel's own terms; nothing if there is none of this pid."""
    if _HAS_PROC:
        fields = _stat(pid)
        return fields[19] if fields else None
    return _output_of("ps", "-o", "lstart=", "-p", str(pid)).strip() or None


def group_members(pgid: int) -> List[int]:
    """The living processes of a group."""
    members = [process for process in _processes() if process.group == pgid]
    return [process.pid for process in members if process.state not in _DEAD]


def group_alive(pgid: int) -> bool:
    """Whether a group has a living member; one system call if it is gone."""
    # Twice, because a look at all processes takes time: a child that it missed may have a parent
    # that had ended when its turn came.
    members: List[_Process] = []
    for _ in range(2):
        if not _group_exists(pgid):
            return False
        members = [process for process in _processes() if process.group == pgid]
        if any(process.state not in _DEAD for process in members):
            return True
    # Zombies only; or members of other users, which some systems hide: those count.
    return not members and _group_exists(pgid)


def find_groups(variables: Mapping[str, str]) -> List[int]:
    """The groups, never our own, with a living member whose environment holds these variables.

    Args:
        variables: by name; none at all finds nothing, rather than everything.
    """
    if not variables:
        return []
    wanted = [os.fsencode(f"{name}={value}") for name, value in variables.items()]
    find = _groups_by_proc if _HAS_PROC else _groups_by_ps
    # Twice, because a process that is just becoming another program shows no environment.
    found = {*find(wanted), *find(wanted)}
    return sorted(pgid for pgid in found if pgid > 1 and pgid != os.getpgrp())


def signal_group(pgid: int, signum: int) -> None:
    """Send a signal to a group; one that is gone, or not ours to signal, is passed over.

    Raises:
        ValueError: a number that to the kernel means our own group, or every process there is.
    """
    if pgid <= 1:
        raise ValueError(f"{pgid} is not the number of a job's process group")
    # macOS also refuses permission when only zombies are left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signum)


def is_same_group(pgid: int, started: Optional[str], boot: Optional[str]) -> bool:
    """Whether the group of this number, if it lives, can be the one that was noted.

    Args:
        pgid: the number of the group, and the pid of its leader.
        started: what `born` told of the leader.
        boot: what `boot_id` told then.

    If the leader is gone the answer is yes, though a later leader of that number may be gone too:
    check the environment of a member before signalling.
    """
    return boot == boot_id() and born(pgid) in (None, started)


def groups_of_run(
    pgid: Optional[int],
    started: Optional[str],
    boot: Optional[str],
    variables: Mapping[str, str],
) -> List[int]:
    """The groups that live of a run whose worker died; signalling them hits nobody else.

    Args:
        pgid: the noted group; nothing if the worker died before it could note one.
        started: what `born` told of the group's leader.
        boot: what `boot_id` told when the run began; nothing if that was not noted.
        variables: what no environment but that of this run holds.

    The noted group counts while its leader exists and is the one that was noted. Otherwise, and for
    a child that was never noted, the environment decides.
    """
    if boot is not None and boot != boot_id():
        return []
    found = set(find_groups(variables))
    if pgid is not None and pgid != os.getpgrp():
        leads = born(pgid) is not None and is_same_group(pgid, started, boot)
        if leads and group_alive(pgid):
            found.add(pgid)
    return sorted(found)


def _group_exists(pgid: int) -> bool:
    """Whether the group has members at all, zombies included."""
    if pgid <= 1:
        return False
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _processes() -> Iterator[_Process]:
    if not _HAS_PROC:
        for line in _output_of("ps", "-A", "-o", "pid=,pgid=,stat=").splitlines():
            pid, group, state = line.split()
            yield _Process(int(pid), state[0], int(group))
        return
    for number in _pids():
        fields = _stat(number)
        if fields:
            yield _Process(number, fields[0], int(fields[2]))


def _pids() -> List[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> List[str]:
    """/proc/PID/stat from the state on; empty if the process is gone."""
    # The name before it stands in parentheses, and may hold spaces and parentheses itself.
    return _read(f"/proc/{pid}/stat").decode("ascii", "replace").rpartition(")")[2].split()


def _groups_by_proc(wanted: List[bytes]) -> Iterator[int]:
    for pid in _pids():
        if set(_read(f"/proc/{pid}/environ").split(b"\0")).issuperset(wanted):
            # A zombie has no environment any more.
            fields = _stat(pid)
            if fields:
                yield int(fields[2])


def _groups_by_ps(wanted: List[bytes]) -> Iterator[int]:
    # The environment follows the command, unquoted; the two families of ps are asked differently.
    options = "-axEww" if os.uname().sysname == "Darwin" else "axeww"
    for line in _output_of("ps", options, "-o", "pgid=,stat=,command=").splitlines():
        # A value may hold a line end: what follows it looks like a line of its own.
        group, state, command = [*line.split(None, 2), "", "", ""][:3]
        alive = group.isdigit() and state[:1] not in _DEAD
        if alive and all(f" {os.fsdecode(word)} " in f"{command} " for word in wanted):
            yield int(group)


def _read(path: str) -> bytes:
    """The content of one of /proc's files; empty if that cannot be read, as when it ended."""
    # Without a file object: this is done for every process, and at every start of a job.
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    content = b""
    try:
        while True:
            chunk = os.read(fd, _CHUNK)
            content += chunk
            if len(chunk) < _CHUNK:
                return content
    except OSError:
        return b""
    finally:
        os.close(fd)


def _output_of(*command: str) -> str:
    """What a tool of the system prints, whatever the user's language and time zone."""
    import subprocess  # Not needed on Linux, and slow to import.

    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ, LC_ALL="C", TZ="UTC"),
        )
    except OSError:
        return ""
    return os.fsdecode(done.stdout)
